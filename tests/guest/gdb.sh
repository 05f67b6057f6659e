#!/bin/bash
# gdb on a running Linux kernel: comes while it boots, stops at the page-fault handler, steps, watches the stack, goes; the kernel then
# boots on to its power-off, and the script's lines are those of an undisturbed boot.
. "$(dirname "$0")/lib.sh"
command -v gdb >/dev/null || skip "no gdb here"
need_guests
for flavour in 686 686-pae; do
    "$VERSO" run --kernel "$GUESTS/vmlinuz-$flavour" --initrd "$GUESTS/busybox-initrd.gz" --append "console=ttyS0,115200n8" \
        --no-stdin --no-cache --gdb=unix:"$tmp/socket" --gdb-run --stats=json --stats-to "$tmp/stats" >"$tmp/console" 2>"$tmp/err" </dev/null &
    verso=$!
    for _ in $(seq 600); do
        grep -aq '^T: ' "$tmp/console" && break
        kill -0 $verso 2>/dev/null || break
        sleep 0.1
    done
    grep -aq '^T: ' "$tmp/console" || fail "$flavour: the kernel does not get to its script: $(tail -n 2 "$tmp/console")"
    # Without symbols: the handler of vector 14 stands in the IDT. bt needs a program that gdb knows; x/i and registers do not.
    cat >"$tmp/script" <<'E2'
set pagination off
set confirm off
set architecture i386
target remote SOCKET
set $gate = $idtr_base + 14 * 8
set $handler = (*(unsigned *)$gate & 0xffff) | (*(unsigned *)($gate + 4) & 0xffff0000)
hbreak *$handler
continue
printf "AT %d %d\n", $pc == $handler, $cpl
x/2i $pc
set $from = *(unsigned *)($esp + 4)
printf "FRAME %d\n", (*(unsigned *)($esp + 8) & 0xfffc) != 0
stepi
stepi
printf "STEPPED %d\n", $pc != $handler
continue
printf "AGAIN %d\n", $pc == $handler
delete
set $sp = $esp
watch *(int *)($sp - 4)
continue
printf "PUSHED %d\n", $esp <= $sp
delete
x/4xw $cr3
maintenance packet Qqemu.PhyMemMode:1
x/4xw ($cr3 & ~4095)
maintenance packet Qqemu.PhyMemMode:0
monitor stats page_faults
printf "GO\n"
continue
E2
    sed -i "s|SOCKET|$tmp/socket|; /^x\/4xw \$cr3\$/d" "$tmp/script"
    timeout 280 gdb -nx -batch -x "$tmp/script" >"$tmp/out" 2>&1 </dev/null
    got=0
    wait $verso || got=$?
    [ $got = 0 ] || fail "$flavour: status $got: $(tail -n 3 "$tmp/err")"
    for line in 'AT 1 0' 'FRAME 1' 'STEPPED 1' 'AGAIN 1' 'PUSHED 1' GO; do
        grep -qx "$line" "$tmp/out" || fail "$flavour: no line \"$line\""
    done
    grep -q 'exited normally' "$tmp/out" || fail "$flavour: gdb is not told of the power-off"
    grep -q '^page_faults' "$tmp/out" || fail "$flavour: no counters"
    script_lines "$tmp/console" >"$tmp/lines"
    run_guest "$flavour" "$tmp/plain" --no-cache || fail "$flavour: the undisturbed boot: status $?"
    script_lines "$tmp/plain" | cmp -s - "$tmp/lines" || fail "$flavour: the script prints other lines: $(script_lines "$tmp/plain" | diff - "$tmp/lines" | head -n 5)"
    grep -aqE 'BUG|Oops|soft lockup|Call Trace|stall' "$tmp/console" && fail "$flavour: the kernel complains: $(grep -aE 'BUG|Oops|lockup|stall' "$tmp/console" | head -n 2)"
    [ "$failures" = 0 ] || sed 's/^/    /' "$tmp/out"
    echo "$flavour: $(json "$tmp/stats" 'd["counters"]["emulated"]') instructions emulated of a boot with a debugger"
done
finish
