#!/bin/bash
# The scanner against objdump over everything that gas' i386 test suite assembles, read as 32-bit and as 16-bit code: lengths and classes
# agree, and what the CPU model lacks is refused. listing_differences.def lists the rest, with reasons; all of it must occur.
. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/suite.inc"
need_suite gas
cd "$suite_dir" || exit 1
for bits in 32 16; do
    dump "$bits" ./*.o >"$tmp/gas-$bits" || fail "objdump failed on $suite_dir"
done
echo "$(find . -name '*.o' | wc -l) object files of $(find . -name '*.o' | sed 's/.*\/[0-9]*-//' | sort -u | wc -l) sources"
"$LISTING" compare --all 32 "$tmp/gas-32" 16 "$tmp/gas-16" || fail "see above"
finish
