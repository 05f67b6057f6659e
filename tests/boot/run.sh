#!/bin/bash
# run.sh: ROM images, each from the reset vector to its end: emulated, translated, with the cache cold and warm. Same rules as isa/run.sh.
. "$(dirname "$0")/../guest/lib.sh"
cd "$(dirname "$0")" || exit 1

build() { # NAME
    as --32 -I . -o "$tmp/$1.o" "$1.S" && ld -m elf_i386 -T rom.ld -o "$tmp/$1.elf" "$tmp/$1.o" &&
        objcopy -O binary --gap-fill 0xFF "$tmp/$1.elf" "$tmp/$1.bin" && [ "$(stat -c %s "$tmp/$1.bin")" = 65536 ]
}

for name in modes resets; do
    build $name || { fail "$name: does not assemble to 64 KiB"; continue; }
    for way in emulated translated cold warm; do
        case $way in
        emulated) options=(--no-cache --emulate) ;;
        translated) options=(--no-cache) ;;
        *) options=(--cache "$tmp/$name.db") ;;
        esac
        got=0
        timeout 60 "$VERSO" run --bios "$tmp/$name.bin" --reset restart --no-stdin "${options[@]}" </dev/null >"$tmp/$name.$way" 2>"$tmp/err" || got=$?
        failed=$failures
        grep '^FAIL' "$tmp/$name.$way" | head -n 20 | sed "s/^/    $way: /"
        grep -q '^FAIL' "$tmp/$name.$way" && fail "$name, $way: the guest found errors"
        [ "$got" = 1 ] || { fail "$name, $way: status $got"; tail -n 8 "$tmp/err" | sed 's/^/    /'; }
        [ "$(tail -n 1 "$tmp/$name.$way")" = "done" ] || fail "$name, $way: stopped after: $(tail -n 1 "$tmp/$name.$way")"
        cmp -s "$tmp/$name.emulated" "$tmp/$name.$way" || fail "$name: emulated and $way print different lines"
        [ "$failed" = "$failures" ] && echo "$name: $way: $(grep -c '^ok' "$tmp/$name.$way") checks ok"
    done
done
finish
