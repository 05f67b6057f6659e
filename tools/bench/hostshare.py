"""The host's part of operations that are made of host faults and system calls, and what they would take where those are cheap.

A row is run twice with the same number of units, once without the operations themselves; what counters and processor time differ by is
the operations' own, giving back what they took included. Boots differ by some hundred counts, so there are many units.
"""
import statistics

ROWS = ["os.page_fault", "os.cow_fault", "os.mprotect_pair"]
UNITS = 102400
# What is counted; the row of the host's own program that says what one costs here; what it costs on bare metal, microseconds
# (a protection call is taken for a mapping call). Filling page tables in a mapping call counts as first touches.
COSTS = [
    ("host faults", "host.sigsegv", 1.3),
    ("mapping calls", "host.mmap", 0.7),
    ("protection calls", "host.mprotect", 0.7),
    ("first touches", "host.touch", 0.3),
]
HEAD = ["operation", "machine"] + [name for name, *_ in COSTS] + [
    "us here", "host's by unit costs", "by system time", "us on bare metal by unit costs", "by system time", "of TCG's here", "on bare metal"]


def counts(console):
    c = getattr(console, "stats", {}).get("counters", {})
    return [c.get("host_faults", 0), c.get("mmaps", 0), c.get("mprotects", 0), console.usage.ru_minflt]


class Share:
    """One row on one machine, per operation: microseconds of processor time, of system time, counts."""

    def __init__(self, row, machine, pairs):
        def median(of):
            return statistics.median((of(full) - of(empty)) / UNITS for full, empty in pairs)
        self.row, self.machine = row, machine
        self.us = median(lambda c: c.used[row]) / 1e3
        self.system = max(0.0, median(lambda c: c.usage.ru_stime) * 1e6)
        self.counts = [max(0.0, median(lambda c, i=i: counts(c)[i])) for i in range(len(COSTS))]

    def at(self, costs):
        return sum(n * cost for n, cost in zip(self.counts, costs))

    def bare(self, here):
        """On bare metal: by what the operations cost here, by the time that the host's kernel took."""
        bare = self.at([bare for *_, bare in COSTS])
        if self.machine == "tcg":
            return self.us, self.us  # has none of them
        return self.us - self.at(here) + bare, max(0.0, self.us - self.system) + bare


def unit_costs(console):
    """Microseconds of each of COSTS here. The row host.mmap fills its page, which counts as a touch."""
    us = [console.rows.get(row, 0) / 1e3 for _, row, _ in COSTS]
    return [us[0], max(0.0, us[1] - us[3]), us[2], us[3]]


def measure(bench, rows, progress):
    """(what the host's operations cost here in us, shares)"""
    progress("the host's operations")
    native = bench.native("host.*", 200)
    bench.notes += native.notes
    shares = []
    for row in rows:
        for machine, run in (("verso", lambda row, how: bench.verso(row, how, "bench.db")), ("tcg", bench.tcg)):
            if machine in bench.o.without:
                continue
            pairs = []
            for i in range(bench.o.rounds):
                progress(f"host's share, round {i + 1}: {row}, {machine}")
                pair = [run(row, f"{how}={UNITS}") for how in ("units", "empty")]
                bench.notes += pair[0].notes + pair[1].notes
                if all(row in c.used for c in pair):
                    pairs.append(pair)
            if pairs:
                shares.append(Share(row, machine, pairs))
    return unit_costs(native), shares


def report(here, shares, out):
    def prices(values):
        return ", ".join(f"{us:.2g} us for {name}" for (name, *_), us in zip(COSTS, values))
    print(f"\nThe host's share, per operation. Each here: {prices(here)}. On bare metal: {prices([b for *_, b in COSTS])}.\n", file=out)
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), file=out)
    for s in shares:
        peer = next((p for p in shares if p.row == s.row and p.machine == "tcg" and s is not p), None)
        by_cost, by_time = s.bare(here)
        cells = [s.row, s.machine] + [f"{n:.2f}" for n in s.counts] + [
            f"{us:.1f}" for us in (s.us, s.at(here) if s.machine == "verso" else 0, s.system, by_cost, by_time)]
        cells += [f"{s.us / peer.us:.2f}", f"{by_cost / peer.us:.2f}, {by_time / peer.us:.2f}"] if peer else ["", ""]
        print("| " + " | ".join(cells) + " |", file=out)
