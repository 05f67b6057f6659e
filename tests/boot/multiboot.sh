#!/bin/bash
# multiboot.sh: a Multiboot kernel says what it was given; kernels whose header asks for too much are refused.
. "$(dirname "$0")/../guest/lib.sh"
cd "$(dirname "$0")" || exit 1

build() { # NAME [AS-OPTION...]
    local name=$1
    shift
    as --32 "$@" -o "$tmp/$name.o" multiboot.S && ld --no-warn-rwx-segments -m elf_i386 -N -Ttext=0x200000 -e _start -o "$tmp/$name" "$tmp/$name.o"
}
build os.elf || fail "does not assemble"
printf 'ABCDefgh' >"$tmp/one"
printf 'wxyz%5000d' 0 >"$tmp/two"

cat >"$tmp/wanted" <<END
eax 2BADB002
eflags VM and IF 00000000
cr0 PG and PE 00000001
bss 00000000
flags 0000026D
mem_lower 0000027F
mem_upper 0000FC00
cmdline $tmp/os.elf first second=3
loader Verso
modules 00000002
module $tmp/one length 00000008
  at page offset 00000000
  begins with 44434241
module $tmp/two length 0000138C
  at page offset 00000000
  begins with 7A797877
map 00000000 0009FC00 00000001
map 0009FC00 00000400 00000002
map 000E0000 00020000 00000002
map 00100000 03F00000 00000001
section 1 .text
done
END
for way in --emulate --no-cache; do
    expect_status 1 "the kernel, $way" timeout 60 "$VERSO" run -m 64M --kernel "$tmp/os.elf" --append "first second=3" --initrd "$tmp/one" --initrd "$tmp/two" \
        --no-stdin $way && { diff "$tmp/wanted" "$tmp/out" || fail "$way: other lines"; }
done

refused() { # TEXT WHAT AS-OPTION...
    local text=$1 what=$2
    shift 2
    build bad.elf "$@" || fail "$what: does not assemble"
    expect_status 27 "$what" timeout 60 "$VERSO" run --kernel "$tmp/bad.elf" --no-stdin --no-cache || return
    grep -q "$text" "$tmp/err" || { fail "$what: another message:"; cat "$tmp/err"; }
}
refused 'video mode' "a video mode required" --defsym FLAGS=7
refused '00000013' "an unknown requirement" --defsym FLAGS=0x13
refused 'checksum' "a wrong checksum" --defsym ERROR=1
finish
