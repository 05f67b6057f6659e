#!/bin/bash
# Pages that lose their mapping again and again: a use of some length gets a mapping of its own, one access gets none, and instructions that
# meet such pages often leave to the emulator without a host fault. (That the results are right is the guests' own matter.)
. "$(dirname "$0")/../guest/lib.sh"
run() {
    assemble_guest "$VERSO_SOURCE/tests/isa/$1.S" "$tmp/guest.elf" || fail "$1 does not assemble"
    expect_status 1 "$1" timeout 60 "$VERSO" run --kernel "$tmp/guest.elf" --no-stdin --no-cache --stats=json --stats-to "$tmp/stats.json"
}
count() {
    json "$tmp/stats.json" "d['counters']['$1']"
}
grep -qw bmi2 /proc/cpuinfo && hints=1 || hints=0 # without it each access takes a host fault

run tempmap
long=300 short=200 # uses; a long one makes 512 accesses
faults=$(count fault_emulated) emulated=$(($(count fault_emulated) + $(count emulated_volatile))) calls=$(count mmaps)
[ "$emulated" -lt $((long * 160 + short * 2)) ] || fail "$emulated accesses emulated"
[ "$emulated" -ge "$short" ] || fail "$emulated accesses emulated: fewer than uses by one store"
[ "$faults" -lt $((hints ? short / 2 : long * 8 + short * 2)) ] || fail "$faults of them by a host fault"
[ "$calls" -lt $((long * 2 + short)) ] || fail "$calls mapping calls: uses by one store got some"

# 40 rounds of some 50 uses by 20 instructions
run tempsites
if [ "$hints" = 1 ]; then
    faults=$(count host_faults) sites=$(count sites_volatile) emulated=$(count emulated_volatile)
    [ "$sites" -ge 20 ] || fail "$sites instructions look for temporary mappings"
    [ "$emulated" -ge 2000 ] || fail "$emulated accesses emulated without a host fault"
    [ "$faults" -lt 1400 ] || fail "$faults host faults"
fi
finish
