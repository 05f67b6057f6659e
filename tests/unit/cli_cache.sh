#!/bin/bash
# Pre-warm of a small ELF program, and every action of `verso cache` on the result.
. "$(dirname "$0")/../guest/lib.sh"
v=$VERSO
cache=$tmp/cache.db
command -v as >/dev/null && command -v ld >/dev/null || skip "no assembler"
cat >"$tmp/a.S" <<'S'
.globl _start
.type _start, @function
_start:
    pushf
    popf
    mov %ds, %eax
    sgdt -8(%esp)
    call f
    mov $1, %eax
    int $0x80
.globl f
.type f, @function
f:  push %ebx
    mov 8(%esp,%ecx,4), %ebx
1:  dec %ebx
    jnz 1b
    lock incl counter
    pop %ebx
    ret
    .space 5000, 0x90
.globl g
.type g, @function
g:  rep movsb
    jmp *%eax
.bss
counter: .long 0
S
as --32 -o "$tmp/a.o" "$tmp/a.S" && ld -m elf_i386 -o "$tmp/prog" "$tmp/a.o" || skip "no 32-bit assembler or linker"

expect_status 0 "prewarm" "$v" prewarm "$tmp/prog" --cache "$cache" --json --validate -j 2
tail -n 1 "$tmp/out" >"$tmp/s.json"
[ "$(json "$tmp/s.json" 'd["records_added"]')" = 2 ] || fail "two pages were expected: $(cat "$tmp/s.json")"
[ "$(json "$tmp/s.json" 'd["sensitive"]["pushf"], d["sensitive"]["sgdt"], d["sensitive"]["int"]')" = "(1, 1, 1)" ] ||
    fail "sensitive instructions miscounted"
expect_status 0 "prewarm again" "$v" prewarm "$tmp/prog" --cache "$cache" --json
[ "$(tail -n 1 "$tmp/out" | json /dev/stdin 'd["records_added"], d["images_known"]')" = "(0, 1)" ] || fail "the second run did something"
expect_status 0 "prewarm as text" "$v" prewarm "$tmp/prog" --cache "$tmp/other.db" -j 1
grep -q '^records added *2' "$tmp/out" || fail "text summary"
grep -q 'pushf' "$tmp/out" || fail "text summary lists no sensitive classes"

expect_status 0 "ls" "$v" cache ls --cache "$cache"
grep -q 'prog$' "$tmp/out" || fail "ls does not name the image"
expect_status 0 "ls --json" "$v" cache ls --json --cache "$cache"
[ "$(json "$tmp/out" 'len(d), d[0]["name"], d[0]["pages"], d[0]["kind"]')" = "(1, 'prog', 2, 'program')" ] || fail "ls --json: $(cat "$tmp/out")"
expect_status 0 "ls IMAGE" "$v" cache ls prog --json --cache "$cache"
vaddr=$(json "$tmp/out" '"%x" % d[0]["vaddr"]')
hash=$(json "$tmp/out" 'd[0]["hash"]')
expect_status 5 "ls of an unknown image" "$v" cache ls nothing --cache "$cache"

expect_status 0 "show IMAGE:VADDR" "$v" cache show "prog:$vaddr" --cache "$cache"
grep -qE '^ *! .*pushf' "$tmp/out" || fail "show does not mark PUSHF"
grep -q 'attribute map' "$tmp/out" || fail "show has no attribute map"
grep -q 'NO RECORD' "$tmp/out" && fail "host code without an unwind record"
grep -qE '\| [0-9a-f]{5} ' "$tmp/out" || fail "show has no host code"
expect_status 0 "show HASH" "$v" cache show "${hash:0:12}" --cache "$cache"
expect_status 0 "show --json" "$v" cache show "$hash" --json --cache "$cache"
[ "$(json "$tmp/out" 'len(d["attribute_map"]), len(d["instructions"]) > 10, any(i["sensitive"] == "pushf" for i in d["instructions"])')" = "(4096, True, True)" ] ||
    fail "show --json"
expect_status 5 "show of an unknown record" "$v" cache show 0123456789abcdef --cache "$cache"
expect_status 2 "show of nonsense" "$v" cache show zzz --cache "$cache"

expect_status 0 "stats" "$v" cache stats --cache "$cache"
expect_status 0 "stats --json" "$v" cache stats --json --cache "$cache"
[ "$(json "$tmp/out" 'd["records"], d["images"], d["usable_records"]')" = "(2, 1, 2)" ] || fail "stats --json: $(cat "$tmp/out")"
expect_status 0 "verify" "$v" cache verify --json --cache "$cache"
[ "$(json "$tmp/out" 'd["equal"]')" = 2 ] || fail "verify --json"
[ "$(stat -c %a "$cache")" = 600 ] || fail "the cache file has mode $(stat -c %a "$cache")"

# The default place, made with mode 0700
mkdir "$tmp/xdg"
expect_status 0 "default cache" env XDG_CACHE_HOME="$tmp/xdg" "$v" prewarm "$tmp/prog"
[ "$(stat -c %a "$tmp/xdg/verso")" = 700 ] || fail "the default folder has mode $(stat -c %a "$tmp/xdg/verso")"

expect_status 0 "gc" "$v" cache gc --cache "$cache"
expect_status 0 "rm of a record" "$v" cache rm "$hash" --cache "$cache"
expect_status 0 "stats after rm" "$v" cache stats --json --cache "$cache"
[ "$(json "$tmp/out" 'd["records"]')" = 1 ] || fail "rm of a record left $(json "$tmp/out" 'd["records"]')"
expect_status 0 "prewarm repairs" "$v" prewarm "$tmp/prog" --cache "$cache" --json
[ "$(tail -n 1 "$tmp/out" | json /dev/stdin 'd["records_added"]')" = 1 ] || fail "prewarm did not add the removed page: $(tail -n 1 "$tmp/out")"
expect_status 0 "rm of an image" "$v" cache rm prog --cache "$cache"
expect_status 0 "ls when empty" "$v" cache ls --json --cache "$cache"
[ "$(json "$tmp/out" 'd')" = "[]" ] || fail "rm of the image left $(cat "$tmp/out")"
expect_status 5 "rm of what is not there" "$v" cache rm prog --cache "$cache"
finish
