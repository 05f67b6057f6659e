#!/usr/bin/env python3
"""Runs the benchmark guest under Verso and QEMU's TCG and the same programs on the host, by turns, and compares.

Started by tools/bench/run.sh, which builds everything. A row's figure is the median over the rounds of the best batch of
each round. Only ratios between columns of one call mean anything: the machine may be busy, or a virtual one itself.
"""
import argparse
import csv
import fnmatch
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time

import hostshare
import plot
import scaling

# Targets: title, rows, how several rows become one (each: the worst), limit of verso/native, limit of verso/TCG.
# One line for each line of the project's table of targets.
TARGETS = [
    ("compute, integer and SSE", "int.*,sse.*", "mean", 1.25, 1 / 5),
    ("x87", "x87.*", "mean", 1.15, 1 / 25),
    ("calls, indirect branches", "call.*", "mean", 1.5, 1 / 4),
    ("null system call, read, write, stat, open+close, signal",
     "os.sysenter,os.int80,os.read_1b,os.write_1b,os.stat,os.open_close,os.signal", "each", None, 1 / 3),
    ("context switch (pipe)", "os.pingpong", "each", None, 1 / 3),
    ("page fault, COW fault, mprotect pair", "os.page_fault,os.cow_fault,os.mprotect_pair", "each", None, 2),
    ("fork, exec, threads, mmap", "os.fork_exit,os.fork_exec,os.thread,os.mmap_munmap", "each", None, 1),
    ("shell: exec, pipe, find", "sh.exec,sh.pipe,sh.find", "each", None, 1),
    ("shell loop and applets that compute",
     "sh.loop,sh.gzip,sh.gunzip,sh.bunzip2,sh.awk,sh.sed,sh.grep,sh.sort,sh.sha256sum,sh.md5sum,sh.tar", "each", None, 1 / 4),
    ("kernel boot to /init, cold cache", "boot.cold", "each", None, 0.6),
    ("kernel boot to /init, warm cache", "boot.warm", "each", None, 0.35),
    ("self-modifying code", "smc.*", "mean", None, 1),
    ("self-modifying code, worst case", "smc.*", "each", None, 2),
    ("port I/O, MMIO, CPUID, RDTSC", "io.*", "each", None, 1),
    ("memory, with a copy by 1 MiB", "mem.*", "mean", 1.3, None),
    ("copy by 1 MiB", "mem.copy_1m", "each", 1.3, None),
]
# Absolute limits: title, row, limit.
LIMITS = [
    ("translation, live, us of CPU for a full page", "cost.translate_us", 150),
    ("loading a stored page, us", "cost.load_us", 25),
    ("memory beside guest RAM after boot, MiB", "cost.memory_mib", 128),
]
COST_BOOTS = 3  # of each kind in a round
FULL_PAGE = 1069  # instructions of a page of a kernel's text, on average: what translation costs is told for so many
COMPUTE = "int.*,call.*,x87.*,sse.*,mem.*,smc.*"
CLOCK_TOLERANCE = 0.05
GUEST_TIMEOUT = 1800


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, p) for p in patterns.split(","))


class Console:
    """The lines of a guest or native run, read as they come."""

    def __init__(self, who, argv, log, cpu=False):
        self.who, self.log, self.cpu = who, log, cpu
        self.rows, self.checks, self.clock, self.notes = {}, {}, {}, []
        self.first = {}  # row -> ns of CPU time of its first unit, without preparations where the guest tells them
        self.used = {}  # row -> ns of CPU time from its beginning to its end
        self.usage = None  # of the whole process
        self.up = self.up_cpu = None
        self.started = time.monotonic()
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        signal.alarm(GUEST_TIMEOUT)

    def read(self, on_up=None):
        begun = {}  # row -> mark (B, P, F: see main.c) -> time, CPU time
        ended = False
        for raw in self.process.stdout:
            now = time.monotonic()
            line = raw.decode("latin-1").rstrip()
            self.log.write(f"{now - self.started:10.4f} {self.who}: {line}\n")
            word = line.split()
            if not word:
                continue
            if word[0] == "I" and word[1:] == ["up"]:
                self.up_cpu = cpu_ns(self.process.pid) / 1e9
                self.up = self.up_cpu if self.cpu else now - self.started
                if on_up:
                    on_up(self.process.pid)
            elif word[0] == "I" and word[1:] == ["end"]:
                ended = True
            elif word[0] in ("B", "P", "F") and len(word) == 2:
                begun.setdefault(word[1], {})[word[0]] = now, cpu_ns(self.process.pid)
            elif word[0] == "E":
                self.notes.append(f"{self.who}: {line[2:]}")
            elif word[0] == "R" and len(word) == 7 and word[1] in begun:
                self.take(word, now - begun[word[1]]["B"][0])
                self.take_cpu(word[1], int(word[6]), {mark: used for mark, (_, used) in begun[word[1]].items()})
        signal.alarm(0)
        _, status, self.usage = os.wait4(self.process.pid, 0)
        self.process.returncode = status = os.waitstatus_to_exitcode(status)
        if status or (self.up is not None and not ended):
            self.notes.append(f"{self.who}: ended with status {status}, {'after' if ended else 'before'} the last row")
        return self

    def take_cpu(self, row, units, at):
        """CPU time: of a row, of its first unit, of the units behind that."""
        now = cpu_ns(self.process.pid)
        self.used[row] = now - at["B"]
        if "F" in at:
            self.first[row] = at["F"] - at.get("P", at["B"])
        if self.cpu:
            self.rows[row] = (now - at["F"]) / (units - 1) if "F" in at and units > 1 else (now - at["B"]) / units

    def take(self, word, host_s):
        """Corrects a figure when the guest's clock disagrees with ours, and remembers that it did."""
        name, ns, total_ns = word[1], float(word[2]), float(word[4])
        rate = host_s * 1e9 / total_ns if total_ns > 2e7 else 1
        self.clock[name] = rate
        self.rows[name] = ns * (rate if abs(rate - 1) > CLOCK_TOLERANCE else 1)
        self.checks[name] = word[5]


def cpu_ns(pid):
    """CPU time of all threads of a process."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                total += int(f.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the thread has ended, before or after the file was opened
            pass
    return total


class Bench:
    def __init__(self, options):
        self.o = options
        self.samples = {}  # (row, machine) -> figures
        self.checks = {}  # row -> {checksum: machines}
        self.notes = []
        self.details = {}
        self.log = open(os.path.join(options.work, "console.log"), "w", encoding="utf-8")

    def add(self, machine, row, value):
        self.samples.setdefault((row, machine), []).append(value)

    def figure(self, row, machine):
        return statistics.median(self.samples[row, machine]) if (row, machine) in self.samples else None

    # -- Machines

    def append(self, rows, how):
        return f"console=ttyS0,115200n8 {self.o.append} script=bench bench_{how} bench_rows={rows}"

    def verso(self, rows, how, cache, on_up=None, memory=None, extra=()):
        """how: ms=N, units=N or empty=N, as the guest's script knows them; memory: MiB (-m)."""
        stats = os.path.join(self.o.work, "stats.json")
        argv = [self.o.verso, "run", "--kernel", self.o.kernel, "--initrd", os.path.join(self.o.work, "initrd.gz"),
                "--append", self.append(rows, how), "-m", f"{memory or self.o.memory}M",
                "--cache", os.path.join(self.o.work, cache), "--no-stdin", "--stats=json", "--stats-to", stats, *extra]
        console = Console("verso", argv, self.log, self.o.cpu).read(on_up)
        try:
            with open(stats, encoding="utf-8") as f:
                console.stats = json.load(f)
        except (OSError, ValueError):
            console.stats = {"counters": {}}
        return console

    def tcg(self, rows, how, on_up=None, memory=None, extra=()):
        argv = ["qemu-system-i386", "-accel", "tcg", "-m", str(memory or self.o.memory), "-smp", "1", "-nographic", "-no-reboot",
                "-kernel", self.o.kernel, "-initrd", os.path.join(self.o.work, "initrd.gz"), "-append", self.append(rows, how), *extra]
        return Console("tcg", argv, self.log, self.o.cpu).read(on_up)

    def native(self, rows, ms):
        return Console("native", [os.path.join(self.o.work, "bench-64"), str(ms), rows], self.log, self.o.cpu).read()

    def store(self, machine, console):
        self.notes += console.notes
        for row, value in console.rows.items():
            self.add(machine, row, value)
            self.checks.setdefault(row, {}).setdefault(console.checks[row], set()).add(machine)
            rate = console.clock[row]
            if abs(rate - 1) > CLOCK_TOLERANCE and not self.o.cpu:
                self.notes.append(f"{machine}: {row}: guest clock {rate:.3f} of the host's, corrected")

    # -- What is measured

    def remove_cache(self, name):
        for suffix in ("", "-wal", "-shm", "-journal"):
            try:
                os.remove(os.path.join(self.o.work, name + suffix))
            except FileNotFoundError:
                pass

    def boot_round(self):
        if matches("boot.cold", self.o.rows) or matches("cost.translate_us", self.o.rows):
            self.boot_costs("boot.cold", "cold.db", True)
        self.boot_costs("boot.warm", "boot.db", False)
        peer = self.tcg("none", "ms=0")
        self.notes += peer.notes
        if peer.up:
            for row in ("boot.cold", "boot.warm"):
                self.add("tcg", row, peer.up * 1e9)

    def boot_costs(self, row, cache, fresh):
        """The time of the first of some boots. What a page costs has nothing measured beside it: it is the best of them that counts."""
        costs = []
        for i in range(COST_BOOTS):
            if fresh:
                self.remove_cache(cache)
            console = self.verso("none", "ms=0", cache)
            self.notes += console.notes
            if console.up and i == 0:
                self.add("verso", row, console.up * 1e9)
            c = console.stats["counters"]
            made = sum(v for k, v in c.items() if k.startswith("page_miss_") or k in ("page_uncached", "page_rescan"))
            if c and fresh and made:
                costs.append((c["translate_ns"] / c["translate_insns"] * FULL_PAGE / 1e3, made, c["translate_insns"]))
            elif c and not fresh and c["page_hit"]:
                costs.append(((c["cache_ns"] + c["place_ns"]) / c["page_hit"] / 1e3, c["page_hit"], 0))
        if not costs:
            return
        us, pages, insns = min(costs)
        self.add("verso", "cost.translate_us" if fresh else "cost.load_us", us)
        self.details[f"pages {'translated' if fresh else 'loaded'} in a {'cold' if fresh else 'warm'} boot"] = pages
        if insns:
            self.details["instructions of such a page"] = round(insns / pages)

    def memory(self):
        """Memory beside guest RAM when /init runs."""
        found = {}
        self.notes += self.verso("none", "ms=0", "boot.db", lambda pid: found.update(stopped_parts(pid))).notes
        ram = found.pop("guest RAM", 0)
        self.add("verso", "cost.memory_mib", sum(found.values()) / 1024)
        self.details["guest RAM touched, MiB"] = round(ram / 1024, 1)
        for name, kib in sorted(found.items(), key=lambda p: -p[1]):
            self.details[f"beside guest RAM, MiB: {name}"] = round(kib / 1024, 1)

    def run(self):
        o = self.o
        guest_rows = any(matches(r, o.rows) for r in ROW_EXAMPLES)
        boots = matches("boot.warm", o.rows) or matches("boot.cold", o.rows) or matches("cost.load_us", o.rows) or \
            matches("cost.translate_us", o.rows)
        if guest_rows:
            progress("filling the cache")
            self.notes += self.verso(o.rows, f"ms={min(o.ms, 50)}", "bench.db").notes
        if boots or matches("cost.memory_mib", o.rows):
            self.notes += self.verso("none", "ms=0", "boot.db").notes
        for i in range(o.rounds):
            if guest_rows:
                for machine, run in (("verso", lambda: self.verso(o.rows, f"ms={o.ms}", "bench.db")),
                                     ("tcg", lambda: self.tcg(o.rows, f"ms={o.ms}")),
                                     ("native", lambda: self.native(o.rows, o.ms))):
                    if machine not in o.without:
                        progress(f"round {i + 1}: {machine}")
                        self.store(machine, run())
            if boots:
                progress(f"round {i + 1}: boots")
                self.boot_round()
        if matches("cost.memory_mib", o.rows):
            self.memory()

    def take_shares(self, shares):
        """Processor time of these rows without what goes with them."""
        for s in shares:
            self.samples[s.row, s.machine] = [s.us * 1e3]
            self.samples.pop((s.row, "native"), None)

    # -- Results

    def errors(self):
        found = list(self.notes)
        for row, sums in self.checks.items():
            if matches(row, COMPUTE) and len(sums) > 1:
                text = ", ".join(f"{'/'.join(sorted(m))} {c}" for c, m in sums.items())
                found.append(f"DIFFERENT RESULT in {row}: {text}")
        return found

    def wrong(self):
        return any(len(s) > 1 and matches(r, COMPUTE) for r, s in self.checks.items())

    def rows(self):
        names = dict.fromkeys(row for row, _ in self.samples)
        return [n for n in names if matches(n, self.o.rows)]

    def table(self):
        for row in self.rows():
            v, t, n = (self.figure(row, m) for m in ("verso", "tcg", "native"))
            yield row, v, t, n, ratio(v, t), ratio(v, n)

    def targets(self):
        """(title, limits, results as text, met)"""
        values = {row: (vt, vn) for row, _, _, _, vt, vn in self.table()}
        for title, patterns, how, native, tcg in TARGETS:
            result = []
            for limit, index, name in ((native, 1, "native"), (tcg, 0, "TCG")):
                found = {r: v[index] for r, v in values.items() if matches(r, patterns) and v[index]}
                if limit is None or not found:
                    continue
                worst = max(found, key=lambda r: found[r])
                value = math.exp(statistics.fmean(math.log(x) for x in found.values())) if how == "mean" else found[worst]
                span = f" ({min(found.values()):.3g} to {max(found.values()):.3g})" if len(found) > 1 else ""
                result.append((name, limit, value, span, worst if how == "each" and len(found) > 1 else ""))
            if result:
                yield title, result
        for title, row, limit in LIMITS:
            v = self.figure(row, "verso")
            if v and matches(row, self.o.rows):
                yield title, [("", limit, v, "", "")]

    def spans(self):
        """What a plot of the targets shows: (title, [(machine, limit, what is compared with it, all rows' ratios)])"""
        values = {row: (vt, vn) for row, _, _, _, vt, vn in self.table()}
        for title, results in self.targets():
            patterns = next((p for t, p, *_ in TARGETS if t == title), None)
            if patterns:
                yield title, [(name, limit, value, sorted(v[name == "native"] for r, v in values.items()
                                                          if matches(r, patterns) and v[name == "native"]))
                              for name, limit, value, *_ in results]


ROW_EXAMPLES = ["int.alu", "int.sieve", "int.crc", "int.rounds", "int.match", "int.hash", "int.text", "int.bignum", "int.divide",
                "call.fib", "call.qsort", "call.methods", "call.switch", "x87.bodies", "x87.solve", "x87.chain", "sse.bodies",
                "sse.solve", "sse.chain", "sse.packed_float", "sse.packed_int", "mem.read", "mem.store", "mem.stos", "mem.copy",
                "mem.copy_1m", "mem.movs", "mem.copy_sse", "mem.small_movs", "mem.chase_16k", "mem.chase_4m", "smc.jit",
                "smc.patch", "smc.data", "smc.settled", "os.sysenter", "os.int80", "os.read_1b", "os.write_1b", "os.stat",
                "os.open_close", "os.signal", "os.pingpong", "os.page_fault", "os.cow_fault", "os.mprotect_pair",
                "os.mmap_munmap", "os.fork_exit", "os.fork_exec", "os.thread", "io.port_out", "io.port_in", "io.mmio",
                "io.cpuid", "io.rdtsc", "sh.loop", "sh.exec", "sh.pipe", "sh.gzip", "sh.gunzip", "sh.bunzip2", "sh.awk",
                "sh.sed", "sh.grep", "sh.sort", "sh.sha256sum", "sh.md5sum", "sh.find", "sh.tar", "scale.ring_4", "scale.code_1"]


def stopped_parts(pid):
    """proportional() of a process that stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        return proportional(pid)
    finally:
        os.kill(pid, signal.SIGCONT)


def proportional(pid):
    """KiB by what is mapped. Pss counts a page mapped n times by this process n times 1/n: each page once."""
    parts, name = {}, None
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as f:
        for line in f:
            word = line.split()
            if word[0].endswith(":"):
                if word[0] == "Pss:":
                    parts[name] = parts.get(name, 0) + int(word[1])
            else:
                name = mapping_name(" ".join(word[5:]))
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            if line.startswith("VmPTE:"):
                parts["page tables"] = int(line.split()[1])
    return parts


def mapping_name(path):
    if path.startswith("/memfd:") and "ram" in path:
        return "guest RAM"
    if path.startswith("/memfd:"):
        return path.split(":")[1].split(" ")[0]
    if not path or path == "[heap]":
        return "tables and heap"
    if path.startswith("["):
        return path
    return "program and libraries"


def ratio(a, b):
    return a / b if a and b else None


def progress(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def time_text(ns):
    if ns is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def cell(row, value):
    return f"{value:.3g}" if row.startswith("cost.") and value is not None else time_text(value)


def number(value):
    return "-" if value is None else f"{value:.3g}"


def report(bench, out):
    print(f"{'row':18} {'verso':>10} {'TCG':>10} {'native':>10} {'verso/TCG':>10} {'verso/native':>13}", file=out)
    for row, v, t, n, vt, vn in bench.table():
        print(f"{row:18} {cell(row, v):>10} {cell(row, t):>10} {cell(row, n):>10} {number(vt):>10} {number(vn):>13}", file=out)
    print("\n| work | target | measured | |\n|---|---|---|---|", file=out)
    for title, results in bench.targets():
        limits = ", ".join(f"at most {number(limit)}" + (f" of {name}'s time" if name else "") for name, limit, *_ in results)
        got = "; ".join(f"{number(value)}{span}" + (f" {name}" if name else "") + (f", worst {worst}" if worst else "")
                        for name, _, value, span, worst in results)
        met = all(value <= limit for _, limit, value, *_ in results)
        print(f"| {title} | {limits} | {got} | {'met' if met else '**missed**'} |", file=out)
    if bench.details:
        print(file=out)
    for name, value in bench.details.items():
        print(f"{name}: {value}", file=out)
    for note in bench.errors():
        print(f"! {note}", file=out)


def write_csv(bench, path):
    with open(path, "w", newline="", encoding="utf-8") as f:
        w = csv.writer(f)
        w.writerow(["row", "machine", "unit", "median", "min", "max", "rounds"])
        for (row, machine), values in bench.samples.items():
            if matches(row, bench.o.rows):
                unit = row.rsplit("_", 1)[1] if row.startswith("cost.") else "ns"
                w.writerow([row, machine, unit, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}",
                            len(values)])


def limits_of(row):
    """(of TCG's time, of native time, whether each row is judged) by the first target that names the row."""
    for _, patterns, how, native, tcg in TARGETS:
        if matches(row, patterns):
            return tcg, native, how == "each"
    return None, None, True


def parse():
    p = argparse.ArgumentParser(prog="tools/bench/run.sh", description=__doc__.split("\n\n", maxsplit=1)[0])
    p.add_argument("--rows", default="*", metavar="PATTERNS", help="shell patterns, comma-separated: int.* call.* x87.* sse.* mem.* "
                   "smc.* os.* io.* sh.* boot.* cost.* (all)")
    p.add_argument("-n", dest="rounds", type=int, default=3, metavar="N", help="rounds, each of Verso, TCG and native (3)")
    p.add_argument("--ms", type=int, default=200, help="time of a row in each round, milliseconds (200; scaling: at least 1000)")
    p.add_argument("-m", dest="memory", type=int, default=512, metavar="MIB", help="guest RAM (512)")
    p.add_argument("--flavour", default="686", choices=["686", "686-pae"], help="the guest's kernel (686)")
    p.add_argument("--append", default="", help="added to the guest's command line")
    p.add_argument("--without", action="append", default=[], choices=["tcg", "native"], help="leave a machine out")
    p.add_argument("--cpu", action="store_true", help="on a busy machine: figures are CPU time of the machine's process, all units of a "
                   "row together, the first included. Native rows of processes and threads miss their children's")
    p.add_argument("--scaling", action="store_true", help="in place of the rows: cost against guest RAM, number of processes, pages of "
                   "code; about 15 minutes a round")
    p.add_argument("--series", default="ram,processes,code", metavar="LIST", help="which of them (ram,processes,code)")
    p.add_argument("--all", action="store_true", help="the rows and the scaling")
    p.add_argument("--plots", metavar="FOLDER", help="where ratios.svg, rows.svg and scaling.svg go (the work folder)")
    p.add_argument("--csv", help="where the figures go (bench.csv in the work folder)")
    p.add_argument("--verso", help=argparse.SUPPRESS)
    p.add_argument("--guests", help=argparse.SUPPRESS)
    p.add_argument("--work", help=argparse.SUPPRESS)
    o = p.parse_args()
    o.kernel = os.path.join(o.guests, f"vmlinuz-{o.flavour}")
    o.csv = o.csv or os.path.join(o.work, "bench.csv")
    o.plots = o.plots or o.work
    o.series = o.series.split(",")
    if not set(o.series) <= {"ram", "processes", "code"}:
        p.error("--series: ram, processes, code")
    return o


def run_rows(bench):
    o = bench.o
    bench.run()
    shared = [r for r in hostshare.ROWS if matches(r, o.rows)]
    share = hostshare.measure(bench, shared, progress) if shared else None
    if share and o.cpu:
        bench.take_shares(share[1])
    report(bench, sys.stdout)
    if share:
        hostshare.report(*share, sys.stdout)
    write_csv(bench, o.csv)
    plot.ratios(os.path.join(o.plots, "ratios.svg"), list(bench.spans()))
    plot.rows(os.path.join(o.plots, "rows.svg"), [(r, vt, vn, *limits_of(r)) for r, _, _, _, vt, vn in bench.table() if vt or vn])
    print(f"\n{o.csv}, ratios.svg and rows.svg in {o.plots}")


def run_scaling(bench):
    o = bench.o
    series = scaling.Scaling(bench, progress, stopped_parts)
    series.run(o.series)
    series.report(sys.stdout, time_text)
    path = os.path.join(o.work, "scaling.csv")
    series.write_csv(path)
    plot.scaling(os.path.join(o.plots, "scaling.svg"), list(series.panels()))
    print(f"\n{path}, scaling.svg in {o.plots}")


def main():
    bench = Bench(parse())
    if bench.o.all or not bench.o.scaling:
        run_rows(bench)
        bench.notes = []
    if bench.o.all or bench.o.scaling:
        run_scaling(bench)
        for note in bench.notes:
            print(f"! {note}")
    return 1 if bench.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
