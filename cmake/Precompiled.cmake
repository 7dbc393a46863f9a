# Headers of others that take long to read, read once, and their inline functions compiled once
# (clang only: g++ instantiates their templates anew in every source that uses the precompiled
# header, which costs more than it saves). For the preset that tests everything; the release preset
# has none, so that a source that lacks an include does not compile there.
option(GODWIT_PRECOMPILED "Precompile the headers of the standard library and of dependencies" OFF)

set(GODWIT_PRECOMPILED_STANDARD
  <algorithm> <array> <chrono> <deque> <expected> <filesystem> <fstream> <functional> <map> <memory>
  <optional> <random> <set> <sstream> <string> <vector> <fmt/format.h>)
set(GODWIT_PRECOMPILED_HEADERS ${GODWIT_PRECOMPILED_STANDARD} <nlohmann/json.hpp> <CLI/CLI.hpp>)

# For what runs per frame, per page or per byte, in the preset that has sanitizers and is not optimised
# otherwise: without it an agent needs most of a CPU for 3,000 frames a second, and a busy machine
# loses some. Compiling takes a sixth longer.
set(GODWIT_HOT -O1)

# NAME, which holds the header, and NAME_code, its functions, which no source that uses it compiles
# again: half of the time of one that has much to do with JSON.
function(godwit_precompiled name)
  cmake_parse_arguments(arg "" "" "HEADERS;DEPS;OPTIONS" ${ARGN})
  add_library(${name} OBJECT ${CMAKE_SOURCE_DIR}/cmake/precompiled.cc)
  target_link_libraries(${name} PRIVATE godwit_options fmt::fmt ${arg_DEPS})
  target_compile_options(${name} PRIVATE ${arg_OPTIONS} -fpch-codegen)
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})

  set(object ${CMAKE_BINARY_DIR}/${name}_code.o)
  set(header ${CMAKE_BINARY_DIR}/CMakeFiles/${name}.dir/cmake_pch.hxx.pch)
  separate_arguments(flags UNIX_COMMAND "${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_DEBUG}")
  add_custom_command(OUTPUT ${object} DEPENDS ${header} COMMAND_EXPAND_LISTS VERBATIM
    COMMAND ${CMAKE_CXX_COMPILER} ${flags} "$<TARGET_PROPERTY:${name},COMPILE_OPTIONS>"
            -c ${header} -o ${object})
  add_library(${name}_code STATIC ${object})
  set_target_properties(${name}_code PROPERTIES LINKER_LANGUAGE CXX)
endfunction()

if(GODWIT_PRECOMPILED)
  find_package(fmt REQUIRED)
  godwit_precompiled(godwit_pch HEADERS ${GODWIT_PRECOMPILED_HEADERS})
  godwit_precompiled(godwit_hot_pch HEADERS ${GODWIT_PRECOMPILED_STANDARD} OPTIONS ${GODWIT_HOT})
  godwit_precompiled(godwit_test_pch
    HEADERS ${GODWIT_PRECOMPILED_HEADERS} <gtest/gtest.h> <gmock/gmock.h>
    DEPS GTest::gtest GTest::gmock)
endif()

function(godwit_precompile target from)
  if(GODWIT_PRECOMPILED)
    target_precompile_headers(${target} REUSE_FROM ${from})
    target_link_libraries(${target} PRIVATE ${from}_code)
    # Of those functions only what is called: some call what no library has.
    target_link_options(${target} PUBLIC -Wl,--gc-sections)
  endif()
endfunction()
