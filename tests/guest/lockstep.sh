#!/bin/bash
# lockstep.sh [686|686-pae|installer]...: stretches of instructions, spread over the whole boot to the power-off of the script or to the
# language screen, run translated and emulated: no difference, and the guest shows what it shows without lockstep.
# LOCKSTEP=full: at least 500 stretches of a million instructions each, instead of two dozen of 100,000. LOCKSTEP_CACHE=1: with a cache, cold and
# warm, as well.
. "$(dirname "$0")/lib.sh"
if [ "${LOCKSTEP:-}" = full ]; then
    every=2 count=1000000 least=500 limit=3600
else
    every=40 count=100000 least=24 limit=280
fi
modes=off
[ -z "${LOCKSTEP_CACHE:-}" ] || modes="off cold warm"

# checked NAME STATUS EXPECTED : looks at $tmp/NAME.json and $tmp/NAME.err of a run in lockstep.
checked() {
    local stretches
    [ "$2" = "$3" ] || { # 13 is a difference; the report is long
        fail "$1: exit status $2 instead of $3"
        head -n 80 "$tmp/$1.err"
        return 1
    }
    stretches=$(json "$tmp/$1.json" 'd["counters"]["lockstep_stretches"]')
    json "$tmp/$1.json" '"'"$1"': %d stretches, %d instructions compared, %d emulated alone: %s" % (d["counters"]["lockstep_stretches"],
        d["counters"]["lockstep_insns"], d["counters"]["lockstep_alone"],
        ", ".join("%s %d" % (k, sum(v.values())) for k, v in d["lockstep"]["alone"].items()))'
    [ "$stretches" -ge "$least" ] || fail "$1: $stretches stretches, expected at least $least"
}

script_guest() {
    local flavour=$1 mode
    run_guest "$flavour" "$tmp/plain" --no-cache || fail "$flavour: exit status $? without lockstep"
    local which=every:$every,for:$count
    for mode in $modes; do
        local name=$flavour-$mode options=(--cache "$tmp/$flavour.db")
        [ $mode != off ] || options=(--no-cache)
        VERSO_GUEST_TIMEOUT=$limit run_guest "$flavour" "$tmp/$name" "${options[@]}" --lockstep=$which --stats=json \
            --stats-to "$tmp/$name.json"
        checked "$name" $? 0 || return
        diff <(script_lines "$tmp/plain") <(script_lines "$tmp/$name") || fail "$name: the script's output differs"
        diff <(kernel_lines "$tmp/plain") <(kernel_lines "$tmp/$name") || fail "$name: kernel messages differ"
    done
}

installer() {
    local mode which=every:$((every * 3)),for:$count # its boot takes longer
    need_installer
    command -v expect >/dev/null || skip "expect is missing"
    for mode in $modes; do
        local name=installer-$mode options=(--cache "$tmp/installer.db") status
        [ $mode != off ] || options=(--no-cache)
        UNTIL_QUIET=1 "$VERSO_SOURCE/tools/until.exp" 'Select a language|Choose the language' $limit '\001x' \
            "$VERSO" run "$GUESTS/installer.iso" "${options[@]}" --lockstep=$which --stats=json --stats-to "$tmp/$name.json" >"$tmp/$name.err" 2>&1
        status=$?
        checked "$name" $status 0 || return
        [ "$(json "$tmp/$name.json" 'd["end"]')" = quit ] || fail "$name: ended by $(json "$tmp/$name.json" 'd["end"]')"
    done
}

need_guests
[ $# -gt 0 ] || set -- 686 686-pae installer
for guest in "$@"; do
    case $guest in
    installer) installer ;;
    *) script_guest "$guest" ;;
    esac
done
finish
