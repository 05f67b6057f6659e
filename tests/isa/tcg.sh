#!/bin/bash
# tcg.sh [GUEST.S...]: no test: the bare-metal guests under QEMU's TCG (-cpu max) beside Verso's translated code, as a table: checks that hold,
# checks that fail, and how the run ended (1: the guest came to its end without a failure).
. "$(dirname "$0")/../guest/lib.sh"
cd "$(dirname "$0")" || exit 1
command -v qemu-system-i386 >/dev/null || skip "no qemu-system-i386"
[ $# -gt 0 ] || set -- *.S
checks() { # ok, failed
    printf '%s' "$(grep -ac '^ok' "$1") $(grep -ac '^FAIL' "$1")"
}
echo "| guest | Verso | TCG | TCG ended with |"
echo "|---|---|---|---|"
for source in "$@"; do
    name=$(basename "$source" .S)
    assemble_guest "$name.S" "$tmp/elf" || exit 1
    read -ra own < <(sed -n 's/^# run with: //p' "$name.S")
    timeout 60 "$VERSO" run --kernel "$tmp/elf" --no-stdin --no-cache "${own[@]}" </dev/null >"$tmp/verso" 2>/dev/null
    got=0
    { timeout 30 qemu-system-i386 -accel tcg -cpu max -m 128 -kernel "$tmp/elf" -display none -serial stdio -monitor none -no-reboot \
        -device isa-debug-exit,iobase=0xf4,iosize=4 </dev/null >"$tmp/tcg" 2>&1; } 2>/dev/null || got=$?
    read -r v vf < <(checks "$tmp/verso")
    read -r t tf < <(checks "$tmp/tcg")
    case $got in 1) end="" ;; 3) end="failures" ;; 124) end="no end" ;; *) end="status $got" ;; esac
    echo "| $name | $v ($vf) | $t ($tf) | $end |"
    all_v=$((${all_v:-0} + v)) all_vf=$((${all_vf:-0} + vf)) all_t=$((${all_t:-0} + t)) all_tf=$((${all_tf:-0} + tf))
done
echo "| total | $all_v ($all_vf) | $all_t ($all_tf) | |"
