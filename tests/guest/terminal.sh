#!/bin/bash
# The user's terminal is put back on every way out of `verso run`: escape key, SIGTERM, SIGINT, and SIGKILL; the exit status
# says which; Ctrl-A h shows help and the guest does not see it.
. "$(dirname "$0")/lib.sh"
need_guests
python3 - "$VERSO" "$GUESTS" <<'P' || fail "see above"
import os, pty, select, signal, sys, termios, time
verso, guests = sys.argv[1:]
failures = 0

def attributes(fd):
    a = termios.tcgetattr(fd)
    return a[:6] + [[bytes(c) if isinstance(c, bytes) else c for c in a[6]]]

def read_until(fd, want, seconds):
    got, end = b"", time.time() + seconds
    while want not in got and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                got += os.read(fd, 65536)
            except OSError:
                break
    return got

def case(name, leave, expected):
    global failures
    master, slave = pty.openpty()
    before = attributes(slave)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for i in range(3):
            os.dup2(slave, i)
        import fcntl
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.execv(verso, [verso, "run", "--kernel", guests + "/vmlinuz-686", "--initrd", guests + "/busybox-initrd.gz",
                         "--append", "console=ttyS0,115200n8 script=shell", "--no-cache"])
    out = read_until(master, b"Linux version", 30)
    ok = b"Linux version" in out
    raw = attributes(slave) != before
    leave(pid, master)
    end, status = time.time() + 20, None
    while time.time() < end and status is None:
        done, ws = os.waitpid(pid, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(ws)
        elif select.select([master], [], [], 0.1)[0]:
            os.read(master, 65536)
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for _ in range(50):  # after SIGKILL another process does it, a moment later
        if attributes(slave) == before:
            break
        time.sleep(0.05)
    restored = attributes(slave) == before
    print(f"{name}: booted {ok}, raw {raw}, status {status}, restored {restored}")
    if not (ok and raw and restored and status == expected):
        failures += 1
    os.close(master)
    os.close(slave)

def keys(text):
    return lambda pid, fd: os.write(fd, text)

def send(sig):
    return lambda pid, fd: os.kill(pid, sig)

def help_then_quit(pid, fd):
    global failures
    os.write(fd, b"\x01h")
    if b"quits" not in read_until(fd, b"quits", 10):
        print("Ctrl-A h shows no help")
        failures += 1
    os.write(fd, b"\x01x")

case("Ctrl-A x", keys(b"\x01x"), 12)
case("Ctrl-A h, Ctrl-A x", help_then_quit, 12)
case("SIGTERM", send(signal.SIGTERM), 12)
case("SIGINT", send(signal.SIGINT), 12)
case("SIGKILL", send(signal.SIGKILL), -9)
sys.exit(failures)
P
finish
