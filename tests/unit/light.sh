#!/bin/bash
# Code on the way of a light exit (monitor/light.h) runs while the host's registers hold the guest's x87 and SSE
# state: its objects must not touch those registers, and call nothing beyond each other but what is listed here,
# each name called only after cpu_fx_save() or known to use general registers only.
set -u
build=$(dirname "${VERSO_WORK:?}")
commands=$build/compile_commands.json
[ -r "$commands" ] || { echo "no $commands" && exit 77; }
cd "$build" || exit 2

allowed='_GLOBAL_OFFSET_TABLE_
__stack_chk_fail
fprintf
__fprintf_chk
fputc
calloc
free
snprintf
__snprintf_chk
machine_flush_output
machine_guest_ns
machine_now_ns
signals_set_timer
stderr
window_reset_all
emu_fpu_prepare
emu_fpu_unhide
emu_pick_fpu
machine_prepare
code_drop_page
machine_trace
vm_apic_base_changed
vm_code_written
vm_mirror_page
vm_mirror_store
lockstep_guest_ns
window_map_volatile
window_paging_changed'

grep '"command"' "$commands" | grep -q -e ' -O[123s]' || { echo "not optimized: light exits are off" && exit 77; }
! grep '"command"' "$commands" | grep -q -e '-fsanitize=[^ ]*address' ||
    { echo "AddressSanitizer: light exits are off" && exit 77; }
mapfile -t objects < <(grep '"command"' "$commands" | grep -e '-mgeneral-regs-only' | sed 's/.* -o \([^ ]*\.o\) .*/\1/')
[ ${#objects[@]} -ge 10 ] || { echo "FAIL ${#objects[@]} light objects, expected at least 10" && exit 1; }

failed=0
unknown=$(nm -u "${objects[@]}" | awk '$1 == "U" { print $2 }' | sort -u |
    grep -vxF -f <(nm --defined-only "${objects[@]}" | awk 'NF == 3 { print $3 }'; echo "$allowed"))
if [ -n "$unknown" ]; then
    echo "FAIL called from light code, but not listed: $(echo $unknown)"
    failed=1
fi
for o in "${objects[@]}"; do
    # cpu_fx_save() itself is inline in them: FXSAVE, FNSTENV, FNINIT and LDMXCSR are its own.
    used=$(objdump -d --no-show-raw-insn "$o" | awk -F'\t' 'NF >= 2 { print $2 }' |
        grep -E '%[xyz]?mm[0-9]|%st|^(f[a-z0-9]+|emms)([[:space:]]|$)' | grep -vE '^(fxsave64|ldmxcsr|fnstenv|fninit)' | head -3)
    [ -z "$used" ] || { echo "FAIL $o uses x87/SSE registers:"$'\n'"$used"; failed=1; }
done
echo "${#objects[@]} light objects checked"
exit $failed
