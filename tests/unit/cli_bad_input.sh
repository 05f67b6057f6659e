#!/bin/bash
# Every kind of bad input: its own exit status, a message on standard error that names the file, no crash.
. "$(dirname "$0")/../guest/lib.sh"
v=$VERSO
cache=$tmp/cache.db

# bad STATUS WHAT FILE COMMAND...: the message must name the file.
bad() {
    local status=$1 what=$2 file=$3
    shift 3
    expect_status "$status" "$what" "$@" || return
    [ -s "$tmp/err" ] || fail "$what: no message"
    [ "$file" = - ] || grep -qF "$(basename "$file")" "$tmp/err" || fail "$what: the message does not name $file: $(head -n 1 "$tmp/err")"
}
both() { # STATUS WHAT FILE: pre-warm and run agree
    bad "$1" "prewarm: $2" "$3" "$v" prewarm "$3" --cache "$cache"
    bad "$1" "run: $2" "$3" "$v" run "$3" --no-cache --no-stdin
}

# Usage
bad 2 "no command" - "$v"
bad 2 "unknown command" - "$v" frobnicate
bad 2 "unknown option" - "$v" run --frobnicate
bad 2 "run without a guest" - "$v" run
bad 2 "too little RAM" - "$v" run x.iso -m 1M
bad 2 "malformed RAM" - "$v" run x.iso -m 12Q
bad 2 "prewarm without a guest" - "$v" prewarm
bad 2 "unknown cache action" - "$v" cache frobnicate
for which in x 1,2,3 every:5 every:5,for:x for:5,every: every:5,for:10,skip:2 1,-2; do
    bad 2 "--lockstep=$which" - "$v" run x.iso --lockstep="$which"
done
bad 2 "unknown device" - "$v" run x.iso --device frobnicate
grep -q 'testdev' "$tmp/err" || fail "unknown device: the message does not say which there are"
bad 2 "unknown trace event" - "$v" run x.iso --trace-events frobnicate
expect_status 0 "--help" "$v" --help
for s in 15 20 21 22 23 24 25 26 27 30 31 33 34; do
    grep -qE "^ +$s " "$tmp/out" || fail "--help does not document status $s"
done
expect_status 0 "--version" "$v" --version
for c in prewarm run trace cache; do expect_status 0 "$c --help" "$v" $c --help; done
for c in ls show stats verify gc rm; do expect_status 0 "cache $c --help" "$v" cache $c --help; done

# Guest images
both 20 "missing file" "$tmp/missing.iso"
head -c 100000 /dev/urandom >"$tmp/random.iso"
both 21 "not an ISO" "$tmp/random.iso"
: >"$tmp/empty.iso"
expect_status 21 "empty file" "$v" prewarm "$tmp/empty.iso" --cache "$cache" ||
    true
printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\76\0\1\0\0\0' >"$tmp/elf64"
head -c 4096 /dev/zero >>"$tmp/elf64"
both 26 "64-bit kernel" "$tmp/elf64"
printf '\177ELF\1\1\1\0\0\0\0\0\0\0\0\0\2\0\3\0\1\0\0\0\0\0\20\0\377\377\377\177' >"$tmp/elf32"
head -c 200 /dev/zero >>"$tmp/elf32"
both 25 "damaged ELF" "$tmp/elf32"

if command -v xorriso >/dev/null; then
    mkdir "$tmp/tree"
    echo "no kernel here" >"$tmp/tree/readme"
    head -c 300000 /dev/urandom >"$tmp/tree/data"
    xorriso -as mkisofs -quiet -R -J -o "$tmp/nokernel.iso" "$tmp/tree" 2>/dev/null
    both 23 "ISO without a kernel" "$tmp/nokernel.iso"
    mkdir -p "$tmp/tree/isolinux"
    printf 'default a\nlabel a\n kernel /linux\n append initrd=/initrd x=y\n' >"$tmp/tree/isolinux/isolinux.cfg"
    # A boot sector and setup header of protocol 2.08 whose payload is in no known compression.
    python3 - "$tmp/tree/linux" <<'P'
import struct, sys
b = bytearray(0x4000)
b[0x1F1] = 4                      # setup sectors
b[0x1FE:0x200] = b"\x55\xaa"
b[0x202:0x206] = b"HdrS"
struct.pack_into("<H", b, 0x206, 0x20C)
b[0x211] = 1                      # loaded high
struct.pack_into("<I", b, 0x248, 0x100)   # payload_offset
struct.pack_into("<I", b, 0x24C, 0x1000)  # payload_length
b[0x1F4:0x1F8] = struct.pack("<I", (0x4000 - 5 * 512) // 16)
b[5 * 512 + 0x100:5 * 512 + 0x108] = b"NOTACOMP"
open(sys.argv[1], "wb").write(b)
P
    head -c 200000 /dev/zero >"$tmp/tree/initrd"
    xorriso -as mkisofs -quiet -R -J -o "$tmp/unknown.iso" "$tmp/tree" 2>/dev/null
    bad 24 "prewarm: unknown compression" - "$v" prewarm "$tmp/unknown.iso" --cache "$cache"
    bad 24 "run: unknown compression" - "$v" run "$tmp/unknown.iso" --no-cache --no-stdin
    head -c 120000 "$tmp/unknown.iso" >"$tmp/truncated.iso"
    both 22 "truncated ISO" "$tmp/truncated.iso"
    bad 5 "no such boot entry" - "$v" run "$tmp/unknown.iso" --entry frobnicate --no-cache --no-stdin
else
    echo "note: xorriso is missing, the ISO cases were left out"
fi

# Caches
echo "this is no cache, and it is long enough to be one, or so it would seem at first" >"$tmp/text.db"
chmod 600 "$tmp/text.db"
cp "$tmp/text.db" "$tmp/text.copy"
bad 31 "cache file that is not a cache" "$tmp/text.db" "$v" cache ls --cache "$tmp/text.db"
bad 31 "prewarm into a file that is not a cache" "$tmp/text.db" "$v" prewarm "$tmp/random.iso" --cache "$tmp/text.db"
cmp -s "$tmp/text.db" "$tmp/text.copy" || fail "the file that is not a cache was changed"
bad 30 "cache that does not exist" - "$v" cache ls --cache "$tmp/none.db"
bad 30 "cache in a folder that does not exist" - "$v" prewarm "$tmp/random.iso" --cache "$tmp/none/cache.db"
bad 30 "cache in a folder nobody can write" - "$v" prewarm "$tmp/random.iso" --cache /proc/verso-cache.db
if [ -e "$cache" ]; then
    chmod 666 "$cache"
    bad 33 "cache that others can write" "$cache" "$v" cache ls --cache "$cache"
else
    fail "no cache was made by prewarm"
fi
finish
