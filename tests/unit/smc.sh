#!/bin/bash
# Pages that are written while they run: their code is emulated for a while instead of being translated after each store, and is
# translated in the end. (That the results are right is tests/isa/smc.S's own matter.)
. "$(dirname "$0")/../guest/lib.sh"
assemble_guest "$VERSO_SOURCE/tests/isa/smc.S" "$tmp/smc.elf" || fail "does not assemble"
expect_status 1 "the guest of self-modifying code" timeout 60 "$VERSO" run --kernel "$tmp/smc.elf" --no-stdin --no-cache --stats=json \
    --stats-to "$tmp/stats.json"
count() {
    json "$tmp/stats.json" "d['counters']['$1']"
}
stores=2000 # at least so many stores to code that has run
dropped=$(count page_dropped) emulated=$(count emulated_smc)
[ "$dropped" -gt 0 ] || fail "no page was dropped"
[ "$dropped" -lt $((stores / 10)) ] || fail "$dropped pages dropped: as many as stores"
[ "$emulated" -gt "$stores" ] || fail "$emulated instructions emulated in pages that are written"
finish
