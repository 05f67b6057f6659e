#!/bin/bash
# verso run --gdb: a whole session by a small client of the protocol (gdb_session.py), translated, emulated and in lockstep; one by gdb
# itself, where it is installed; addresses that make no sense.
. "$(dirname "$0")/../guest/lib.sh"
here=$(dirname "$0")
sed -e '/^ *# /d' "$here/gdb_guest.inc" >"$tmp/guest.S"
assemble_guest "$tmp/guest.S" "$tmp/guest" || fail "the guest does not assemble"
for way in "" --emulate --lockstep; do
    # shellcheck disable=SC2086 # none or one
    VERSO=$VERSO timeout 100 python3 "$here/gdb_session.py" "$tmp/guest" "$tmp" $way || fail "session with ${way:-translated code}"
done

# The protocol's own service
for where in frobnicate tcp: tcp:host tcp:127.0.0.1:x unix: 99999999; do
    expect_status 2 "--gdb=$where" "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --gdb="$where" || [ $? = 1 ]
done 2>/dev/null
expect_status 3 "a socket that cannot be made" "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --gdb=unix:"$tmp/none/s"
touch "$tmp/file"
expect_status 3 "a file in the way" "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --gdb=unix:"$tmp/file"
[ -e "$tmp/file" ] || fail "the file in the way was removed"

if ! command -v gdb >/dev/null; then
    echo "no gdb here: its own session is left out"
    finish
fi
"$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --gdb=0 2>"$tmp/err" </dev/null &
verso=$!
for _ in $(seq 100); do
    port=$(sed -n 's/.*target remote 127.0.0.1://p' "$tmp/err")
    [ -n "$port" ] && break
    sleep 0.1
done
cat >"$tmp/script" <<E2
set pagination off
set confirm off
set tcp connect-timeout 20
target remote 127.0.0.1:$port
set var *(int *)&go = 1
set var *((int *)&go + 1) = 1
break f
continue
backtrace 2
info registers eip ecx
stepi
stepi
x/i \$pc
continue
delete
tbreak *fpu_done
continue
print \$st0
print \$xmm1.uint128
hbreak *0x40000000
continue
print \$cr0
print/x \$cs_limit
delete
watch *(int *)&watched
continue
print/x *(int *)&watched
delete
rwatch *(int *)&watched
continue
delete
maintenance packet Qqemu.PhyMemMode:1
monitor phys
maintenance packet Qqemu.PhyMemMode:0
monitor info
break *code16_far
continue
monitor translate 0x100000
delete
continue
E2
timeout 60 gdb -nx -batch -x "$tmp/script" "$tmp/guest" >"$tmp/out" 2>&1 </dev/null
got=0
wait $verso || got=$?
[ $got = 11 ] || fail "gdb's session: status $got: $(tail -n 3 "$tmp/out")"
says() {
    grep -qE -- "$1" "$tmp/out" || fail "gdb does not say \"$1\""
}
says '^Breakpoint 1, 0x[0-9a-f]+ in f \(\)'
says '^#0  0x[0-9a-f]+ in f \(\)'
says '^#1  0x[0-9a-f]+ in call_f \(\)'
says '^ecx +0x3 '
says '=> 0x[0-9a-f]+ <f_end>:'
says '= 3.14159'
says '^Hardware watchpoint 4: '
says '^New value = 286331153'
says '= 0x11111111'
says '^Breakpoint 3, 0x40000000'
says '= \[ PE .*PG \]'
says '= 0xffffffff'
says 'Hardware read watchpoint 5'
says 'memory addresses are physical'
says 'protected mode, 32-bit code'
says '^Program received signal SIGTRAP'
says 'is at physical 100000'
says 'exited with code 0?13\]'
[ "$failures" = 0 ] || sed 's/^/    /' "$tmp/out"
finish
