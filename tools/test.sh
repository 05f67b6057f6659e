#!/bin/bash
# Installs what the tests need, builds, runs all of them, and ends with one line: N passed, N failed.
# Usage: test.sh [ctest options, e.g. -L unit]
set -u
cd "$(dirname "$0")/.." || exit 1
build=${VERSO_BUILD:-$PWD/build}

tools/apt.sh build guest || exit 1
tools/apt.sh suites || echo "without these packages the suites from distribution source packages are skipped"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DVERSO_TESTS=ON || exit 1
cmake --build "$build" || exit 1

log=$build/ctest.log
ctest --test-dir "$build" --output-on-failure --no-tests=error "$@" </dev/null 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# One line of each test ends in Passed, ***Failed, ***Timeout, ***Exception or ***Skipped.
count() {
    grep -cE "^ *[0-9]+/[0-9]+ Test +#[0-9]+:.*$1" "$log"
}
passed=$(count ' Passed ')
skipped=$(count '\*\*\*Skipped')
all=$(count '')
failed=$((all - passed - skipped))
[ "$skipped" = 0 ] || echo "$skipped skipped"
# Nothing ran, or ctest itself failed: that is no success either.
if [ "$failed" = 0 ] && { [ "$status" != 0 ] || [ "$passed" = 0 ]; }; then
    failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
