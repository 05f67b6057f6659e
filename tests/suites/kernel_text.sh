#!/bin/bash
# The scanner against objdump over all code of both kernels: lengths and classes agree, and each instruction start that scanning finds is
# one of objdump's.
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
need_guests
command -v objdump >/dev/null || skip "objdump is missing (package binutils)"
for flavour in 686 686-pae; do
    kernel=$GUESTS/vmlinuz-$flavour
    "$LISTING" extract "$kernel" "$tmp/vmlinux" || { fail "$kernel: no ELF file found inside"; continue; }
    dump 32 "$tmp/vmlinux" >"$tmp/vmlinux-$flavour" || fail "objdump failed on $kernel"
    "$LISTING" compare 32 "$tmp/vmlinux-$flavour" || fail "$flavour: see above"
    "$LISTING" starts "$kernel" "$tmp/vmlinux-$flavour" || fail "$flavour: see above"
done
finish
