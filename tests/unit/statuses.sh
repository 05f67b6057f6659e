#!/bin/bash
# The manual page and README.md name the same exit statuses as the one table of the source.
. "$(dirname "$0")/../guest/lib.sh"
cd "$VERSO_SOURCE" || exit 2
numbers=$(sed -n 's/^ *STATUS([A-Z0-9_]*, \([0-9]*\),.*/\1/p' tools/status.h)
[ "$(wc -w <<<"$numbers")" -gt 20 ] || fail "the table in tools/status.h was not understood"
for n in $numbers; do
    grep -qE "^ *$n  " tools/verso.1 || fail "tools/verso.1 does not name status $n"
done
while read -r n _; do
    grep -qx "$n" <<<"$numbers" || fail "tools/verso.1 names status $n, which does not exist"
done < <(sed -n '/^.SH EXIT STATUS/,/^.fi/p' tools/verso.1 | grep -E '^ *[0-9]+  ')
# Every long option of every command is in the manual page.
for command in prewarm run trace "cache ls" "cache show" "cache verify" "cache gc"; do
    # shellcheck disable=SC2086 # two words
    for option in $("$VERSO" $command --help | grep -oE -- '--[a-z][a-z-]+' | sort -u); do
        case $option in --help | --no-map | --no-code | --no-validate) continue ;; esac
        grep -qF -- "${option//-/\\-}" tools/verso.1 || fail "tools/verso.1 does not name $option of $command"
    done
done
finish
