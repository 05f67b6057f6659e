"""How costs grow with guest RAM, the number of guest processes, and the code that is executed.

Figures are a row's best batch, and processor time of the machine's process where something happens once: boots, first passes. A series holds the cost of all the work that grows with it (a round of the ring, a pass over the code), so that linear is a line.
"""
import csv
import math
import statistics

RAM = [128, 256, 512, 1024, 2048, 3072]
PROCESSES = [4, 20, 60, 125, 250, 500]
CODE = [1, 10, 25, 50, 75, 100]
PAGES_PER_MIB = 256
RAM_ROWS = "os.fork_exit,mem.chase_4m,scale.half"
# Name, title, what it grows with, unit of the figures.
SERIES = [
    ("ram.boot", "boot to /init, warm cache", "guest RAM, MiB", "ns"),
    ("ram.fork_exit", "fork and exit of a process", "guest RAM, MiB", "ns"),
    ("ram.chase", "1,024 dependent loads in 4 MiB", "guest RAM, MiB", "ns"),
    ("ram.memory", "memory beside guest RAM, at /init", "guest RAM, MiB", "MiB"),
    ("ram.fill", "first touch of half the RAM", "guest RAM, MiB", "ns"),
    ("ram.half", "a store to a random page of that half", "guest RAM, MiB", "ns"),
    ("processes.round", "a token once round all processes", "processes", "ns"),
    ("code.first", "executing all the code once", "code, MiB", "ns"),
    ("code.pass", "executing it all again", "code, MiB", "ns"),
]
MIN_MS = 1000  # a round of 500 processes takes a while to warm up
LINEAR = 1.1  # exponents up to here are taken for linear: the rest is the noise of a measurement
COLD = "verso, cold cache"


class Scaling:
    def __init__(self, bench, progress, stopped_parts):
        self.bench, self.progress, self.stopped_parts = bench, progress, stopped_parts
        self.samples = {}  # (series, machine, size) -> figures

    def add(self, series, machine, size, value):
        if value:
            self.samples.setdefault((series, machine, size), []).append(value)

    def points(self, series, machine):
        return [(size, statistics.median(v)) for (s, m, size), v in sorted(self.samples.items()) if (s, m) == (series, machine)]

    def machines(self, series):
        return [m for m in ("verso", COLD, "tcg", "native") if self.points(series, m)]

    def note(self, console):
        self.bench.notes += console.notes
        return console

    def peers(self, verso, tcg, native=None):
        """(machine, console) of one round."""
        without = self.bench.o.without
        yield "verso", self.note(verso())
        if "tcg" not in without:
            yield "tcg", self.note(tcg())
        if native and "native" not in without:
            yield "native", self.note(native())

    # -- Series

    def ram(self):
        b, ms = self.bench, max(self.bench.o.ms, MIN_MS)
        for mib in RAM:
            self.progress(f"{mib} MiB of RAM")
            found = {}
            self.note(b.verso("none", "ms=0", "scale.db", memory=mib))
            self.note(b.verso(RAM_ROWS, "ms=20", "scale.db", lambda pid: found.update(verso=self.stopped_parts(pid)), memory=mib))
            if "tcg" not in b.o.without:
                self.note(b.tcg("none", "ms=0", lambda pid: found.update(tcg=self.stopped_parts(pid)), memory=mib, extra=(
                    "-object", f"memory-backend-memfd,id=ram,size={mib}M", "-machine", "memory-backend=ram")))
            for machine, parts in found.items():
                parts.pop("guest RAM", 0)
                self.add("ram.memory", machine, mib, sum(parts.values()) / 1024)
            for _ in range(b.o.rounds):
                for machine, c in self.peers(lambda: b.verso(RAM_ROWS, f"ms={ms}", "scale.db", memory=mib),
                                             lambda: b.tcg(RAM_ROWS, f"ms={ms}", memory=mib)):
                    self.add("ram.boot", machine, mib, (c.up_cpu or 0) * 1e9)
                    for series, row in (("ram.fork_exit", "os.fork_exit"), ("ram.chase", "mem.chase_4m"), ("ram.half", "scale.half")):
                        self.add(series, machine, mib, c.rows.get(row))
                    self.add("ram.fill", machine, mib, c.first.get("scale.half"))

    def processes(self):
        self.rounds("scale.ring_*")
        self.collect("scale.ring_", PROCESSES, lambda c, row, n: [("processes.round", c.rows[row] * n)])

    def code(self):
        self.bench.remove_cache("code.db")
        self.progress("code, cold cache")
        cold = self.note(self.bench.verso("scale.code_*", "ms=1", "code.db"))
        for mib in CODE:
            self.add("code.first", COLD, mib, cold.first.get(f"scale.code_{mib}"))
        self.rounds("scale.code_*", "code.db")
        self.collect("scale.code_", CODE, lambda c, row, mib: [
            ("code.first", c.first[row] if c.who != "native" else None), ("code.pass", c.rows[row] * mib * PAGES_PER_MIB)])

    def rounds(self, rows, cache="scale.db"):
        b, ms = self.bench, max(self.bench.o.ms, MIN_MS)
        self.consoles = []
        if cache == "scale.db":
            self.note(b.verso(rows, "ms=20", cache))
        for i in range(b.o.rounds):
            self.progress(f"{rows}, round {i + 1}")
            self.consoles += self.peers(lambda: b.verso(rows, f"ms={ms}", cache), lambda: b.tcg(rows, f"ms={ms}"), lambda: b.native(rows, ms))

    def collect(self, prefix, sizes, figures):
        for machine, c in self.consoles:
            for size in sizes:
                if prefix + str(size) in c.rows:
                    for series, value in figures(c, prefix + str(size), size):
                        self.add(series, machine, size, value)

    def run(self, names):
        cpu, self.bench.o.cpu = self.bench.o.cpu, False  # preparations would count
        for name in names:
            getattr(self, name)()
        self.bench.o.cpu = cpu

    # -- Results

    def growth(self):
        """(title, against, sizes, factor and exponent of Verso, TCG and native, ratios to TCG)"""
        for series, title, against, _ in SERIES:
            for machine in self.machines(series):
                if machine not in ("verso", COLD):
                    continue
                own, peer = self.points(series, machine), dict(self.points(series, "tcg"))
                if len(own) < 2:
                    continue
                both = [(x, y / peer[x]) for x, y in own if x in peer]
                name = title + (", cold cache" if machine == COLD else "")
                yield name, against, own[0][0], own[-1][0], [grown(own)] + [grown(self.points(series, m)) for m in ("tcg", "native")], both

    def report(self, out, text):
        print("\n| cost | against | Verso grows by | TCG | native | of TCG's time, first to last |\n|---|---|---|---|---|---|", file=out)
        for name, against, low, high, growths, both in self.growth():
            cells = ["-" if g is None else f"{g[0]:.3g} (power {g[1]:.2f})" for g in growths]
            if growths[0][1] > LINEAR:
                cells[0] += " **faster than linear**"
            print(f"| {name} | {against}: {low} to {high} | " + " | ".join(cells) + " | " +
                  (f"{both[0][1]:.2g} to {both[-1][1]:.2g}" if both else "-") + " |", file=out)
        for series, title, against, unit in SERIES:
            for machine in self.machines(series):
                print(f"{series:16} {machine:18} " + "  ".join(
                    f"{x}: {text(y) if unit == 'ns' else f'{y:.3g} {unit}'}" for x, y in self.points(series, machine)), file=out)

    def write_csv(self, path):
        with open(path, "w", newline="", encoding="utf-8") as f:
            w = csv.writer(f)
            w.writerow(["series", "machine", "size", "unit", "median", "min", "max", "rounds"])
            for (series, machine, size), v in self.samples.items():
                unit = next(u for s, _, _, u in SERIES if s == series)
                w.writerow([series, machine, size, unit, f"{statistics.median(v):.2f}", f"{min(v):.2f}", f"{max(v):.2f}", len(v)])

    def panels(self):
        """(title, x name, y name, {machine: points}): relative to TCG's first point, memory in MiB."""
        for series, title, against, unit in SERIES:
            lines = {m: self.points(series, m) for m in self.machines(series)}
            base = next((lines[m][0][1] for m in ("tcg", "verso") if m in lines), None)
            if base is None:
                continue
            if unit == "ns":
                lines = {m: [(x, y / base) for x, y in line] for m, line in lines.items()}
            yield title, against, "TCG's first = 1" if unit == "ns" else unit, lines


def grown(points):
    """By what factor, and by what power of the size; None without two points."""
    if len(points) < 2:
        return None
    factor = points[-1][1] / points[0][1]
    return factor, math.log(factor) / math.log(points[-1][0] / points[0][0])
