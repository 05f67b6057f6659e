#!/bin/bash
# kvm_unit_tests.sh [-t] DIR [NAME...]: runs the .flat files of kvm-unit-tests (i386), built elsewhere, that lie in DIR: on Verso without a cache, with
# the cache cold and warm, and beside it on QEMU's TCG if qemu-system-i386 is installed. Prints a table and, with reasons, where the two differ.
# Status 0: Verso's results are those of the table below, in all three ways. -t: leave TCG out.
#
# No part of the test command; the suite is neither contained nor built here.
. "$(dirname "${BASH_SOURCE[0]}")/guest/lib.sh"

# NAME|FILE|VERSO'S OPTIONS|TCG'S OPTIONS|COMMAND LINE|PASS|FAIL|SKIP|STATUS|TEXT IN THE OUTPUT|REASON
# TCG's options: "reboot" lets it go on after a reset.
# PASS, FAIL, SKIP: lines that begin so. STATUS: the guest's exit status (0 passed, 77 in the suite is "all skipped": value * 2 + 1 comes out).
# REASON: why the result is not plain success, or differs from TCG's.
table() {
    cat <<'END'
realmode|realmode||||127|0|0|1||
emulator|emulator||||85|0|1|1||TCG raises no #DB behind MOV SS and POP SS; it has no MOVBE, which the Atom has
eventinj|eventinj||||15|0|0|1||
setjmp|setjmp||||10|0|0|1||
memory|memory|--cpu atom-d510,+clflushopt,+clwb,+pcommit|-cpu max||7|0|0|1||
ioapic|ioapic||-cpu qemu64||19|0|0|1||
cmpxchg8b|cmpxchg8b||||1|0|0|1||
tsc|tsc|--cpu atom-d510,+rdtscp|-cpu max||3|0|0|1||
tsc_adjust|tsc_adjust||-cpu max||6|0|0|1||TCG has no IA32_TSC_ADJUST that follows the counter
taskswitch|taskswitch||||0|0|0|1|post fault|
taskswitch2|taskswitch2||||13|0|0|1||TCG takes a conforming code segment in a TSS for a fault and stops
init|init|--reset restart|reboot||0|0|0|1|testing init to BSP|QEMU resets the devices too, where the chipset resets the processor alone
sieve|sieve||||0|0|0|1|virtual:5761455 out of 100000000|
smap|smap|--cpu atom-d510,+smap|-cpu max||18|0|0|1||
umip|umip|--cpu atom-d510,+umip|-cpu qemu64,+umip||21|0|0|1||
rdpru|rdpru||-cpu max||1|0|0|1||
la57|la57||-cpu max||1|0|0|1||
smptest|smptest||||1|0|0|1||
dummy|dummy||||0|0|0|1|Dummy Hello World|
vmexit cpuid|vmexit|||cpuid|0|0|0|1|cpuid |
vmexit pmtimer|vmexit|||inl_from_pmtimer|0|0|0|1|inl_from_pmtimer |
vmexit cr0_wp|vmexit|||toggle_cr0_wp|0|0|0|1|toggle_cr0_wp |
vmexit cr4_pge|vmexit|||toggle_cr4_pge|0|0|0|1|toggle_cr4_pge |
pmu|pmu||-cpu max||1|0|1|1||the model has no performance counters; TCG tells of four it has not
apic|apic||-cpu max||1|0|0|127|apic existence|reads CR8 by the LOCK MOV CR0 of AMD's processors, which is undefined on Intel's; TCG fails an assertion before
msr|msr||-cpu max||4|0|0|127|MSR_IA32_SYSENTER_EIP|the model has no page attribute table (MSR 277h)
hypercall|hypercall||||1|1|0|3||there is no hypervisor interface: VMCALL is undefined
hpet_read_test|hpet_read_test||||0|1|1|3||the machine has no HPET
asyncpf|asyncpf||||0|0|1|77||no KVM interface
kvmclock_test|kvmclock_test||||0|0|1|77||no KVM interface
hyperv_connections|hyperv_connections||||0|0|1|77||no Hyper-V interface
hyperv_stimer|hyperv_stimer||||0|0|1|77||no Hyper-V interface
hyperv_synic|hyperv_synic||||0|0|1|77||no Hyper-V interface
tsx-ctrl|tsx-ctrl||-cpu max||0|0|1|77||the model has no TSX
END
}
# s3 is left out: the machine has no sleep state S3 (TCG fails it as well). asyncpf and what follows want hypervisors' interfaces.

tcg=1
[ "${1:-}" = -t ] && { tcg=0; shift; }
dir=${1:-}
[ -n "$dir" ] && [ -d "$dir" ] || { echo "usage: kvm_unit_tests.sh [-t] DIR [NAME...], DIR with built .flat files" >&2; exit 2; }
shift
command -v qemu-system-i386 >/dev/null || tcg=0
limit=${KUT_TIMEOUT:-300}

# Lines of the suite, without what measures time.
count() { # OUTPUT WORD
    grep -ac "^$2" "$1"
}
summary() { # OUTPUT STATUS
    echo "$(count "$1" PASS)/$(count "$1" FAIL)/$(count "$1" SKIP) $2"
}

run_verso() { # WAY FILE OPTIONS APPEND
    local options=() own=() got=0
    read -ra own <<<"$3"
    case $1 in
    off) options=(--no-cache) ;;
    *) options=(--cache "$tmp/$2.db") ;;
    esac
    timeout "$limit" "$VERSO" run --kernel "$dir/$2.flat" --append "$4" --device testdev --no-stdin "${own[@]}" "${options[@]}" </dev/null \
        >"$tmp/$1" 2>"$tmp/$1.err" || got=$?
    echo $got
}
run_tcg() { # FILE OPTIONS APPEND
    local own=() got=0
    read -ra own <<<"$2"
    if [ "${own[0]:-}" = reboot ]; then own=("${own[@]:1}"); else own+=(-no-reboot); fi
    timeout "$limit" qemu-system-i386 -accel tcg -m 512 -display none -monitor none -serial stdio -device pc-testdev \
        -device isa-debug-exit,iobase=0xf4,iosize=0x4 "${own[@]}" -kernel "$dir/$1.flat" -append "$3" </dev/null \
        >"$tmp/tcg" 2>"$tmp/tcg.err" || got=$?
    echo $got
}

printf '%-20s %-16s %-16s %-16s %s\n' "" "Verso" "" "" "TCG"
printf '%-20s %-16s %-16s %-16s %s\n' "test" "off" "cold" "warm" "(pass/fail/skip status)"
notes=$tmp/notes
: >"$notes"
ran=0
while IFS='|' read -r name file options tcg_options append pass fail skip status text reason <&3; do
    [ $# = 0 ] || [[ " $* " == *" $name "* ]] || [[ " $* " == *" $file "* ]] || continue
    [ -e "$dir/$file.flat" ] || { echo "$name: no $file.flat in $dir"; continue; }
    ran=$((ran + 1))
    wanted="$pass/$fail/$skip $status"
    row=()
    rm -f "$tmp/$file.db"
    for way in off cold warm; do
        got=$(run_verso $way "$file" "$options" "$append")
        result=$(summary "$tmp/$way" "$got")
        row+=("$result")
        if [ "$result" != "$wanted" ]; then
            fail "$name, cache $way: $result, expected $wanted"
            { grep -a '^FAIL' "$tmp/$way"; tail -n 2 "$tmp/$way.err"; } | head -n 6 | sed 's/^/    /'
        fi
        [ -z "$text" ] || grep -aqF "$text" "$tmp/$way" || fail "$name, cache $way: \"$text\" is missing"
        cmp -s <(grep -aE '^(PASS|FAIL|SKIP)' "$tmp/off") <(grep -aE '^(PASS|FAIL|SKIP)' "$tmp/$way") || fail "$name: other checks with the cache $way"
    done
    # A test of resets: no check of its own says that it went right, but complaints say that it did not.
    [ "$file" != init ] || ! grep -a '^.*Uh, ' "$tmp/off" || fail "init: complaints"
    beside=-
    if [ $tcg = 1 ]; then
        beside=$(summary "$tmp/tcg" "$(run_tcg "$file" "$tcg_options" "$append")")
        beside=$(summary "$tmp/tcg" "${beside##* }")
        [ "$beside" = "${row[0]}" ] || echo "  $name: Verso ${row[0]}, TCG $beside: ${reason:-NO REASON IS KNOWN}" >>"$notes"
    fi
    printf '%-20s %-16s %-16s %-16s %s\n' "$name" "${row[@]}" "$beside"
    [ "$fail/$skip $status" = "0/0 1" ] || [ $tcg = 1 ] || echo "  $name: $reason" >>"$notes"
done 3< <(table)
[ $ran -gt 0 ] || { echo "nothing was run" >&2; exit 2; }
if [ -s "$notes" ]; then
    echo
    [ $tcg = 1 ] && echo "differences from TCG:" || echo "no plain success:"
    cat "$notes"
fi
finish
