# Headers of others that take long to read, read once (clang only: g++ instantiates their templates
# anew in every source that uses the precompiled header, which costs more than it saves). For the
# preset that tests everything; the release preset has none, so that a source that lacks an include
# does not compile there.
option(GODWIT_PRECOMPILED "Precompile the headers of the standard library and of dependencies" OFF)

set(GODWIT_PRECOMPILED_STANDARD
  <algorithm> <array> <chrono> <deque> <expected> <filesystem> <fstream> <functional> <map> <memory>
  <optional> <random> <set> <sstream> <string> <vector> <fmt/format.h>)
set(GODWIT_PRECOMPILED_HEADERS ${GODWIT_PRECOMPILED_STANDARD} <nlohmann/json.hpp> <CLI/CLI.hpp>)

# For what runs per frame, per page or per byte, in the preset that has sanitizers and is not optimised
# otherwise: without it an agent needs most of a CPU for 3,000 frames a second, and a busy machine
# loses some. Compiling takes a sixth longer.
set(GODWIT_HOT -O1)

function(godwit_precompiled name)
  cmake_parse_arguments(arg "" "" "HEADERS;DEPS;OPTIONS" ${ARGN})
  add_library(${name} OBJECT ${CMAKE_SOURCE_DIR}/cmake/precompiled.cc)
  target_link_libraries(${name} PRIVATE godwit_options fmt::fmt ${arg_DEPS})
  target_compile_options(${name} PRIVATE ${arg_OPTIONS})
  target_precompile_headers(${name} PRIVATE ${arg_HEADERS})
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
  endif()
endfunction()
