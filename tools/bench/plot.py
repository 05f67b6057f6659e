"""Plots as SVG, written by hand: nothing to install, and the files are small and the same for the same figures."""
import html
import math

INK, MUTED, GRID, GOOD, BAD, TARGET, DOT = "#222", "#666", "#e2e2e2", "#2a7f62", "#c0503a", "#1a2a6c", "#9aa5a0"
ABOVE = "#c8a13a"  # above a target that judges the mean of several rows
COLOURS = {"verso": "#2a7f62", "verso, cold cache": "#7fb89f", "tcg": "#c0503a", "native": "#3a6ea5"}
NAMES = {"verso": "Verso", "verso, cold cache": "Verso, cold cache", "tcg": "TCG", "native": "native"}


class Picture:
    def __init__(self, width, height):
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
                      f'font-family="Helvetica, Arial, sans-serif" font-size="11" fill="{INK}">',
                      f'<rect width="{width}" height="{height}" fill="#fff"/>']

    def text(self, x, y, text, anchor="start", size=None, colour=None, bold=False, turn=False):
        more = (f' font-size="{size}"' if size else "") + (f' fill="{colour}"' if colour else "") + \
            (' font-weight="bold"' if bold else "") + (f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else "")
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(str(text))}</text>')

    def line(self, x1, y1, x2, y2, colour=GRID, width=1, dash=None):
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"{more}/>')

    def box(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>')

    def dot(self, x, y, radius, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>')

    def diamond(self, x, y, colour, r=5):
        self.parts.append(f'<path d="M{x:.1f} {y - r:.1f}l{r} {r}l-{r} {r}l-{r} -{r}z" fill="{colour}"/>')

    def curve(self, points, colour, width=2, dash=None):
        more = f' stroke-dasharray="{dash}"' if dash else ""
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{more}/>')

    def write(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(self.parts + ["</svg>\n"]))


class Axis:
    """A logarithmic axis from low to high, drawn from pixel a to pixel b."""

    def __init__(self, values, a, b, room=1.15):
        self.low, self.high, self.a, self.b = min(values) / room, max(values) * room, a, b

    def __call__(self, value):
        part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return self.a + min(part, 1) * (self.b - self.a)

    def ticks(self, most=7):
        for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
            found = [k * 10.0 ** d for d in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                     for k in steps if self.low <= k * 10.0 ** d <= self.high]
            if len(found) <= most:
                return found
        return found[::math.ceil(len(found) / most)]


def tick_text(v):
    if v >= 1e4:
        return f"{v / 1000:g}k"
    return f"{v:.4g}"


def _ratio_columns(p, columns, top, bottom):
    """columns: (title, axis); grid and labels of axes over one another's full height."""
    for title, axis in columns:
        p.text((axis.a + axis.b) / 2, top - 22, title, "middle", 12, bold=True)
        for v in axis.ticks():
            p.line(axis(v), top - 6, axis(v), bottom, MUTED if v == 1 else GRID)
            p.text(axis(v), top - 9, tick_text(v), "middle", colour=MUTED)
            p.text(axis(v), bottom + 13, tick_text(v), "middle", colour=MUTED)


def ratios(path, spans):
    """spans: (title, [(name, limit, value judged, ratios of the rows)]), name "TCG" or "native"."""
    spans = [(title, {name: (limit, value, all_) for name, limit, value, all_ in results}) for title, results in spans]
    spans = [s for s in spans if s[1]]
    if not spans:
        return
    left, top, step, width = 330, 86, 22, 920
    bottom = top + step * len(spans)

    def values(name):
        return [v for _, r in spans if name in r for v in (r[name][0], r[name][1], *r[name][2])] + [1]
    columns = {"TCG": Axis(values("TCG"), left, 654), "native": Axis(values("native"), 716, 872)}
    columns = {name: axis for name, axis in columns.items() if any(name in r for _, r in spans)}
    p = Picture(width, bottom + 24)
    p.text(8, 18, "Verso's time as a part of the other's: left is faster, 1 is equal", size=14, bold=True)
    x = 8
    for draw, text in (("dot", "one row"), ("mark", "what the target judges: geometric mean, or worst row"), ("miss", "the same, target missed"),
                       ("tick", "target")):
        if draw == "dot":
            p.dot(x + 4, 34, 2.5, DOT)
        elif draw == "tick":
            p.line(x + 4, 28, x + 4, 40, TARGET, 2.5)
        else:
            p.diamond(x + 5, 34, GOOD if draw == "mark" else BAD)
        p.text(x + 14, 38, text, colour=MUTED)
        x += 34 + 5.6 * len(text)
    for i in range(0, len(spans), 2):
        p.box(4, top + i * step, width - 8, step, "#f7f7f5")
    _ratio_columns(p, [(f"of {'QEMU TCG' if n == 'TCG' else 'the native build'}'s time", a) for n, a in columns.items()], top, bottom)
    for i, (title, results) in enumerate(spans):
        y = top + i * step + step / 2
        p.text(left - 10, y + 4, title if len(title) <= 58 else title[:56].rstrip(" ,") + "…", "end")
        for name, axis in columns.items():
            if name not in results:
                continue
            limit, value, rows_ = results[name]
            if len(rows_) > 1:
                p.line(axis(rows_[0]), y, axis(rows_[-1]), y, "#c9d2cd", 3)
                for v in rows_:
                    p.dot(axis(v), y, 2.5, DOT)
            p.line(axis(limit), y - 8, axis(limit), y + 8, TARGET, 2.5)
            colour = GOOD if value <= limit else BAD
            p.diamond(axis(value), y, colour)
            p.text(axis.b + 8, y + 4, f"{value:.2g}" if value < 1 else f"{value:.2f}", colour=colour)
    p.write(path)


def rows(path, table):
    """table: (name, of TCG's time or None, of native time or None, limit of the first, of the second, whether limits are the row's own
    and not those of a mean)."""
    if not table:
        return
    left, top, step, width = 132, 84, 14, 920
    bottom = top + step * len(table)
    # (title, index of the ratio, of its limit, pixels, what is drawn: the host's CPUID may be a thousand times slower than ours)
    axes = [("of QEMU TCG's time", 1, 3, left, 520, (0.001, 10)), ("of the native build's time", 2, 4, 620, 850, (0.3, 10))]
    p = Picture(width, bottom + 24)
    p.text(8, 18, "Every row: Verso's time as a part of the other's", size=14, bold=True)
    x = 8
    for colour, text in ((GOOD, "within the target"), (ABOVE, "above a target that judges the mean"), (BAD, "above the row's target"),
                         (DOT, "no target")):
        p.box(x, 30, 12, 9, colour)
        p.text(x + 17, 38, text, colour=MUTED)
        x += 38 + 5.6 * len(text)
    p.line(x, 28, x, 41, TARGET, 2)
    p.text(x + 6, 38, "target; bars begin at 1, left is faster", colour=MUTED)
    columns = []
    for title, value, limit, a, b, (low, high) in axes:
        v = [min(max(r[i], low), high) for r in table for i in (value, limit) if r[value] and r[i]]
        if v:
            columns.append((title, Axis(v + [1], a, b), value, limit))
    _ratio_columns(p, [(title, axis) for title, axis, _, _ in columns], top, bottom)
    for i, row in enumerate(table):
        y = top + i * step
        p.text(left - 8, y + 10, row[0], "end")
        for _, axis, value, limit in columns:
            v, most = row[value], row[limit]
            if not v:
                continue
            a, b = sorted((axis(v), axis(1)))
            colour = DOT if not most else GOOD if v <= most else BAD if row[5] else ABOVE
            p.box(a, y + 2, max(b - a, 1), step - 4, colour)
            if most:
                p.line(axis(most), y, axis(most), y + step, TARGET, 2)
            p.text(axis.b + 8, y + 10, f"{v:.3g}" if v > 0.001 else "< 0.001", colour=MUTED if colour == DOT else colour)
    p.write(path)


def scaling(path, panels):
    """panels: (title, x name, y name, {machine: [(x, y)]}); logarithmic axes, dotted lines of linear growth."""
    if not panels:
        return
    columns, cell_w, cell_h, top = 3, 306, 232, 56
    p = Picture(columns * cell_w, top + cell_h * math.ceil(len(panels) / columns))
    p.text(8, 18, "Cost against the size of the work, logarithmic: dotted is linear growth, steeper would be worse", size=14, bold=True)
    x = 8
    for machine in [m for m in COLOURS if any(m in lines for *_, lines in panels)]:
        p.line(x, 36, x + 18, 36, COLOURS[machine], 2.5)
        p.text(x + 23, 40, NAMES[machine])
        x += 44 + 6.2 * len(NAMES[machine])
    p.line(x, 36, x + 18, 36, MUTED, 1.2, "2 3")
    p.text(x + 23, 40, "linear, from Verso's first point")
    for i, panel in enumerate(panels):
        _panel(p, i % columns * cell_w, top + i // columns * cell_h, cell_w, cell_h, *panel)
    p.write(path)


def _panel(p, x0, y0, width, height, title, x_name, y_name, lines):
    a, b, top, bottom = x0 + 52, x0 + width - 14, y0 + 26, y0 + height - 44
    points = [pt for line in lines.values() for pt in line]
    xs = sorted({x for x, _ in points})
    own = next(iter(lines.values()))
    ys = [y for _, y in points]
    middle = math.sqrt(min(ys) * max(ys))
    if max(ys) / min(ys) < 30:  # no magnifying glass for noise
        ys += [middle / 5.5, middle * 5.5]
    x_axis, y_axis = Axis(xs, a, b, 1.12), Axis(ys, bottom, top, 1.3)
    p.text(x0 + 8, y0 + 14, title, size=12, bold=True)
    for v in y_axis.ticks(5):
        p.line(a, y_axis(v), b, y_axis(v))
        p.text(a - 5, y_axis(v) + 4, tick_text(v), "end", colour=MUTED)
    labelled = width + 20
    for v in reversed(xs):
        p.line(x_axis(v), top, x_axis(v), bottom)
        if x_axis(v) - x0 < labelled - 14 - 3.5 * len(str(v)):
            labelled = x_axis(v) - x0 - 3.5 * len(str(v))
            p.text(x_axis(v), bottom + 14, v, "middle", colour=MUTED)
    p.text((a + b) / 2, bottom + 29, x_name, "middle")
    p.text(x0 + 12, (top + bottom) / 2, y_name, "middle", turn=True)
    # Linear growth, as far as the panel reaches.
    end = min(own[-1][0], own[0][0] * y_axis.high / own[0][1])
    p.curve([(x_axis(own[0][0]), y_axis(own[0][1])), (x_axis(end), y_axis(own[0][1] * end / own[0][0]))], MUTED, 1.2, "2 3")
    for machine, line in reversed(list(lines.items())):
        at = [(x_axis(x), y_axis(y)) for x, y in line]
        p.curve(at, COLOURS[machine])
        for x, y in at:
            p.dot(x, y, 3, COLOURS[machine])
