#!/bin/bash
# run.sh GUEST.S...: each guest translated, emulated, in lockstep, and with a cache cold and warm. It must print no FAIL, end with "done"
# and status 1 (exit port, 0), and print the same every time.
. "$(dirname "$0")/../guest/lib.sh"
cd "$(dirname "$0")" || exit 1
ways=${ISA_WAYS:-translated emulated lockstep cold warm}

for source in "$@"; do
    name=$(basename "$source" .S)
    elf=$tmp/$name.elf
    assemble_guest "$name.S" "$elf" ||
        { fail "$name: does not assemble"; continue; }
    read -ra own < <(sed -n 's/^# run with: //p' "$name.S") # options of the guest's own
    first=
    for way in $ways; do
        case $way in
        translated) options=(--no-cache) ;;
        emulated) options=(--no-cache --emulate) ;;
        lockstep) options=(--no-cache --lockstep) ;;
        *) options=(--cache "$tmp/$name.db") ;;
        esac
        got=0
        timeout "${ISA_TIMEOUT:-60}" "$VERSO" run --kernel "$elf" --no-stdin "${own[@]}" "${options[@]}" </dev/null >"$tmp/$name.$way" 2>"$tmp/err" || got=$?
        failed=$failures
        grep '^FAIL' "$tmp/$name.$way" | head -n 20 | sed "s/^/    $way: /"
        grep -q '^FAIL' "$tmp/$name.$way" && fail "$name, $way: the guest found errors"
        [ "$got" = 1 ] || { fail "$name, $way: status $got"; tail -n 8 "$tmp/err" | sed 's/^/    /'; }
        [ "$(tail -n 1 "$tmp/$name.$way")" = "done" ] || fail "$name, $way: stopped after: $(tail -n 1 "$tmp/$name.$way")"
        if [ -z "$first" ]; then
            first=$way
        else
            cmp -s "$tmp/$name.$first" "$tmp/$name.$way" || fail "$name: $first and $way print different lines"
        fi
        [ "$failed" = "$failures" ] && echo "$name: $way: $(grep -c '^ok' "$tmp/$name.$way") checks ok"
    done
done
finish
