#!/bin/bash
# Measures Verso beside QEMU's TCG and the processor itself; one command, prints a table, writes CSV and SVG.
# Usage: tools/bench/run.sh [--rows PATTERNS] [-n ROUNDS] [--ms MS] ... (tools/bench/run.sh --help)
# Environment: VERSO_BUILD (build/), VERSO_GUESTS (a folder made by tools/mkguest.sh; made in the build folder otherwise).
set -eu
cd "$(dirname "$0")/../.."
build=${VERSO_BUILD:-$PWD/build}
work=$build/bench
case " $* " in
*' --help '* | *' -h '*) exec python3 tools/bench/bench.py --help ;;
esac

tools/apt.sh build guest bench
[ -f "$build/build.ninja" ] || cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$build" --target verso >/dev/null
mkdir -p "$work"
guests=${VERSO_GUESTS:-$build/tests/guests}
[ -s "$guests/busybox-initrd.gz" ] || tools/mkguest.sh --state "$build/apt" "$guests"
tools/bench/guest/build.sh "$guests/busybox-initrd.gz" "$work"
exec python3 tools/bench/bench.py --verso "$build/tools/verso" --guests "$guests" --work "$work" "$@"
