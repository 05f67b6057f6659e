#!/bin/bash
# emulator.sh [LOOPS]: how many instructions a second of processor time the single-instruction emulator runs of straight code, in
# flat 32-bit code with and without paging and in real mode. Uses build/tools/verso, or $VERSO.
set -u
cd "$(dirname "$0")" || exit 1
verso=${VERSO:-../../build/tools/verso}
loops=${1:-1000000}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for mode in 32 33 16; do
    as --32 --defsym MODE=$mode --defsym LOOPS="$loops" -o "$tmp/o" emulator.S &&
        ld --no-warn-rwx-segments -m elf_i386 -N -Ttext=0x10000 -e _start -o "$tmp/elf" "$tmp/o" || exit 1
    "$verso" run --kernel "$tmp/elf" --no-stdin --no-cache --emulate --stats=json --stats-to "$tmp/json" </dev/null 2>"$tmp/err"
    status=$?
    [ $status = 1 ] || { echo "mode $mode: status $status"; cat "$tmp/err"; exit 1; }
    python3 - "$tmp/json" $mode <<'P'
import json, sys
d = json.load(open(sys.argv[1]))
name = {"16": "real mode, 16 bits", "32": "32 bits", "33": "32 bits, paging"}[sys.argv[2]]
n, ns = d["counters"]["emulated"], d["cpu_ns"]
print(f"{name:20} {n / 1e6:8.1f} M instructions  {ns / 1e9:6.2f} s of processor time  {n * 1e3 / ns:6.1f} M/s")
P
done
