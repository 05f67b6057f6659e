#!/bin/bash
# A kernel without a Multiboot header and without section headers to hand over starts with an initrd of any length.
. "$(dirname "$0")/../guest/lib.sh"
cat >"$tmp/kernel.S" <<'S'
        .code32
        .globl _start
_start: movb    $0, %al
        outb    %al, $0xF4
        hlt
S
as --32 -o "$tmp/kernel.o" "$tmp/kernel.S" &&
    ld --no-warn-rwx-segments -m elf_i386 -N -s -Ttext=0x100000 -e _start -o "$tmp/kernel.elf" "$tmp/kernel.o" || fail "does not assemble"
for length in 1 4096 5000; do
    head -c $length /dev/zero >"$tmp/initrd"
    expect_status 1 "an initrd of $length bytes" timeout 60 "$VERSO" run --kernel "$tmp/kernel.elf" --initrd "$tmp/initrd" --no-stdin --no-cache
done
finish
