#!/bin/bash
# verso run --profile and --perf-map: a guest that spends its time at two known places is found there.
. "$(dirname "$0")/../guest/lib.sh"
cat >"$tmp/guest.S" <<'E2'
        .globl _start, spin, spin_end, ports, ports_end
_start: jmp spin
        .balign 4
        .long 0x1BADB002, 0, -0x1BADB002
spin:   movl $COUNT, %ecx
1:      xorl %ecx, %eax
        imull $3, %eax, %eax
        decl %ecx
        jnz 1b
spin_end:
ports:  movl $COUNT / 150, %ecx
1:      inb $0x61, %al
        decl %ecx
        jnz 1b
ports_end:
        movb $0, %al
        outb %al, $0xF4
1:      jmp 1b
E2
build() { # COUNT
    as --32 --defsym COUNT="$1" -o "$tmp/guest.o" "$tmp/guest.S" &&
        ld -m elf_i386 --no-warn-rwx-segments -N -Ttext=0x100000 -e _start -o "$tmp/guest" "$tmp/guest.o" || fail "the guest does not assemble"
}
build 300000000
expect_status 1 "profile" timeout 60 "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --profile="$tmp/text" --perf-map="$tmp/map" \
    --stats=json --stats-to "$tmp/json"
at() { nm "$tmp/guest" | awk -v n="$1" '$3 == n { print "0x" $1 }'; }
python3 - "$tmp/json" "$tmp/map" "$(at spin)" "$(at spin_end)" "$(at ports)" "$(at ports_end)" <<'E2' || fail "the profile is wrong"
import json, sys
doc, map_file = json.load(open(sys.argv[1])), sys.argv[2]
spin, spin_end, ports, ports_end = (int(a, 16) for a in sys.argv[3:])
p, bad = doc["profile"], []
def check(what, ok):
    if not ok:
        bad.append(what)
by = p["by"]
check("shares do not add up", sum(by.values()) == p["samples"])
# A busy host lets ticks run together while it runs others: at least those of the time the process had the processor.
least, most = (doc[k] / 1e9 * p["hz"] for k in ("cpu_ns", "wall_ns"))
check(f"{p['samples']} samples where {least:.0f} to {most:.0f} were due", least * 0.3 < p["samples"] <= most * 1.1 + 2)
place = lambda lo, hi, what: sum(i.get(what, 0) if what else i["samples"] for i in p["instructions"] if lo <= i["address"] < hi)
check("translated code was not seen in the loop", place(spin, spin_end, "translated") > 0.9 * by["translated"] > 20)
check("the loop shows what it does not do", place(spin, spin_end, None) - place(spin, spin_end, "translated") < 0.1 * by["translated"] + 5)
check("the ports' loop was not seen", place(ports, ports_end, None) > 0.02 * p["samples"])
check("no devices", by["devices"] > 0 and place(ports, ports_end, "devices") >= 0.9 * by["devices"] - 3)
check("user code where there is none", not any(i["user"] for i in p["instructions"]))
check("pages do not add up", sum(i["samples"] for i in p["pages"]) == p["samples"] - by["idle"] - p["spots_lost"])
# The map: hex address, hex size, name; nothing overlaps, and the guest's entry has a name.
end, names = 0, set()
for line in open(map_file):
    start, size, name = line.split()
    start, size = int(start, 16), int(size, 16)
    check(f"overlap in the map: {line}", start >= end and size > 0)
    end = start + size
    names.add(name)
check(f"no name for the entry among {names}", "kernel:00100000" in names)
for b in bad:
    print("   ", b)
if bad:
    print("   ", json.dumps(p)[:1500])
sys.exit(bool(bad))
E2
grep -q '% *translated ' "$tmp/text" || fail "the text report shows no translated code: $(head -n 5 "$tmp/text")"
grep -qi 'kernel 0010' "$tmp/text" || fail "the text report shows no instruction"

build 2000000
expect_status 1 "profile of the emulator" timeout 60 "$VERSO" run --kernel "$tmp/guest" --emulate --no-cache --no-stdin --profile --stats=json --stats-to "$tmp/json"
grep -q '^profile  *[0-9]* samples' "$tmp/err" || fail "no report on standard error"
[ "$(json "$tmp/json" 'd["profile"]["by"]["translated"] == 0 and d["profile"]["by"]["emulator"] > 0')" = True ] || fail "emulator: $(json "$tmp/json" 'd["profile"]["by"]')"
expect_status 1 "without a profile" timeout 60 "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --stats=json --stats-to "$tmp/json"
[ "$(json "$tmp/json" '"profile" in d')" = False ] || fail "a profile nobody asked for"
expect_status 3 "a report that cannot be written, before the guest starts" timeout 60 "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --profile="$tmp/none/file"
grep -q "none/file" "$tmp/err" || fail "nothing said of a report that cannot be written"
expect_status 3 "a map that cannot be written" timeout 60 "$VERSO" run --kernel "$tmp/guest" --no-cache --no-stdin --perf-map="$tmp/none/file"
finish
