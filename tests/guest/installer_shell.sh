#!/bin/bash
# In the installer keys work: from the language screen to the main menu, on to a shell; commands there give the same
# result twice, a kernel module loads, and the machine powers off from within.
. "$(dirname "$0")/lib.sh"
need_installer
command -v expect >/dev/null || skip "expect is missing"
UNTIL_QUIET=1 timeout -k 10 800 "$VERSO_SOURCE/tools/installer.exp" test "$tmp/console" \
    "$VERSO" run "$GUESTS/installer.iso" --cache "$tmp/cache.db" >"$tmp/exp" 2>&1
status=$?
tail -n 12 "$tmp/exp"
[ $status = 0 ] || fail "the dialogue ended with status $status"
finish
