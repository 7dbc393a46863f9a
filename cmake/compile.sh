#!/usr/bin/env bash
# compile.sh SOURCE-DIR COMPILER ARGUMENT...: compiles through ccache, with one cache for all
# checkouts: paths below the source directory are hashed relative to it.
#
# A precompiled header (clang's) holds whole paths and the times of files, so each checkout compiles
# its own. Beside it goes a .sum, the hash of all that was read for it and of the options that it was
# made with, which is what ccache takes for its content. CMake's `-Xclang -include -Xclang HEADER`
# (a whole path) repeats what -include-pch says: it is left out.
set -euo pipefail
export CCACHE_BASEDIR=$1 CCACHE_NOHASHDIR=1 CCACHE_PCH_EXTSUM=1
export CCACHE_SLOPPINESS=pch_defines,time_macros
shift

words=() output='' depends='' emits=no uses=no
while [ $# -gt 0 ]; do
  case "$1 ${2:-} ${3:-}" in
    "-Xclang -include -Xclang") [ $uses = yes ] && shift 4 && continue ;;
    "-Xclang -include-pch -Xclang") uses=yes ;;
    "-Xclang -emit-pch "*) emits=yes ;;
    "-o "*) output=$2 ;;
    "-MF "*) depends=$2 ;;
  esac
  words+=("$1")
  shift
done

[ $emits = yes ] || exec ccache "${words[@]}"
"${words[@]}"
{
  printf '%s\n' "${words[@]}" | grep '^-f'
  sed -e '1s/^[^:]*://' -e 's/\\$//' "$depends" | xargs cat
} | sha256sum >"$output.sum"
