#!/bin/bash
# table.sh [SUITE...]: runs valgrind's x86 tests and Linux' x86 selftests in a guest, on Verso and on QEMU's TCG with the CPU model
# nearest to Verso's, and prints a table of each suite. Not a test: the tests are valgrind.sh and selftests.sh.
# VERSO_TABLE_KERNEL=686 or 686-pae (default).
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
flavour=${VERSO_TABLE_KERNEL:-686-pae}
[ $# -gt 0 ] || set -- valgrind selftests
for suite in "$@"; do
    need_suite_guest "$suite"
    run_suite "$flavour" "$tmp/verso" --no-cache || fail "$suite on Verso: exit status $?: $(tail -n 1 "$tmp/verso.err")"
    columns=("Verso=$tmp/verso")
    if command -v qemu-system-i386 >/dev/null; then
        timeout -k 10 600 qemu-system-i386 -accel tcg -cpu n270,+movbe -m 512 -display none -nodefaults -no-reboot -serial stdio \
            -kernel "$GUESTS/vmlinuz-$flavour" -initrd "$tmp/initrd.gz" -append "$suite_append" >"$tmp/tcg" 2>"$tmp/tcg.err" </dev/null ||
            fail "$suite on TCG: exit status $?: $(tail -n 1 "$tmp/tcg.err")"
        columns+=("QEMU TCG=$tmp/tcg")
    else
        echo "no qemu-system-i386 here: Verso's column only" >&2
    fi
    python3 "$SUITES/suite.py" table "$suite" "$suite_dir" "${columns[@]}"
    echo
done
[ "$failures" = 0 ]
