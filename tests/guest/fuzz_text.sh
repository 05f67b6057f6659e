#!/bin/bash
# The fuzzer of whole guests with pieces of real code: a kernel's and a program's. FUZZ_CASES: how many with each.
. "$(dirname "$0")/lib.sh"
need_guests
fuzz=$VERSO_WORK/fuzz_machine
[ -x "$fuzz" ] || skip "no $fuzz"
cases=${FUZZ_CASES:-4000}

python3 - "$GUESTS/vmlinuz-686" "$tmp/kernel" <<'END' || fail "no kernel inside of vmlinuz-686"
import lzma, sys
data = open(sys.argv[1], "rb").read()
at = data.find(b"\xfd7zXZ\0")
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(data[at:])[:6 << 20])
END
(cd "$tmp" && gzip -dc "$GUESTS/busybox-initrd.gz" | cpio --quiet -id --no-absolute-filenames bin/busybox 2>/dev/null)
find "$tmp" -name busybox -type f -exec cp {} "$tmp/program" \;

for text in kernel program; do
    [ -s "$tmp/$text" ] || { fail "no $text to cut pieces from"; continue; }
    "$fuzz" --text "$tmp/$text" --from 3000000 --count "$cases" >"$tmp/out" || fail "$text: $(grep -v '^ ' "$tmp/out" | tail -n 20)"
    tail -n 1 "$tmp/out"
done
finish
