# One INTERFACE target carries every flag; no global flags are set.
add_library(godwit_options INTERFACE)
target_compile_features(godwit_options INTERFACE cxx_std_23)
target_include_directories(godwit_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(godwit_options INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wold-style-cast -Wformat=2
  -fno-omit-frame-pointer)
# fmt and json are shared libraries or headers of the distribution: warnings inside them are not ours.

set(GODWIT_SANITIZE "" CACHE STRING "Sanitizers: address,undefined or thread")
if(GODWIT_SANITIZE)
  target_compile_options(godwit_options INTERFACE
    -fsanitize=${GODWIT_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(godwit_options INTERFACE -fsanitize=${GODWIT_SANITIZE})
  if(GODWIT_SANITIZE MATCHES "address.*undefined")
    # ASan sees both; without them a file compiles in four fifths of the time.
    target_compile_options(godwit_options INTERFACE -fno-sanitize=null,object-size)
  endif()
endif()

option(GODWIT_FUZZ "Build the fuzz targets (clang, libFuzzer)" OFF)
if(GODWIT_FUZZ)
  target_compile_options(godwit_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

find_program(GODWIT_CCACHE ccache)
if(GODWIT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/cmake/compile.sh ${CMAKE_SOURCE_DIR})
endif()
find_program(GODWIT_MOLD mold)
if(GODWIT_MOLD)
  target_link_options(godwit_options INTERFACE -fuse-ld=mold)
endif()
# Addresses are resolved at the start, and their table is read-only from then on.
target_link_options(godwit_options INTERFACE -Wl,-z,relro,-z,now)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
