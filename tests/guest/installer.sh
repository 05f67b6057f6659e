#!/bin/bash
# The installer from its ISO: language screen on the serial console, without a cache, cold and warm, with the same kernel messages; the second boot takes at least 99 %
# of its pages from the cache; Ctrl-A x ends it with its own status.
. "$(dirname "$0")/lib.sh"
need_installer
command -v expect >/dev/null || skip "expect is missing"
"$VERSO" prewarm "$GUESTS/installer.iso" --cache "$tmp/cache.db" >"$tmp/prewarm" || fail "prewarm: exit status $?"
for boot in off first second; do
    options=(--cache "$tmp/cache.db")
    [ $boot != off ] || options=(--no-cache)
    UNTIL_TIME=$tmp/time "$VERSO_SOURCE/tools/until.exp" 'Select a language|Choose the language' 300 '\001x' \
        "$VERSO" run "$GUESTS/installer.iso" "${options[@]}" --stats=json --stats-to "$tmp/$boot.json" >"$tmp/$boot.out" 2>&1 || {
        fail "$boot boot: no language screen"
        finish
    }
    echo "$boot boot: language screen after $(cat "$tmp/time") s, hit ratio $(json "$tmp/$boot.json" 'd["hit_ratio"]')"
    [ "$(json "$tmp/$boot.json" 'd["end"]')" = quit ] || fail "$boot boot: ended by $(json "$tmp/$boot.json" 'd["end"]')"
done
for boot in first second; do
    diff <(kernel_lines "$tmp/off.out") <(kernel_lines "$tmp/$boot.out") || fail "kernel messages differ: off, $boot boot"
done
[ "$(kernel_lines "$tmp/off.out" | wc -l)" -gt 200 ] || fail "too few kernel messages to compare"
awk -v r="$(json "$tmp/second.json" 'd["hit_ratio"]')" 'BEGIN { exit !(r >= 0.99) }' || fail "second boot: hit ratio below 0.99"
finish
