#!/bin/bash
# Pages that lose their mapping again and again: a use of some length gets a mapping of its own instead of a host fault for each access,
# one access gets none. (That the results are right is tests/isa/tempmap.S's own matter.)
. "$(dirname "$0")/../guest/lib.sh"
assemble_guest "$VERSO_SOURCE/tests/isa/tempmap.S" "$tmp/guest.elf" || fail "does not assemble"
expect_status 1 "the guest of temporary mappings" timeout 60 "$VERSO" run --kernel "$tmp/guest.elf" --no-stdin --no-cache --stats=json \
    --stats-to "$tmp/stats.json"
count() {
    json "$tmp/stats.json" "d['counters']['$1']"
}
long=300 short=200 # uses; a long one makes 512 accesses
emulated=$(count fault_emulated) calls=$(count mmaps)
[ "$emulated" -lt $((long * 8 + short * 2)) ] || fail "$emulated accesses emulated"
[ "$emulated" -ge "$short" ] || fail "$emulated accesses emulated: fewer than uses by one store"
[ "$calls" -lt $((long * 2 + short)) ] || fail "$calls mapping calls: uses by one store got some"
finish
