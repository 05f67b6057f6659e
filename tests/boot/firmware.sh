#!/bin/bash
# firmware.sh: a real firmware (Debian package seabios, both images) through its self-test to the message that there is nothing to boot from,
# emulated, translated, with the cache cold and warm: same lines on the debug console.
. "$(dirname "$0")/../guest/lib.sh"
images=${VERSO_FIRMWARE:-/usr/share/seabios}
[ -s "$images/bios.bin" ] || skip "no firmware image (package seabios)"

# Until the message. But for the rate of the clock, its lines depend on nothing but the image.
run_until_end() { # OUTPUT OPTION...
    local out=$1 pid
    rm -f "$1"
    shift
    "$VERSO" run --no-stdin --debugcon "$out" "$@" </dev/null >/dev/null 2>"$tmp/err" &
    pid=$!
    for _ in $(seq 1200); do
        grep -q '^No bootable device' "$out" 2>/dev/null && break
        kill -0 $pid 2>/dev/null || break
        sleep 0.1
    done
    kill $pid 2>/dev/null
    wait $pid 2>/dev/null
    grep -q '^No bootable device' "$out"
}

for image in bios.bin bios-256k.bin; do
    first=
    for way in translated emulated cold warm; do
        case $way in
        emulated) options=(--no-cache --emulate) ;;
        translated) options=(--no-cache) ;;
        *) options=(--cache "$tmp/$image.db") ;;
        esac
        if ! run_until_end "$tmp/$way" --bios "$images/$image" "${options[@]}"; then
            fail "$image, $way: no message; the last lines:"
            tail -n 5 "$tmp/$way" "$tmp/err" | sed 's/^/    /'
            continue
        fi
        grep -v 'CPU Mhz=' "$tmp/$way" >"$tmp/$way.lines"
        if [ -z "$first" ]; then
            first=$way
        else
            cmp -s "$tmp/$first.lines" "$tmp/$way.lines" || fail "$image: $first and $way print different lines"
        fi
        echo "$image: $way: $(wc -l <"$tmp/$way.lines") lines"
    done
done
finish
