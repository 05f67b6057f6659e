#!/bin/bash
# Time to the installer's language screen, back to back: verso run with a warm cache, and QEMU's TCG of this distribution with
# the same kernel, initrd, command line, RAM and one vCPU. Prints each round, both medians and their ratio; asserts nothing.
# Usage: tools/bench/boot.sh [ROUNDS] (3). Environment: VERSO_BUILD (build/), BENCH_RAM (512).
set -eu
cd "$(dirname "$0")/../.."
rounds=${1:-3}
build=${VERSO_BUILD:-$PWD/build}
ram=${BENCH_RAM:-512}
verso=$build/tools/verso
iso=$build/installer.iso
work=$build/bench
pattern='Select a language|Choose the language'

tools/apt.sh build guest bench
[ -x "$verso" ] || { cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null && cmake --build "$build" --target verso; }
[ -s "$iso" ] || tools/mkiso.sh "$iso"
mkdir -p "$work"

# The ISO's own default entry, taken apart for QEMU, which would otherwise spend its time in firmware and boot loader.
extract() {
    xorriso -osirrox on -indev "$iso" -extract "$1" "$2" 2>/dev/null
    chmod u+w "$2"
}
conf=$work/isolinux.cfg
rm -f "$work"/{isolinux.cfg,kernel,initrd}
for c in /isolinux/isolinux.cfg /isolinux.cfg /boot/isolinux/isolinux.cfg; do
    extract "$c" "$conf" && break
done
kernel=$(awk 'tolower($1) == "kernel" || tolower($1) == "linux" { print $2; exit }' "$conf")
append=$(awk 'tolower($1) == "append" { $1 = ""; print substr($0, 2); exit }' "$conf")
initrd=$(awk 'tolower($1) == "initrd" { print $2; exit }' "$conf")
[ -n "$initrd" ] || initrd=$(printf '%s\n' "$append" | tr ' ' '\n' | sed -n 's/^initrd=//p')
append=$(printf '%s\n' "$append" | sed 's/ *initrd=[^ ]*//')
case $kernel in /*) ;; *) kernel=/isolinux/$kernel ;; esac
case $initrd in /*) ;; *) initrd=/isolinux/$initrd ;; esac
extract "$kernel" "$work/kernel"
extract "$initrd" "$work/initrd"

timed() { # prints the seconds
    UNTIL_QUIET=1 UNTIL_TIME=$work/time tools/until.exp "$pattern" 900 '\001x' "$@" >/dev/null && cat "$work/time"
}
run_verso() {
    timed "$verso" run --kernel "$work/kernel" --initrd "$work/initrd" --append "$append" -m "$ram" --cache "$work/cache.db"
}
run_tcg() {
    timed qemu-system-i386 -accel tcg -m "$ram" -smp 1 -nographic -no-reboot -kernel "$work/kernel" -initrd "$work/initrd" -append "$append"
}
median() {
    printf '%s\n' "$@" | sort -n | awk '{ a[NR] = $1 } END { print NR % 2 ? a[(NR + 1) / 2] : (a[NR / 2] + a[NR / 2 + 1]) / 2 }'
}

rm -f "$work"/cache.db*
"$verso" prewarm "$work/kernel" --initrd "$work/initrd" --cache "$work/cache.db" >"$work/prewarm.txt"
echo "command line: $append"
echo "after pre-warm, first boot: $(run_verso) s"
v=() t=()
for ((i = 1; i <= rounds; i++)); do
    v+=("$(run_verso)")
    t+=("$(run_tcg)")
    echo "round $i: verso ${v[-1]} s, TCG ${t[-1]} s"
done
mv=$(median "${v[@]}") mt=$(median "${t[@]}")
echo "median: verso $mv s, TCG $mt s, ratio $(awk -v a="$mv" -v b="$mt" 'BEGIN { printf "%.2f", a / b }') of TCG's time"
