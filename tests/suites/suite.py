#!/usr/bin/env python3
"""Judges what a guest printed while it ran a suite (guest-suite.sh), against the suite's own expectations.

  suite.py check SUITE DIR CONSOLE...        the same suite on one machine several times: every run must be as expected, and all equal
  suite.py table SUITE DIR NAME=CONSOLE...   one row for each program, one column for each machine

DIR is what make-suite.sh made. Exit status 1 where a program that is not in known-failures.tsv fails, or where one that is passes.
"""
import base64
import collections
import csv
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

# Parts of a selftest's output that two runs on the same machine need not agree on.
VOLATILE = [
    (rb"vDSO time offsets: [-0-9. ]+", b"vDSO time offsets: N"),  # microseconds between two clock readings
]

Run = collections.namedtuple("Run", "status output")
Verdict = collections.namedtuple("Verdict", "passed note skips checks")


def read_console(path):
    """The runs of a console, by program; an unfinished one has status None. Second: whether the suite came to its end."""
    runs, name, output = {}, None, b""
    with open(path, "rb") as f:
        for line in f.read().replace(b"\r", b"").decode("latin-1").split("\n"):
            if line.startswith("T: begin "):
                name, output = line.split()[2], b""
                runs[name] = Run(None, b"")
            elif line.startswith("B: ") and name:
                try:
                    output += base64.b64decode(line[3:])
                except ValueError:  # the console ends in the middle of the line
                    break
            elif line.startswith("T: end ") and name:
                runs[name], name = Run(line.split()[3], output), None
            elif line == "T: suite done":
                return runs, True
    return runs, False


def programs(directory):
    with open(os.path.join(directory, "suite.list")) as f:
        return [line.split("\t")[0] for line in f]


def known_failures(suite):
    """Reasons by (program, text): text is "" for the program as a whole, or what a skipped part says."""
    with open(os.path.join(HERE, "known-failures.tsv")) as f:
        rows = csv.reader((line for line in f if line.strip() and not line.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
        return {(row[1], row[2]): row[3] for row in rows if row[0] == suite}


def judge_valgrind(directory, name, run):
    """A program must print what one of its expected files says."""
    checks = run.output.count(b" ... ok\n")
    if run.status == "unmet":
        return Verdict(False, "not for this CPU", [], 0)
    folder = os.path.join(directory, "expected")
    expected = [e for e in sorted(os.listdir(folder)) if e.split(".stdout.exp")[0] == name]
    output = run.output
    filter_script = os.path.join(directory, "filter", name)
    if os.path.exists(filter_script):
        output = subprocess.run(["sh", filter_script], input=output, stdout=subprocess.PIPE, check=False).stdout
    for e in expected:
        with open(os.path.join(folder, e), "rb") as f:
            if f.read() == output:
                return Verdict(True, "equal", [], checks)
    return Verdict(False, "differs" if run.status == "0" else f"status {run.status}", [], checks)


def judge_selftests(directory, name, run):
    """A program must end with status 0 and report no failure; what it skips is listed."""
    text = run.output.decode("latin-1")
    bad = [line for line in text.split("\n") if line.startswith("[FAIL]")]
    skips = sorted({line.split("\t", 1)[-1].strip() for line in text.split("\n") if line.startswith("[SKIP]")})
    checks = text.count("[OK]")
    if run.status != "0" or bad:
        return Verdict(False, f"status {run.status}" + "".join("; " + b for b in bad[:3]), skips, checks)
    return Verdict(True, "pass", skips, checks)


JUDGES = {"valgrind": judge_valgrind, "selftests": judge_selftests, "vm86": judge_selftests}


def judge(suite, directory, runs):
    missing = Verdict(False, "did not end", [], 0)
    return {name: JUDGES[suite](directory, name, runs[name]) if name in runs and runs[name].status is not None else missing
            for name in programs(directory)}


def stable(output):
    for pattern, replacement in VOLATILE:
        output = re.sub(pattern, replacement, output)
    return output


def check(suite, directory, consoles):
    problems = []
    known = known_failures(suite)
    first = None
    for console in consoles:
        label = os.path.basename(console)
        runs, done = read_console(console)
        if not done:
            problems.append(f"{label}: the suite did not come to its end")
        verdicts = judge(suite, directory, runs)
        used = set()
        for name, v in verdicts.items():
            if not v.passed and (name, "") not in known:
                problems.append(f"{label}: {name}: {v.note}")
            elif not v.passed:
                used.add((name, ""))
            for skip in v.skips:
                if (name, skip) not in known:
                    problems.append(f"{label}: {name}: skipped, and not known for it: {skip}")
                used.add((name, skip))
        for name, text in known:
            if (name, text) not in used:
                problems.append(f"{label}: {name}: known failure did not happen{': ' + text if text else ''}")
        if first is None:
            first = runs
        else:
            for name in verdicts:
                a, b = first.get(name), runs.get(name)
                if a and b and (a.status, stable(a.output)) != (b.status, stable(b.output)):
                    problems.append(f"{label}: {name}: another output than in {os.path.basename(consoles[0])}")
        passed = sum(v.passed for v in verdicts.values())
        print(f"{label}: {passed} of {len(verdicts)} programs, {sum(v.checks for v in verdicts.values())} single checks")
    for p in problems:
        print(f"FAIL: {p}")
    return 1 if problems else 0


def table(suite, directory, columns):
    machines = {}
    for column in columns:
        name, console = column.split("=", 1)
        machines[name] = judge(suite, directory, read_console(console)[0])
    known = known_failures(suite)
    print(f"| {suite} | " + " | ".join(machines) + " | note |")
    print("|---|" + "---|" * len(machines) + "---|")
    for name in programs(directory):
        cells = [f"{m[name].note}" + (f", {m[name].checks} checks" if m[name].checks else "") + (f", {len(m[name].skips)} skipped" if m[name].skips else "")
                 for m in machines.values()]
        notes = "; ".join(dict.fromkeys(reason for (program, _), reason in known.items() if program == name))
        print(f"| {name} | " + " | ".join(cells) + f" | {notes} |")
    totals = [f"**{sum(v.passed for v in m.values())}** of {len(m)}, {sum(v.checks for v in m.values())} checks" for m in machines.values()]
    print("| total | " + " | ".join(totals) + " | |")
    return 0


def main(arguments):
    if len(arguments) < 4 or arguments[0] not in ("check", "table") or arguments[1] not in JUDGES:
        print(__doc__, file=sys.stderr)
        return 2
    return {"check": check, "table": table}[arguments[0]](arguments[1], arguments[2], arguments[3:])


sys.exit(main(sys.argv[1:]))
