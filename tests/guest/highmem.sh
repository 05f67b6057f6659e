#!/bin/bash
# Debian's kernels with more memory than a 32-bit kernel maps for good: users' pages and page tables are reached through temporary mappings. The
# script runs to its end, in lockstep too, and these mappings cost few host faults.
. "$(dirname "$0")/lib.sh"
need_guests
count() {
    json "$tmp/$flavour.json" "d['counters']['$1']"
}
for flavour in 686 686-pae; do
    run_guest $flavour "$tmp/$flavour" --no-cache -m 1200M --stats=json --stats-to "$tmp/$flavour.json" || fail "$flavour: exit status $?"
    grep -aq '^T: end, 0 failed' "$tmp/$flavour" || fail "$flavour: the script did not end well: $(tail -n 3 "$tmp/$flavour")"
    grep -aq 'HIGHMEM available' "$tmp/$flavour" || fail "$flavour: no memory above the direct mapping"
    run_guest $flavour "$tmp/$flavour-lockstep" --no-cache -m 1200M --lockstep=every:200,for:100000 || fail "$flavour: exit status $? in lockstep"
    grep -aq '^T: end, 0 failed' "$tmp/$flavour-lockstep" || fail "$flavour: the script did not end well in lockstep"
    diff <(script_lines "$tmp/$flavour") <(script_lines "$tmp/$flavour-lockstep") || fail "$flavour: the script's output differs in lockstep"
    grep -qw bmi2 /proc/cpuinfo || continue # without it there is no form that looks for temporary mappings
    echo "$flavour: $(count invlpg) invalidations, $(count fault_emulated) host faults emulated, $(count emulated_volatile) accesses by light exits," \
        "$(count sites_volatile) instructions"
    [ "$(count emulated_volatile)" -gt "$(count invlpg)" ] || fail "$flavour: few accesses to temporary mappings by light exits"
    [ "$(($(count fault_emulated) - $(count fault_guest)))" -lt $(($(count invlpg) / 8)) ] || fail "$flavour: many accesses to temporary mappings by host faults"
done
finish
