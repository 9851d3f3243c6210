#!/bin/sh
# Runs the kernel suites over an addon built with the address and undefined-behaviour sanitizers.
#   scripts/sanitize.sh [test files]
# Leak detection is off: node itself never frees what lives as long as the process.
set -eu
cd "$(dirname "$0")/.."
node=node_modules/.bin/node
"$node" -e 'import("./scripts/build.mjs").then((build) => build.buildAddon({ sanitize: true }))'

# The sanitizer must come before all other libraries, and node itself is not linked with it.
compiler=$("$node" -p 'require("./scripts/prerequisites.mjs").findCompiler()')
preload="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libstdc++.so.6)"
[ $# -gt 0 ] || set -- test/kernels/*.test.ts
# Under a running test, node would take the suites for a part of it.
unset NODE_TEST_CONTEXT
NVLM_TEST_ADDON="$PWD/kernels/build-sanitize/nvlm.node" \
  LD_PRELOAD="$preload" \
  ASAN_OPTIONS="detect_leaks=0:abort_on_error=1" \
  UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1" \
  "$node" --test --test-concurrency=2 "$@"
