#!/bin/bash
# verso run --trace and verso trace: a guest that does one of each; what it does is known.
. "$(dirname "$0")/../guest/lib.sh"
cat >"$tmp/guest.S" <<'E2'
        .globl _start, again, called, called_ret, looped, handler, iret_at, bad, gate, far, farret, port, mmio, fault, triple
        .code32
_start: jmp 1f
        .balign 4
        .long 0x1BADB002, 0, -0x1BADB002
gdt:    .quad 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdtr:   .word 31
        .long gdt
idt:    .fill 64, 8, 0
idtr:   .word 511
        .long idt
        .macro GATE vec, to
        movl $\to, %eax
        movw %ax, idt + \vec * 8
        movw $0x10, idt + \vec * 8 + 2
        movw $0x8E00, idt + \vec * 8 + 4
        shrl $16, %eax
        movw %ax, idt + \vec * 8 + 6
        .endm
1:      movl $0x180000, %esp
        lgdt gdtr
        lidt idtr
        GATE 6, handler
        GATE 48, handler
        movl $3, %ecx
again:  call called
looped: loop again
bad:    ud2
gate:   int $48
far:    lcall $0x10, $farret
port:   inb $0x61, %al
mmio:   movl 0xFEE00020, %eax
        movl $0x200000, %eax
        movl %eax, %cr3
        invlpg 0x1000
        movl $0x400000, %edi            # code made, run and written
        movb $0xC3, (%edi)
        call *%edi
        movb $0xC3, (%edi)
        call *%edi
        .ifdef HANG
        movw $0x3F8, %dx
        movb $'R', %al
        outb %al, %dx
        movb $'\n', %al
        outb %al, %dx
        cli
        hlt
        .endif
        .ifdef TRIPLE
        lidt nothing
triple: ud2
        .endif
        movb $5, %al
        outb %al, $0xF4
1:      jmp 1b
called: nop
called_ret: ret
farret: lret
handler: cmpl $bad, (%esp)
        jne iret_at
        addl $2, (%esp)
iret_at: iret
nothing: .quad 0
E2
build() {
    as --32 "$@" -o "$tmp/guest.o" "$tmp/guest.S" &&
        ld -m elf_i386 --no-warn-rwx-segments -N -Ttext=0x100000 -e _start -o "$tmp/guest" "$tmp/guest.o" || fail "the guest does not assemble"
}
at() { nm "$tmp/guest" | awk -v n="$1" '$3 == n { print $1 }'; }
trace() { # STATUS OPTIONS...
    local status=$1
    shift
    expect_status "$status" "run $*" timeout 60 "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin "$@"
}
lines() { # FILE COUNT PATTERN
    local n
    n=$(grep -cE -- "$3" "$1")
    [ "$n" = "$2" ] || { fail "$1: $n lines like \"$3\", expected $2"; head -n 60 "$1" | sed 's/^/    /'; }
}
build

trace 11 --trace "$tmp/t" --trace-events all
lines "$tmp/t" 3 "^call eip=0010:$(at again) p32/0 to=$(at called)$"
lines "$tmp/t" 3 "^ret eip=0010:$(at called_ret) p32/0 to=$(at looped)$"
lines "$tmp/t" 2 "^jump eip=0010:$(at looped) p32/0 to=$(at again)$"
lines "$tmp/t" 2 "^jump eip=0010:$(at looped) " # the third time it is not taken
lines "$tmp/t" 1 "^exception eip=0010:$(at bad) p32/0 vector=6 error=none"
lines "$tmp/t" 1 "^enter eip=0010:$(at bad) p32/0 to=$(at handler) cs=10 then=p32/0 vector=6$"
lines "$tmp/t" 1 "^iret eip=0010:$(at iret_at) p32/0 to=$(at gate) cs=10 then=p32/0$"
lines "$tmp/t" 1 "^int eip=0010:$(at gate) p32/0 to=$(at handler) cs=10 then=p32/0$"
lines "$tmp/t" 1 "^iret eip=0010:$(at iret_at) p32/0 to=$(at far) "
lines "$tmp/t" 1 "^farcall eip=0010:$(at far) p32/0 to=$(at farret) cs=10 then=p32/0$"
lines "$tmp/t" 1 "^farret eip=0010:$(at farret) p32/0 to=$(at port) cs=10 "
lines "$tmp/t" 1 "^in eip=0010:$(at port) p32/0 port=61 size=1 value="
lines "$tmp/t" 1 "^mmioread eip=0010:$(at mmio) p32/0 address=fee00020 size=4 value="
lines "$tmp/t" 1 "^out .* port=f4 size=1 value=5$"
lines "$tmp/t" 1 "^paging .* cr0=[0-9a-f]+ cr3=200000 "
lines "$tmp/t" 1 "^invlpg .* page=1000$"
# The same transfers in lockstep, where the emulator runs beside translated code.
grep -E '^(call|ret|jump|far|int|enter|iret)' "$tmp/t" >"$tmp/flow"
trace 11 --trace "$tmp/t2" --trace-events flow --lockstep
cmp -s "$tmp/flow" "$tmp/t2" || fail "lockstep reports other transfers: $(diff "$tmp/flow" "$tmp/t2" | head -n 5)"

# Page events need translated code.
trace 11 --trace "$tmp/t" --trace-events page
lines "$tmp/t" 1 "^scan eip=0010:$(at _start) p32/0 page=100000 instructions=[0-9]+ code="
lines "$tmp/t" 1 "^place eip=0010:$(at _start) p32/0 linear=100000 page=100000 "
lines "$tmp/t" 1 "^drop eip=.* page=400000$"
lines "$tmp/t" 2 "^scan .* page=400000 "
lines "$tmp/t" 1 "^fault eip=0010:$(at mmio) .* address=fee00020 write=0 mapped=1"
lines "$tmp/t" 3 "^miss .* why=off$"
timeout 60 "$VERSO" run --kernel "$tmp/guest" --cache "$tmp/db" --no-stdin --trace "$tmp/t" --trace-events page 2>/dev/null
lines "$tmp/t" 1 "^miss .* page=100000 why=absent$"
grep -q "^miss .* page=400000 why=absent$" "$tmp/t" || fail "the page made at run time was not looked up" # once or again after the drop
timeout 60 "$VERSO" run --kernel "$tmp/guest" --cache "$tmp/db" --no-stdin --trace "$tmp/t" --trace-events page 2>/dev/null
lines "$tmp/t" 1 "^hit .* page=100000 code="
grep -q "^hit .* page=400000 code=" "$tmp/t" || fail "the page made at run time was not stored"
lines "$tmp/t" 0 "^scan .* page=100000"

# Limits and filters
trace 11 --trace "$tmp/t" --trace-events call --trace-skip 1 --trace-count 1
lines "$tmp/t" 1 "^call eip=0010:$(at again)"
lines "$tmp/t" 1 "."
trace 11 --trace "$tmp/t" --trace-events flow --trace-eip "$(at called)+2"
lines "$tmp/t" 6 "."
lines "$tmp/t" 3 "^ret"
trace 11 --trace "$tmp/t" --trace-events flow --trace-cpl 3
lines "$tmp/t" 0 "."

# The ring: what came last, also at a triple fault.
build --defsym TRIPLE=1
trace 11 --trace "$tmp/t" --trace-ring 3 --trace-events exc,io
lines "$tmp/t" 3 "."
tail -n 1 "$tmp/t" | grep -q '^shutdown ' || fail "the last event is not the shutdown: $(tail -n 1 "$tmp/t")"
sed -n 1p "$tmp/t" | grep -qE "^exception eip=0010:$(at triple) p32/0 vector=d error=33 " || fail "before it: $(sed -n 1p "$tmp/t")"
trace 11 --trace-ring 1 --trace-events exc
grep -q '^shutdown ' "$tmp/err" || fail "a ring without a file does not go to standard error"

# And where the run hangs: what has been traced can be read, and an internal error of Verso's own writes the ring.
hang() { # OPTIONS... : a guest that says R and sleeps for good; $pid
    local asleep=0
    "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin "$@" </dev/null >"$tmp/con" 2>"$tmp/err" &
    pid=$!
    for _ in $(seq 300); do
        sleep 0.1
        grep -q R "$tmp/con" && [ "$(awk '{ print $3 }' /proc/$pid/stat)" = S ] && asleep=$((asleep + 1))
        [ $asleep = 5 ] && return
    done
    fail "the guest does not go to sleep"
}
end() {
    kill -9 $pid
    wait $pid 2>/dev/null
}
build --defsym HANG=1
hang --trace "$tmp/t" --trace-events exc,irq
lines "$tmp/t" 1 "^hlt "
end
hang --trace "$tmp/t" --trace-ring 2 --trace-events exc,irq
lines "$tmp/t" 0 "."
kill -SEGV $pid
sleep 0.5
end
lines "$tmp/t" 2 "."
lines "$tmp/t" 1 "^hlt "

# The compact form reads the same.
build
trace 11 --trace "$tmp/text" --trace-events all,-in
trace 11 --trace "$tmp/binary" --trace-events all,-in --trace-format binary
expect_status 0 "verso trace" "$VERSO" trace "$tmp/binary"
cmp -s "$tmp/out" "$tmp/text" || fail "text and compact form differ: $(diff "$tmp/out" "$tmp/text" | head -n 5)"
[ "$(stat -c %s "$tmp/binary")" -lt $(($(stat -c %s "$tmp/text") / 4)) ] || fail "the compact form is not compact"
expect_status 0 "--last" "$VERSO" trace "$tmp/binary" --last 2 --number
cut -d' ' -f2- "$tmp/out" | cmp -s - <(tail -n 2 "$tmp/text") || fail "--last 2: $(cat "$tmp/out")"
expect_status 0 "--events" "$VERSO" trace "$tmp/binary" --events ret --count 2
lines "$tmp/out" 2 "^ret"
expect_status 0 "--stats" "$VERSO" trace "$tmp/binary" --stats=json
[ "$(json "$tmp/out" 'd["kinds"]["call"] == 5 and d["called"][0]["times"] == 3 and d["events"] == d["modes"]["p32"]')" = True ] || fail "--stats: $(cat "$tmp/out")"
[ "$(json "$tmp/out" 'd["called"][0]["address"]')" = $((16#$(at called))) ] || fail "most called: $(cat "$tmp/out")"
expect_status 0 "--stats as text" "$VERSO" trace "$tmp/binary" --stats
grep -q 'most called' "$tmp/out" || fail "--stats: $(cat "$tmp/out")"

# Damage is told, by the status too; what is sound is shown.
head -c -10 "$tmp/binary" >"$tmp/cut"
expect_status 6 "a file cut off" "$VERSO" trace "$tmp/cut"
cmp -s "$tmp/out" "$tmp/text" || fail "the sound blocks of a file cut off are not shown"
head -c -24 "$tmp/binary" >"$tmp/cut"
expect_status 6 "a file without its end" "$VERSO" trace "$tmp/cut"
grep -q 'no end' "$tmp/err" || fail "nothing said of the missing end"
head -c 20 "$tmp/binary" >"$tmp/cut"
expect_status 6 "half a header" "$VERSO" trace "$tmp/cut"
: >"$tmp/empty"
expect_status 6 "an empty file" "$VERSO" trace "$tmp/empty"
expect_status 6 "a text trace" "$VERSO" trace "$tmp/text"
{ head -c 60 "$tmp/binary"; printf '\377\377\377\377'; tail -c +65 "$tmp/binary"; } >"$tmp/bad"
expect_status 6 "a damaged block" "$VERSO" trace "$tmp/bad"
grep -q 'damage' "$tmp/err" || fail "nothing said of the damage"

# Bad options and files
expect_status 3 "no such trace" "$VERSO" trace "$tmp/none"
expect_status 2 "no file" "$VERSO" trace
expect_status 2 "unknown kind" "$VERSO" trace "$tmp/binary" --events nonsense
expect_status 2 "bad range" "$VERSO" trace "$tmp/binary" --eip 5-4
expect_status 2 "bad level" "$VERSO" trace "$tmp/binary" --cpl 4
expect_status 2 "bad form" "$VERSO" run --kernel "$tmp/guest" --trace "$tmp/t" --trace-format xml
expect_status 2 "bad range" "$VERSO" run --kernel "$tmp/guest" --trace "$tmp/t" --trace-eip x
expect_status 2 "too long a ring" "$VERSO" run --kernel "$tmp/guest" --trace "$tmp/t" --trace-ring 99999999999
expect_status 3 "a trace that cannot be opened" "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --trace "$tmp/none/t"
expect_status 0 "the list of events" "$VERSO" run --trace-events list
grep -q '^  invlpg ' "$tmp/out" || fail "the list has no invlpg"
if [ -c /dev/full ]; then
    trace 11 --trace /dev/full
    grep -q '/dev/full: No space left' "$tmp/err" || fail "nothing said of a trace that cannot be written: $(cat "$tmp/err")"
fi
finish
