"""What a debugger does to a guest: gdb_session.py ELF TMP [verso run options]. Prints what is wrong; status 1 then."""
import os
import re
import signal
import struct
import sys
import time

from gdb_client import Client, Failed, Guest

elf, tmp, options = sys.argv[1], sys.argv[2], sys.argv[3:]
problems = 0
TF, IF = 1 << 8, 1 << 9
E_FAULT, E_INVALID = "E0e", "E16"


def check(what, got, want):
    global problems
    if got != want:
        problems += 1
        show = lambda v: f"{v:#x}" if isinstance(v, int) and not isinstance(v, bool) else repr(v)
        print(f"FAIL {what}: {show(got)}, expected {show(want)}")


def breakpoint_at(c, address, kind=0):
    c.ok(f"Z{kind},{address:x},1")


def no_breakpoint(c, address, kind=0):
    c.ok(f"z{kind},{address:x},1")


def run_to(c, address):
    """To an address, by a breakpoint that is taken out again."""
    breakpoint_at(c, address)
    stop = c.go()
    check(f"stop on the way to {address:x}", "swbreak" in stop, True)
    check("EIP where the breakpoint is", c.reg("pc_linear"), address)
    no_breakpoint(c, address)


def attached(g, c):
    check("reason at the start", c.ask("?")[:3], "T05")
    check("EIP at the start", c.reg("eip"), g._start)
    check("threads", c.ask("qfThreadInfo"), "m1")
    check("unknown packet", c.ask("vMustReplyEmpty"), "")
    check("actions", c.ask("vCont?"), "vCont;c;C;s;S")
    for feature in ("org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse", "org.verso.i386.system"):
        check(f"feature {feature}", feature in c.xml, True)


def registers(g, c):
    all_of_them = c.general()
    size = max(at + n for name, (number, n, at) in c.regs.items() if number <= c.regs["mxcsr"][0])
    check("size of g", len(all_of_them), size)
    for name, value in (("eax", 0x12345678), ("edi", 0xFFFFFFFF), ("esp", 0x17FF00)):
        was = c.reg(name)
        check(f"write {name}", c.set_reg(name, value), "OK")
        check(f"read {name} back", c.reg(name), value)
        at = c.regs[name][2]
        check(f"{name} in g", c.general()[at:at + 4], struct.pack("<I", value))
        c.set_reg(name, was)
    check("EFLAGS", c.reg("eflags") & ~0x44, 2)
    check("write EFLAGS", c.set_reg("eflags", 0xC03), "OK")
    check("EFLAGS back", c.reg("eflags"), 0xC03)
    check("EFLAGS.VM cannot be set", c.set_reg("eflags", 0x20002), E_INVALID)
    c.set_reg("eflags", 2)
    check("write xmm3", c.set_reg("xmm3", 0x0102030405060708090A0B0C0D0E0F10), "OK")
    check("xmm3 back", c.reg("xmm3"), 0x0102030405060708090A0B0C0D0E0F10)
    check("mxcsr", c.reg("mxcsr"), 0x1F80)
    check("reserved bits of mxcsr", c.set_reg("mxcsr", 0x11F80), E_INVALID)
    check("fctrl", c.reg("fctrl"), 0x37F)
    check("ftag", c.reg("ftag"), 0xFFFF)
    changed = bytearray(c.general())
    at = c.regs["ebx"][2]
    changed[at:at + 4] = b"\x78\x56\x34\x12"
    check("G", c.ask("G" + changed.hex()), "OK")
    check("ebx by G", c.reg("ebx"), 0x12345678)
    check("cr0", c.reg("cr0") & 0x80000001, 1)
    check("cs_attr", c.reg("cs_attr"), 0xC09B)
    check("cs_limit", c.reg("cs_limit"), 0xFFFFFFFF)
    check("a selector without a descriptor", c.set_reg("ds", 0xFFF8), E_INVALID)
    check("cr2 as it was", c.reg("cr2"), 0)
    check("cpl cannot be written", c.set_reg("cpl", 3), E_INVALID)
    check("paging without PE", c.set_reg("cr0", 0x80000010), E_INVALID)
    check("no such register", c.ask("pffff"), E_INVALID)
    check("no such register to write", c.ask("Pffff=00000000"), E_INVALID)


def memory(g, c):
    text = c.read_all(g.text, g.text_end - g.text)
    check("text", text == open(elf, "rb").read()[file_offset(g):][:len(text)], True)
    c.write_32(0x300000, 0xCAFEF00D)
    check("memory back", c.read_32(0x300000), 0xCAFEF00D)
    check("binary write", c.ask(b"X300004,6:" + b"\x00}$#*+"), "OK")
    check("binary back", c.read(0x300004, 6), b"\x00}$#*+")
    check("nothing there", c.ask("m90000000,4"), E_FAULT)
    check("nothing there to write", c.ask("M90000000,1:00"), E_FAULT)
    check("video hole", c.ask("ma0000,4"), E_FAULT)
    ram = c.read(0x9FFF8, 16)
    check("read up to the hole", len(ram), 8)
    check("no address", c.ask("mxyz,4"), E_INVALID)
    check("too few bytes", c.ask("M300000,4:00"), E_INVALID)
    check("empty read", c.ask("m300000,0"), "")
    check("a packet larger than any", c.ask("m" + "0" * 20000), "E07")
    big = bytes(range(256)) * 24
    c.write(0x310000, big)
    check("more than a page", c.read(0x310000, len(big)), big)


def file_offset(g):
    """Of g.text in the file: the section headers know."""
    import subprocess
    out = subprocess.check_output(["readelf", "-SW", elf], text=True)
    m = re.search(r"\.text\s+PROGBITS\s+([0-9a-f]+)\s+([0-9a-f]+)", out)
    return int(m.group(2), 16) + g.text - int(m.group(1), 16)


def stepping(g, c):
    before = c.reg("eip")
    after = c.step()
    check("the first step leaves the header", before != after and after > before, True)


def spin_and_breakin(g, c):
    c.send("vCont;c")
    time.sleep(0.2)
    stop = c.interrupt()
    check("break-in", stop[:3], "T02")
    check("in the loop", g.spin <= c.reg("eip") < g.spin + 16, True)
    packet = b"vCont;c"
    c.raw(b"$" + packet + b"#%02x\x03" % (sum(packet) & 255))
    check("break-in together with the packet that lets it go", c.stop()[:3], "T02")
    c.write_32(g.go, 1)


def calls(g, c):
    breakpoint_at(c, g.f)
    for n in (3, 2, 1):
        stop = c.go()
        check("stop in f", "swbreak" in stop, True)
        check("EIP", c.reg("eip"), g.f)
        check("counter", c.reg("ecx"), n)
        check("return address", c.read_32(c.reg("esp")), g.call_f + 5)
    # Hardware breakpoint, left by continuing: the instruction runs.
    no_breakpoint(c, g.f)
    breakpoint_at(c, g.f_end, 1)
    stop = c.go()
    check("hardware breakpoint", "hwbreak" in stop, True)
    check("EIP at the RET", c.reg("eip"), g.f_end)
    check("the step out", c.step(), g.call_f + 5)
    no_breakpoint(c, g.f_end, 1)


def hidden(g, c):
    """Breakpoints all over the text do not change what the guest reads of it."""
    want = sum(c.read_all(g.text, g.text_end - g.text)) & 0xFFFFFFFF
    places = range(g.f, g.f + 60)
    for a in places:
        breakpoint_at(c, a)
    breakpoint_at(c, g.summed)
    c.go()
    check("stop after the sum", c.reg("eip"), g.summed)
    check("the guest's sum of its code", c.read_32(g.sum), want)
    for a in places:
        no_breakpoint(c, a)
    no_breakpoint(c, g.summed)


def patching(g, c):
    """Code changed by the debugger after it ran: what was translated of it is dropped."""
    run_to(c, g.patch_back)
    check("first result", c.reg("eax"), 1)
    c.write_32(g.patch_insn + 1, 42)
    run_to(c, g.rep_insn)
    check("result of the changed code", c.read_32(g.result + 4), 42)


def steps(g, c):
    for n in (2, 1):
        check(f"REP, {n} left", c.step(), g.rep_insn)
        check("ECX", c.reg("ecx"), n)
    check("behind REP", c.step(), g.rep_done)
    check("copied", c.read(g.copy, 4), b"abc\0")
    check("to STI", c.step(), g.sti_insn)
    check("STI", c.step(), g.sti_next)
    check("IF", c.reg("eflags") & IF, IF)
    check("its shadow", c.step(), g.sti_after)
    c.step()
    check("to UD2", c.step(), g.ud_insn)
    check("into the exception's handler", c.step(), g.ud_handler)
    c.step()
    check("back by IRET", c.step(), g.ud_resume)
    check("to INT", c.step(), g.sw_insn)
    check("into the INT's handler", c.step(), g.sw_handler)
    check("back by IRET", c.step(), g.sw_back)
    run_to(c, g.fpu_done)
    check("st0", c.reg("st0") >> 64, 0x4000)
    check("st1 = 1.0", c.reg("st1"), 0x3FFF << 64 | 1 << 63)
    check("ftag", c.reg("ftag"), 0x0FFF)
    check("fioff", c.reg("fioff"), g.fpu_insn)


def spaces(g, c):
    """One linear address, two address spaces."""
    run_to(c, g.paging_on)
    check("CR0.PG", c.reg("cr0") >> 31, 1)
    check("CR3", c.reg("cr3"), g.PD_A)
    pde, pte = c.read_32(g.PD_A + (g.LIN >> 20)), c.read_32(g.PT_A)
    check("code of A by linear address", c.read(g.LIN, 1), c.read(g.space_a, 1))
    check("no side effect on the PDE", c.read_32(g.PD_A + (g.LIN >> 20)), pde)
    check("no side effect on the PTE", c.read_32(g.PT_A), pte)
    check("not accessed yet", pte & 0x20, 0)
    check("not mapped", c.ask(f"m{g.LIN + 0x1000:x},4"), E_FAULT)
    check("up to what is not mapped", len(c.read(g.LIN + 0xFF8, 16)), 8)
    check("physical mode off", c.ask("qqemu.PhyMemMode"), "0")
    c.ok("Qqemu.PhyMemMode:1")
    check("physical mode on", c.ask("qqemu.PhyMemMode"), "1")
    check("physical address", c.read(0x500000, 4), bytes(4))
    check("linear address in physical mode", c.ask(f"m{g.LIN:x},4"), E_FAULT)
    c.ok("Qqemu.PhyMemMode:0")
    check("beyond the low mapping", c.ask("m500000,4"), E_FAULT)
    check("monitor phys", c.monitor("phys on"), "memory addresses are physical\n")
    check("physical address by monitor phys", c.read(0x500000, 4), bytes(4))
    c.monitor("phys off")
    breakpoint_at(c, g.LIN)
    c.go()
    check("in space A", (c.reg("eip"), c.reg("cr3")), (g.LIN, g.PD_A))
    check("the code there", c.step(), g.LIN + 5)
    check("runs", c.reg("ebx"), 0xA)
    c.go()
    check("in space B", (c.reg("eip"), c.reg("cr3")), (g.LIN, g.PD_B))
    c.step()
    check("the other code", c.reg("ebx"), 0xB)
    no_breakpoint(c, g.LIN)
    run_to(c, g.space_end)
    # CR3 by hand
    check("write CR3", c.set_reg("cr3", g.PD_A), "OK")
    check("the other space at once", c.read(g.LIN + 1, 1), b"\x0a")
    check("and back", c.set_reg("cr3", g.PD_B), "OK")


def linked(g, c):
    """Breakpoints, watchpoints and changes in code that runs translated and linked already."""
    breakpoint_at(c, g.third)
    for n in range(3):
        c.go()
        check("round", (c.reg("pc_linear"), c.reg("edi")), (g.third, 10 - n))
    breakpoint_at(c, g.other)
    c.go()
    check("a breakpoint behind a link", (c.reg("pc_linear"), c.reg("edi")), (g.other, 7))
    no_breakpoint(c, g.other)
    c.go()
    check("result so far", (c.reg("pc_linear"), c.read_32(g.result)), (g.third, 1))
    c.write_32(g.other + 1, 77)
    c.go()
    check("result of code changed behind a link", (c.reg("pc_linear"), c.read_32(g.result)), (g.third, 77))
    c.ok(f"Z2,{g.result:x},4")
    check("a watchpoint on a page that is mapped", "watch:" in c.go(), True)
    check("at the store", (c.reg("pc_linear"), c.reg("edi")), (g.other + 10, 5))
    no_breakpoint(c, g.third)
    check("still watched when the page beside has been mapped", "watch:" in c.go(), True)
    check("at the store", (c.reg("pc_linear"), c.reg("edi")), (g.other + 10, 4))
    check("it has been", c.read_32(g.beside), 5)
    c.ok(f"z2,{g.result:x},4")


def emulated(c):
    return int(re.search(r"^emulated +(\d+)", c.monitor("stats emulated"), re.M).group(1))


def only_there(g, c):
    """A loop runs translated where its page has no breakpoint, and emulated where it has."""
    run_to(c, g.hot)
    before = emulated(c)
    back = c.read_32(c.reg("esp"))
    run_to(c, back)
    if not options:
        check("the loop ran translated", emulated(c) - before < 1000, True)
    c.set_reg("eip", g.hot)
    c.set_reg("ecx", 100000)
    c.set_reg("esp", c.reg("esp") - 4)
    breakpoint_at(c, g.hot_end)
    before = emulated(c)
    c.go()
    check("at the end of the loop", c.reg("eip"), g.hot_end)
    if not options:
        check("it was emulated", 200000 - 10 <= emulated(c) - before < 210000, True)
    check("back", c.step(), back)
    no_breakpoint(c, g.hot_end)
    run_to(c, g.user)
    check("a breakpoint in ring 3", c.reg("cpl"), 3)


def watchpoints(g, c):
    def hit(kind, what, address, eip):
        stop = c.go()
        m = re.search(r"\b(watch|rwatch|awatch):([0-9a-f]+);", stop)
        check(f"{what}: stop", m and m.group(1), kind)
        check(f"{what}: address", m and int(m.group(2), 16), address)
        check(f"{what}: the instruction is done", c.reg("eip"), eip)

    c.ok(f"Z2,{g.watched:x},4")
    hit("watch", "write", g.watched, g.watch_write + 10)
    check("value", c.read_32(g.watched), 0x11111111)
    c.ok(f"Z3,{g.watched:x},4")
    hit("rwatch", "read", g.watched, g.watch_read + 5)
    c.ok(f"z3,{g.watched:x},4")
    c.ok(f"z2,{g.watched:x},4")
    c.ok(f"Z4,{g.watched:x},1")
    hit("awatch", "read and write", g.watched, g.watch_rmw + 6)
    c.ok(f"z4,{g.watched:x},1")
    c.ok(f"Z2,{g.watched:x},2")
    hit("watch", "string store, third byte", g.watched, g.watch_rep)
    check("ECX there", c.reg("ecx"), 1)
    c.ok(f"z2,{g.watched:x},2")
    c.ok(f"Z2,{g.watched:x},4")
    hit("watch", "string store, fourth byte", g.watched + 1, g.watch_rep + 2)
    # Beside it, in the loop on another page and in ring 3: only the last one counts.
    only_there(g, c)
    hit("watch", "write from ring 3", g.watched, g.user_int)
    check("CPL", c.reg("cpl"), 3)
    check("value from ring 3", c.read_32(g.watched), 0x22222222)
    c.ok(f"z2,{g.watched:x},4")
    check("a watchpoint of nothing", c.ask(f"Z2,{g.watched:x},0"), "E1c")
    check("a watchpoint beyond the end", c.ask("Z2,fffffffe,4"), "E1c")
    check("INT from ring 3", c.step(), g.user_handler)
    check("CPL", c.reg("cpl"), 0)


def sixteen(g, c):
    """A segment with a base: EIP is an offset, breakpoints are linear."""
    breakpoint_at(c, g.code16)
    stop = c.go()
    check("stop in 16-bit code", stop[:3], "T05")
    check("GDB would ignore this", "swbreak" in stop, False)
    check("offset", c.reg("eip"), 0)
    check("linear", c.reg("pc_linear"), g.code16)
    check("base", c.reg("cs_base"), g.code16)
    check("monitor info says so", "16-bit code" in c.monitor("info"), True)
    check("a step", c.step(), 3)
    check("AX", c.reg("eax") & 0xFFFF, 0x1234)
    no_breakpoint(c, g.code16)
    breakpoint_at(c, g.code16_far)
    c.go()
    check("further on", c.reg("pc_linear"), g.code16_far)
    # Left by continuing: a client that does not know 16-bit addresses as its own does not take it out.
    breakpoint_at(c, g.code16_back)
    c.go()
    check("past it", c.reg("pc_linear"), g.code16_back)
    no_breakpoint(c, g.code16_far)
    no_breakpoint(c, g.code16_back)
    c.step()


def guest_time(c):
    return float(re.search(r"guest time ([0-9.]+) s", c.monitor("info")).group(1))


def sleeping(g, c):
    """HLT and the timer."""
    run_to(c, g.halt_insn)
    check("interrupts held back while stepping", c.step(), g.halt_insn + 1)
    check("halted", "halted" in c.monitor("info"), True)
    for _ in range(200): # however busy the host is
        c.send("vCont;c")
        time.sleep(0.1)
        check("break-in while it sleeps and wakes", c.interrupt()[:3], "T02")
        if c.read_32(g.ticks) > 3:
            break
    check("the timer runs", c.read_32(g.ticks) > 3, True)
    # The guest's time stands still while it is stopped.
    before = guest_time(c)
    time.sleep(0.5)
    since = time.monotonic()
    run_to(c, g.halt_insn)
    check("no more guest time than the run took", guest_time(c) - before <= time.monotonic() - since, True)
    # An interrupt comes up while they are off; then they are on again.
    c.set_reg("eflags", c.reg("eflags") & ~IF)
    c.set_reg("ecx", 300000 if "--lockstep" in options else 30000000)  # for some milliseconds of the guest's time
    c.set_reg("eip", g.hot)
    c.set_reg("esp", c.reg("esp") - 4)
    c.write_32(c.reg("esp"), g.halt_insn)
    run_to(c, g.halt_insn)
    c.set_reg("eip", g.halt_insn + 1)
    c.set_reg("eflags", c.reg("eflags") | IF)
    check("held back while stepping", c.step(), g.halt_insn + 8)
    # Interrupts while stepping, if wanted.
    check("sstep", c.ask("qqemu.sstep"), "0x7")
    c.ok("Qqemu.sstep=0x5")
    check("into its handler by a step", c.step(), g.timer_handler)
    c.ok("Qqemu.sstep=0x7")
    for _ in range(200): # a tick may be due in front of HLT: then the first step is the way to its handler
        run_to(c, g.halt_insn)
        c.ok("Qqemu.sstep=0x5")
        at = c.step()
        if at != g.timer_handler:
            break
        c.ok("Qqemu.sstep=0x7")
    check("HLT while stepping", at, g.halt_insn + 1)
    check("from HLT into the handler", c.step(), g.timer_handler)
    c.ok("Qqemu.sstep=0x7")
    run_to(c, g.halt_insn)


def monitor_commands(g, c):
    out = c.monitor("help")
    for name in ("info", "trace", "stats", "lockstep", "phys", "translate", "quit"):
        check(f"help names {name}", f"monitor {name}" in out, True)
    check("unknown command", "unknown" in c.monitor("frobnicate"), True)
    check("stats", re.search(r"^emulated +\d+ ", c.monitor("stats"), re.M) is not None, True)
    check("stats by name", all("page" in line for line in c.monitor("stats page_").splitlines()), True)
    check("info", "protected mode, 32-bit code" in c.monitor("info"), True)
    check("devices", len(c.monitor("info devices").splitlines()) > 3, True)
    check("lockstep", "lockstep" in c.monitor("lockstep"), True)
    check("translate", f"{g.LIN:08x} is at physical {g.space_b:x}" in c.monitor(f"translate {g.LIN:x}"), True)
    check("translate nothing", "not mapped" in c.monitor("translate 50000000"), True)
    check("trace is off", "off" in c.monitor("trace"), True)
    c.monitor("trace on irq,io")
    c.monitor("trace nonsense")
    check("trace of nothing known", "unknown event" in c.monitor("trace on nonsense"), True)
    run_to(c, g.halt_insn)
    breakpoint_at(c, g.halt_insn + 1)
    c.go()
    no_breakpoint(c, g.halt_insn + 1)
    events = c.monitor("trace show 5")
    check("events", re.search(r"^irq .* vector=20$", events, re.M) is not None, True)
    check("so many", len(events.splitlines()), 5)
    c.monitor("trace off")
    check("trace list", "exc" in c.monitor("trace list"), True)


def many(g, c):
    got = [c.ask(f"Z0,{0x300000 + n:x},1") for n in range(300)]
    check("room for many", got.count("OK"), 256)
    check("and no more", got[-1], "E1c")
    for n in range(300):
        c.ok(f"z0,{0x300000 + n:x},1")
    check("taking out what is not there", c.ask("z0,12345,1"), "OK")
    check("unknown kind", c.ask("Z9,300000,1"), "")


def nonsense(g, c):
    """Packets of random bytes, and good ones with random damage: the service answers each, and goes on."""
    import random
    r = random.Random(6)
    good = ["g", "G00", "p8", "P8=00000000", "m100000,10", "M300000,2:0000", "X300000,2:ab", "Z0,300000,1", "z0,300000,1", "Z2,300000,4",
            "z2,300000,4", "?", "qSupported:x", "qXfer:features:read:target.xml:0,10", "qRcmd,68656c70", "vCont?", "Hg0", "T1", "qC", "Qqemu.sstep=7"]
    eip, sp = c.reg("eip"), c.reg("esp")
    for n in range(600):
        text = bytearray(r.choice(good).encode()) if n % 3 else bytearray(r.randbytes(r.randrange(1, 60)))
        for _ in range(r.randrange(4)):
            text[r.randrange(len(text))] = r.choice(b"0123456789abcdef,:;=-+ \xff\x00zZ")
        text = bytes(text)
        # What would let the guest go, end it, or say more than one packet.
        if text[:1] in (b"c", b"C", b"s", b"S", b"k", b"D") or text[:5] in (b"vCont", b"vKill") or text[:6] == b"qRcmd,":
            continue
        c.ask(text)
    c.ok("Qqemu.PhyMemMode:0")
    c.ok("Qqemu.sstep=0x7")
    for kind in range(5):
        for at in (0x300000,):
            c.ok(f"z{kind},{at:x},{1 if kind < 2 else 4:x}")
    c.set_reg("eip", eip)
    c.set_reg("esp", sp)
    check("still there", c.ask("qC"), "QC1")


def ending(g, c):
    c.write_32(g.go + 4, 1)
    run_to(c, g.last)
    check("exit", c.go(), "W0b")
    check("status", g.status(), 11)


def whole_session():
    g = Guest(elf, *options, tmp=tmp)
    try:
        c = g.attach()
        for part in (attached, registers, memory, stepping, spin_and_breakin, calls, hidden, patching, steps, spaces, linked, watchpoints,
                     sixteen, sleeping, monitor_commands, many, nonsense, ending):
            global problems
            before = problems
            part(g, c)
            if problems != before:
                print(f"  in {part.__name__}, with {options}")
    except (Failed, OSError) as e:
        print(f"FAIL {type(e).__name__}: {e}; the guest: {g.said()[-500:]}")
        problems += 1
    finally:
        g.kill()


def connections():
    """Acknowledgements, damaged packets, clients that go and come, a guest that runs at once."""
    global problems
    g = Guest(elf, *options, tmp=tmp, wait=False)
    try:
        while "gdb" not in g.said():
            time.sleep(0.05)
        c = g.attach(acks=True)
        for _ in range(100): # it may not be there yet
            if c.reg("eip") >= g.spin:
                break
            c.send("vCont;c")
            time.sleep(0.1)
            c.interrupt()
        check("a guest that runs is stopped", g.spin <= c.reg("eip") < g.spin + 16, True)
        c.raw(b"$g#00")
        check("a wrong sum", c.byte(), b"-")
        c.raw(b"noise+$m100000,4#zz")
        check("no sum at all", c.byte(), b"-")
        c.raw(b"$m1000$qC#b4")
        check("a frame broken off", [c.byte(), c.recv()], [b"+", "QC1"])
        c.raw(b"-")
        check("the last frame again", c.recv(), "QC1")
        c.s.close()
        time.sleep(0.2)
        c = g.attach()
        check("another one stops it again", g.spin <= c.reg("eip") < g.spin + 16, True)
        breakpoint_at(c, g.f)
        c.ok("D")
        c.s.close()
        c = g.attach()
        c.write_32(g.go, 1)
        breakpoint_at(c, g.summed)
        c.go()
        check("a detached client's breakpoints are gone", c.reg("eip"), g.summed)
        # A client that dies with breakpoints set while the guest runs.
        breakpoint_at(c, g.code16)
        no_breakpoint(c, g.summed)
        c.send("vCont;c")
        time.sleep(0.1)
        check("a run stops at it", c.stop()[:3], "T05")
        for _ in range(100): # a client that comes early stops it again before it has gone on
            c.s.close()
            time.sleep(0.1)
            c = g.attach()
            if c.reg("pc_linear") != g.code16:
                break
        check("the guest went on", c.reg("pc_linear") != g.code16, True)
        c.ok("vKill;1")
        check("killed", g.status(), 12)
    except (Failed, OSError) as e:
        print(f"FAIL {type(e).__name__}: {e}; the guest: {g.said()[-500:]}")
        problems += 1
    finally:
        g.kill()


def shutdown():
    """A triple fault can be looked at; SIGTERM ends a stopped machine."""
    global problems
    g = Guest(elf, *options, tmp=tmp)
    try:
        c = g.attach()
        c.write_32(g.go, 1)
        c.write_32(g.go + 4, 1)
        c.write_32(g.go + 8, 1)
        check("stop at the shutdown", c.go()[:3], "T06")
        check("where", c.reg("eip"), g.triple + 7)  # LIDT is done, UD2 is not
        check("then the end", c.go(), "W0b")
        check("status", g.status(), 11)
        g = Guest(elf, *options, tmp=tmp)
        c = g.attach()
        g.process.send_signal(signal.SIGTERM)
        check("terminated while stopped", g.status(), 12)
        g = Guest(elf, *options, tmp=tmp)
        while "gdb" not in g.said():
            time.sleep(0.05)
        g.process.send_signal(signal.SIGTERM)
        check("terminated while waiting for a debugger", g.status(), 12)
    except (Failed, OSError) as e:
        print(f"FAIL {type(e).__name__}: {e}; the guest: {g.said()[-500:]}")
        problems += 1
    finally:
        g.kill()


def real_mode(bios):
    """A firmware from the reset vector on: real mode, ROM."""
    global problems
    g = Guest(None, "--bios", bios, *options, tmp=tmp)
    try:
        c = g.attach()
        check("EIP after RESET", (c.reg("eip"), c.reg("cs"), c.reg("cs_base")), (0xFFF0, 0xF000, 0xFFFF0000))
        check("linear", c.reg("pc_linear"), 0xFFFFFFF0)
        jump = c.read(0xFFFFFFF0, 5)
        check("a far jump in ROM", jump[0], 0xEA)
        check("ROM cannot be written", c.ask("Mfffffff0,1:90"), E_FAULT)
        check("mode", "real mode" in c.monitor("info"), True)
        off, seg = struct.unpack("<HH", jump[1:])
        check("the jump", c.step(), off)
        check("CS", (c.reg("cs"), c.reg("cs_base")), (seg, seg << 4))
        # A selector is loaded as in real mode.
        check("write DS", c.set_reg("ds", 0x1234), "OK")
        check("its base", c.reg("ds_base"), 0x12340)
        c.set_reg("ds", 0)
        # A place the firmware comes by: the instruction after the next.
        at = c.reg("pc_linear")
        c.step()
        c.step()
        there = c.reg("pc_linear")
        c.set_reg("cs", seg)
        c.set_reg("eip", off)
        check("back", c.reg("pc_linear"), at)
        breakpoint_at(c, there)
        check("stop", c.go()[:3], "T05")
        check("where", c.reg("pc_linear"), there)
        c.ok("vKill;1")
        check("status", g.status(), 12)
    except (Failed, OSError) as e:
        print(f"FAIL {type(e).__name__}: {e}; the guest: {g.said()[-500:]}")
        problems += 1
    finally:
        g.kill()


whole_session()
connections()
if os.path.exists("/usr/share/seabios/bios.bin"):
    real_mode("/usr/share/seabios/bios.bin")
shutdown()
sys.exit(problems != 0)
