#!/bin/sh
# Builds the addon with the address and undefined-behaviour sanitizers and runs the kernel suites over it.
#   scripts/sanitize.sh [test files]
# Leak detection is off: node itself never frees what lives as long as the process.
set -eu
cd "$(dirname "$0")/.."
build=kernels/build-sanitize
cmake -S kernels -B "$build" -DNVLM_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" -j2

compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
# The sanitizer must come before all other libraries, and node itself is not linked with it.
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so.6)"
[ $# -gt 0 ] || set -- test/kernels/*.test.ts
NVLM_TEST_ADDON="$PWD/$build/nvlm.node" \
  LD_PRELOAD="$preload" \
  ASAN_OPTIONS="detect_leaks=0:abort_on_error=1" \
  UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1" \
  node_modules/.bin/node --test "$@"
