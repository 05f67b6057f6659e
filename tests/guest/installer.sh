#!/bin/bash
# The installer from its ISO: language screen on the serial console, cold and warm; the second boot takes at least 99 %
# of its pages from the cache; Ctrl-A x ends it with its own status.
. "$(dirname "$0")/lib.sh"
need_installer
command -v expect >/dev/null || skip "expect is missing"
"$VERSO" prewarm "$GUESTS/installer.iso" --cache "$tmp/cache.db" >"$tmp/prewarm" || fail "prewarm: exit status $?"
for boot in first second; do
    UNTIL_QUIET=1 UNTIL_TIME=$tmp/time "$VERSO_SOURCE/tools/until.exp" 'Select a language|Choose the language' 300 '\001x' \
        "$VERSO" run "$GUESTS/installer.iso" --cache "$tmp/cache.db" --stats=json --stats-to "$tmp/$boot.json" >"$tmp/$boot.out" 2>&1 || {
        fail "$boot boot: no language screen"
        finish
    }
    echo "$boot boot: language screen after $(cat "$tmp/time") s, hit ratio $(json "$tmp/$boot.json" 'd["hit_ratio"]')"
    [ "$(json "$tmp/$boot.json" 'd["end"]')" = quit ] || fail "$boot boot: ended by $(json "$tmp/$boot.json" 'd["end"]')"
done
awk -v r="$(json "$tmp/second.json" 'd["hit_ratio"]')" 'BEGIN { exit !(r >= 0.99) }' || fail "second boot: hit ratio below 0.99"
finish
