find_package(GTest REQUIRED)
include(Precompiled)

# godwit_library(base HOT SOURCES bytes.cc ... DEPS fmt::fmt): one directory = one target = one namespace.
# HOT: what runs per frame, page or byte (Precompiled.cmake).
function(godwit_library name)
  cmake_parse_arguments(arg "HOT" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(godwit_${name} STATIC ${arg_SOURCES})
  add_library(godwit::${name} ALIAS godwit_${name})
  target_link_libraries(godwit_${name} PUBLIC godwit_options ${arg_DEPS} PRIVATE ${arg_PRIVATE_DEPS})
  if(arg_HOT AND GODWIT_PRECOMPILED)
    target_compile_options(godwit_${name} PRIVATE ${GODWIT_HOT})
    godwit_precompile(godwit_${name} godwit_hot_pch)
  else()
    godwit_precompile(godwit_${name} godwit_pch)
  endif()
endfunction()

# godwit_test(base SOURCES bytes_test.cc ...): the unit tests that sit beside a library's sources.
# SHARDS: in so many processes, named base.0 and so on.
function(godwit_test name)
  cmake_parse_arguments(arg "" "LABEL;SHARDS" "SOURCES;DEPS" ${ARGN})
  if(GODWIT_FUZZ)
    return()
  endif()
  add_executable(${name}_test ${arg_SOURCES})
  target_link_libraries(${name}_test PRIVATE ${arg_DEPS} GTest::gtest_main GTest::gmock)
  godwit_precompile(${name}_test godwit_test_pch)
  if(NOT arg_LABEL)
    set(arg_LABEL unit)
  endif()
  # All tests of a program in one process: one each costs five times as much under the sanitizers.
  # A sixth of that time goes into the stacks of allocations; four frames of each will do, and a
  # program that is run by itself has all of them.
  if(NOT arg_SHARDS)
    add_test(NAME ${name} COMMAND ${name}_test --gtest_brief=1)
    set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT 300
      ENVIRONMENT "ASAN_OPTIONS=malloc_context_size=4")
    return()
  endif()
  # Of which some wait much: the longest, which begin first.
  math(EXPR last "${arg_SHARDS} - 1")
  foreach(shard RANGE ${last})
    add_test(NAME ${name}.${shard} COMMAND ${name}_test --gtest_brief=1)
    set_tests_properties(${name}.${shard} PROPERTIES LABELS ${arg_LABEL} TIMEOUT 300 COST 100
      ENVIRONMENT
      "ASAN_OPTIONS=malloc_context_size=4;GTEST_TOTAL_SHARDS=${arg_SHARDS};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()

# godwit_fuzz(datagram SOURCES datagram_fuzz.cc DEPS godwit::wire): a libFuzzer target in the fuzz
# preset; in every other preset the same file replays its corpus and a fixed number of random inputs.
function(godwit_fuzz name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS" ${ARGN})
  if(GODWIT_FUZZ)
    add_executable(${name}_fuzz ${arg_SOURCES})
    target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name}_fuzz ${arg_SOURCES} ${CMAKE_SOURCE_DIR}/test/fuzz/replay_main.cc)
    add_test(NAME fuzz.${name} COMMAND ${name}_fuzz ${CMAKE_SOURCE_DIR}/test/fuzz/corpus/${name})
    set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 120
      ENVIRONMENT "ASAN_OPTIONS=malloc_context_size=4")
  endif()
  target_link_libraries(${name}_fuzz PRIVATE godwit_options ${arg_DEPS})
endfunction()
