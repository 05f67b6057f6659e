#!/bin/bash
# Two machines at once share one cache file: both run their script to the end, no record is damaged, and a third boot finds
# what either has stored.
. "$(dirname "$0")/lib.sh"
need_guests
run_guest 686 "$tmp/a" --cache "$tmp/cache.db" --stats=json --stats-to "$tmp/a.json" &
first=$!
run_guest 686-pae "$tmp/b" --cache "$tmp/cache.db" --stats=json --stats-to "$tmp/b.json" &
second=$!
wait $first || fail "first machine: exit status $?: $(tail -n 1 "$tmp/a.err")"
wait $second || fail "second machine: exit status $?: $(tail -n 1 "$tmp/b.err")"
for m in a b; do
    grep -aq '^T: end, 0 failed' "$tmp/$m" || fail "machine $m: the script did not end well"
    [ "$failures" != 0 ] || [ "$(json "$tmp/$m.json" 'sum(d["cache"]["refused"].values())')" = 0 ] ||
        fail "machine $m: records were refused"
done
expect_status 0 "verify after both" "$VERSO" cache verify --cache "$tmp/cache.db"
run_guest 686 "$tmp/c" --cache "$tmp/cache.db" --stats=json --stats-to "$tmp/c.json" || fail "third boot: exit status $?"
awk -v r="$(json "$tmp/c.json" 'd["hit_ratio"]')" 'BEGIN { exit !(r >= 0.99) }' || fail "third boot: hit ratio below 0.99"
finish
