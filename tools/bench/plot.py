"""Plots as SVG, written by hand: nothing to install, and the files are small and the same for the same figures."""
import html
import math

INK, GRID, GOOD, BAD, TARGET = "#222", "#ddd", "#2a7f62", "#c0503a", "#224"
COLOURS = ["#2a7f62", "#c0503a", "#3a6ea5", "#8a6d1a", "#7a4b94"]


def _head(width, height):
    return [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="11" fill="{INK}">', f'<rect width="{width}" height="{height}" fill="#fff"/>']


def _text(x, y, text, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(str(text))}</text>'


def _write(path, parts):
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(parts + ["</svg>\n"]))


def bars(path, title, rows, targets):
    """rows: (name, ratio); one bar each from 1 on a logarithmic axis, a tick at the row's target."""
    left, right, top, step = 130, 60, 40, 14
    low = math.floor(math.log10(min(min(r for _, r in rows), 0.1)))
    high = math.ceil(math.log10(max(max(r for _, r in rows), 2)) * 2) / 2
    width, height = 900, top + step * len(rows) + 24
    scale = (width - left - right) / (high - low)

    def x(value):
        return left + (math.log10(value) - low) * scale
    out = _head(width, height) + [_text(left, 16, title, extra=' font-size="13"')]
    for decade in range(low, math.ceil(high) + 1):
        for k in (1, 2, 5):
            v = k * 10.0 ** decade
            if low <= math.log10(v) <= high + 1e-9:
                colour = INK if v == 1 else GRID
                out.append(f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top - 8}" y2="{height - 20}" stroke="{colour}"/>')
                out.append(_text(x(v), height - 6, f"{v:g}", "middle"))
    for i, (name, value) in enumerate(rows):
        y = top + i * step
        a, b = sorted((x(value), x(1)))
        target = targets.get(name)
        good = value <= (target if target else 1)
        out.append(_text(left - 6, y + 8, name, "end"))
        out.append(f'<rect x="{a:.1f}" y="{y}" width="{max(b - a, 1):.1f}" height="{step - 4}" fill="{GOOD if good else BAD}"/>')
        if target:
            out.append(f'<line x1="{x(target):.1f}" x2="{x(target):.1f}" y1="{y - 2}" y2="{y + step - 2}" stroke="{TARGET}" '
                       'stroke-width="2"/>')
        out.append(_text(width - right + 6, y + 8, f"{value:.3g}"))
    _write(path, out)


def lines(path, title, x_name, y_name, series):
    """series: name -> [(x, y)]; linear axes from 0."""
    left, right, top, bottom, width, height = 70, 150, 36, 44, 640, 360
    points = [p for line in series.values() for p in line]
    x_max, y_max = max(p[0] for p in points) or 1, (max(p[1] for p in points) or 1) * 1.05

    def at(p):
        return (left + p[0] / x_max * (width - left - right), height - bottom - p[1] / y_max * (height - top - bottom))
    out = _head(width, height) + [_text(left, 18, title, extra=' font-size="13"')]
    for i in range(6):
        fx, y = at((x_max * i / 5, 0))
        _, fy = at((0, y_max * i / 5))
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{fy:.1f}" y2="{fy:.1f}" stroke="{GRID}"/>')
        out.append(_text(left - 6, fy + 4, f"{y_max * i / 5:.3g}", "end"))
        out.append(_text(fx, y + 16, f"{x_max * i / 5:.4g}", "middle"))
    out.append(_text((left + width - right) / 2, height - 8, x_name, "middle"))
    out.append(_text(12, top - 6, y_name))
    for i, (name, line) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path_text = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(at, line))
        out.append(f'<polyline points="{path_text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in map(at, line)]
        out.append(_text(width - right + 8, top + 16 + i * 16, name, extra=f' fill="{colour}"'))
    _write(path, out)
