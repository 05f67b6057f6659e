#!/bin/bash
# The start of each kernel's boot, every instruction translated and emulated: no difference.
# LOCKSTEP=N compares N instructions of each (5000000).
. "$(dirname "$0")/lib.sh"
need_guests
count=${LOCKSTEP:-5000000}
for flavour in 686 686-pae; do
    timeout 800 "$VERSO" run --kernel "$GUESTS/vmlinuz-$flavour" --initrd "$GUESTS/busybox-initrd.gz" --append console=ttyS0,115200n8 \
        --no-cache --no-stdin --lockstep="0,$count" --stats=json --stats-to "$tmp/stats.json" >"$tmp/out" 2>"$tmp/err" </dev/null
    status=$?
    # 12: stopped at the count. 13 would be a difference.
    [ $status = 12 ] || fail "$flavour: exit status $status: $(grep -a lockstep "$tmp/err" | head -n 3)"
    compared=$(json "$tmp/stats.json" 'd["counters"]["lockstep_insns"]')
    [ "${compared:-0}" -ge "$count" ] || fail "$flavour: $compared instructions compared, not $count"
    echo "$flavour: $compared instructions compared"
done
finish
