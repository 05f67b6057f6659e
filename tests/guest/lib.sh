# shellcheck shell=bash
# What the scripts over the built command share. Sourced; not a test.
#   VERSO         the command under test          VERSO_SOURCE  the source tree
#   VERSO_WORK    a folder for guests and scratch  VERSO_GUESTS  guests made before (else made here, once)
set -u
VERSO_SOURCE=${VERSO_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
VERSO=${VERSO:-$VERSO_SOURCE/build/tools/verso}
VERSO_WORK=${VERSO_WORK:-$VERSO_SOURCE/build/tests}
GUESTS=${VERSO_GUESTS:-$VERSO_WORK/guests}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failures=0

fail() {
    echo "FAIL: $*"
    failures=$((failures + 1))
}

skip() {
    echo "skipped: $*"
    exit 77
}

finish() {
    [ "$failures" = 0 ] && echo "ok"
    [ "$failures" = 0 ]
    exit
}

# expect_status WANTED WHAT COMMAND... : runs it, output in $tmp/out and $tmp/err.
expect_status() {
    local wanted=$1 what=$2 got=0
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || got=$?
    if [ "$got" != "$wanted" ]; then
        fail "$what: exit status $got, expected $wanted"
        tail -n 5 "$tmp/out" "$tmp/err" | sed 's/^/    /'
        return 1
    fi
}

# json FILE EXPRESSION : evaluates a Python expression on the document d.
json() {
    python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"
}

# assemble_guest SOURCE.S PROGRAM: a bare-metal guest, started at _start, from 1 MiB on. .include looks beside the source.
assemble_guest() {
    as --32 -I "$(dirname "$1")" -o "$2.o" "$1" && ld --no-warn-rwx-segments -m elf_i386 -N -Ttext=0x100000 -e _start -o "$2" "$2.o"
}

# Makes the micro guests once (several tests may ask at the same time); skips the test where that cannot be done.
need_guests() {
    mkdir -p "$GUESTS"
    (
        flock 9
        [ -s "$GUESTS/vmlinuz-686" ] && [ -s "$GUESTS/vmlinuz-686-pae" ] && [ -s "$GUESTS/busybox-initrd.gz" ] && exit 0
        "$VERSO_SOURCE/tools/mkguest.sh" "$GUESTS" >"$GUESTS/mkguest.log" 2>&1
    ) 9>"$GUESTS/.lock" || skip "the guests cannot be made here: $(tail -n 1 "$GUESTS/mkguest.log")"
}

need_installer() {
    mkdir -p "$GUESTS"
    (
        flock 9
        [ -s "$GUESTS/installer.iso" ] && exit 0
        "$VERSO_SOURCE/tools/mkiso.sh" "$GUESTS/installer.iso" >"$GUESTS/mkiso.log" 2>&1
    ) 9>"$GUESTS/.lock" || skip "the installer's ISO cannot be made here: $(tail -n 1 "$GUESTS/mkiso.log")"
}

# run_guest FLAVOUR OUT [verso run options] : boots the micro guest with its script to power-off.
run_guest() {
    local flavour=$1 out=$2
    shift 2
    timeout -k 10 "${VERSO_GUEST_TIMEOUT:-280}" "$VERSO" run --kernel "$GUESTS/vmlinuz-$flavour" \
        --initrd "$GUESTS/busybox-initrd.gz" --append "console=ttyS0,115200n8 ${VERSO_GUEST_APPEND:-}" --no-stdin "$@" \
        >"$out" 2>"$out.err" </dev/null
}

# The console as two boots of the same kernel must agree on it. Time stamps are taken off. Numbers are, in the lines that print a measurement
# of the host or the time of day, and only there: the TSC's rate, the clock, when scheduling clock and audit began. Left out is what the host's load
# decides: whether the PM timer kept pace with the PIT and so becomes a clock source, what the kernel thinks of its clocks
# then, and which of its steps took long. Lines are
# sorted, because those of the kernel's own threads (unpacking the initramfs, audit, keyboard) come where they will.
kernel_lines() {
    tr -d '\r' <"$1" | sed -nE 's/^\[ *[0-9]+\.[0-9]+\] //p' |
        sed -E -e '/^PM-Timer running at invalid rate|^clocksource: acpi_pm:|clocksource: (timekeeping watchdog|Marking|.*watchdog)|[Uu]nstable| took [0-9]+ usecs$/d' \
            -e '/^(tsc:|clocksource: tsc|Calibrating delay|rtc_cmos .*setting system clock|sched_clock: Marking|audit: type=)/s/(0x)?[0-9a-f]*[0-9][0-9a-f]*/N/g' -e 's|input/input[0-9]+|input/inputN|' | sort
}
# What user programs print: the script's own lines, in order.
script_lines() {
    tr -d '\r' <"$1" | grep -a '^T: '
}
