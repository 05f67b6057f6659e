#!/bin/bash
# While a guest runs, every thread of the process is confined (SECCOMP_MODE_FILTER), with a cache and without; --no-sandbox leaves it as it is.
. "$(dirname "$0")/../guest/lib.sh"

cat >"$tmp/loop.S" <<'END'
        .text
        .globl _start
_start: jmp _start
END
assemble_guest "$tmp/loop.S" "$tmp/loop" ||
    skip "no assembler for 32-bit code"

# modes PID: the modes of its threads, each once.
modes() { sed -n 's/^Seccomp:[[:space:]]*//p' /proc/"$1"/task/*/status 2>/dev/null | sort -u | tr '\n' ' '; }

# Has the command taken charge of SIGTERM (signal 15)? Until then it would die of it.
listens() { (($((16#$(sed -n 's/^SigCgt:[[:space:]]*//p' /proc/"$1"/status 2>/dev/null || echo 0))) >> 14 & 1)); }

# check WHAT MODE OPTIONS...: a guest that runs for ever, asked to end.
check() {
    local what=$1 want=$2 got= status=0
    shift 2
    mkfifo "$tmp/in.$what"
    "$VERSO" run --kernel "$tmp/loop" "$@" <"$tmp/in.$what" >"$tmp/out" 2>"$tmp/err" &
    local pid=$!
    exec 8>"$tmp/in.$what"
    for _ in $(seq 300); do
        got=$(modes "$pid")
        [ "$got" = "$want " ] && listens "$pid" && break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    grep -q "no filter of system calls" "$tmp/err" && skip "this kernel has no such filters"
    [ "$got" = "$want " ] || fail "$what: the threads' modes are \"$got\", expected \"$want\": $(head -n 1 "$tmp/err")"
    kill -TERM "$pid"
    wait "$pid" || status=$?
    exec 8>&-
    [ "$status" = 12 ] || fail "$what: status $status: $(head -n 1 "$tmp/err")"
}

check confined 2 --no-cache
check cache 2 --cache "$tmp/cache.db" --stats-to "$tmp/stats"
[ -s "$tmp/stats" ] || fail "no statistics from a confined process"
check profile 2 --no-cache --profile="$tmp/profile"
[ -s "$tmp/profile" ] || fail "no profile from a confined process"
check free 0 --no-cache --no-sandbox
finish
