"""The charts of a simulation, drawn: lines, bars, and timelines, on one HTML page with its numbers."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from tilewright.report.canvas import FAINT, INK, canvas, duration, png, titled
from tilewright.simulate.simulation import Chart, Simulation

COLOURS = (
    "#2563c9", "#e07b1f", "#2b8a5b", "#c23b3b", "#7b4fb5", "#7a8194", "#b8860b", "#1f9aa8", "#9bbcf0", "#f0b98a",
    "#93ccb0", "#e8a5a5",
)  # fmt: skip

_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px system-ui;color:#1f2430;max-width:60rem;margin:2rem auto}}td{{padding:.15rem .8rem .15rem 0}}
img{{max-width:100%}}</style>
<h1>{title}</h1><p>{summary}</p>{images}<table>{rows}</table><ul>{assumed}</ul>
"""


def write_page(told: Simulation, path: Path) -> None:
    """One HTML file that holds the charts and numbers of a simulation, written in one piece."""
    sizes = " ".join(f"{d}={n}" for d, n in told.sizes)
    title = html.escape(f"{told.program} {sizes} on {told.machine}")
    used = "" if told.utilisation is None else f", {told.utilisation:.2%} of the peak"
    images = "".join(f'<p><img alt="{html.escape(c.title)}" src="{_embedded(c)}"></p>' for c in told.charts)
    rows = [*((p.name, f"{p.seconds / told.seconds:.1%}") for p in told.parts)]
    rows += [(name, f"{value} {unit}") for name, value, unit in told.numbers]
    table = "".join(f"<tr><td>{html.escape(n)}</td><td>{html.escape(str(v))}</td></tr>" for n, v in rows)
    said = [*(f"published: {text}" for text in told.facts), *(f"assumed: {text}" for text in told.assumptions)]
    assumed = "".join(f"<li>{html.escape(text)}</li>" for text in said)
    page = _PAGE.format(title=title, summary=duration(told.seconds) + used, images=images, rows=table, assumed=assumed)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(page, encoding="utf-8")
    fresh.replace(path)


def _embedded(chart: Chart) -> str:
    return "data:image/png;base64," + base64.b64encode(drawn(chart)).decode()


def drawn(chart: Chart) -> bytes:
    """A chart as a small PNG. MissingPackage without matplotlib."""
    rows = len(dict.fromkeys(s.row for s in chart.spans))
    figure, axes = canvas(7.0, max(3.2, (0.28 if rows <= 20 else 0.2) * rows + 1.2))
    titled(axes, chart.title, chart.x, chart.y)
    {"line": _lines, "bar": _bars, "stacked": _bars, "timeline": _timeline}[chart.kind](axes, chart)
    if chart.log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if chart.log_y:
        axes.set_yscale("log")
    if len(chart.series) > 1 or len({s.group for s in chart.spans if s.group}) > 1:
        within = chart.kind == "line" and len(chart.series) <= 4
        beside = {} if within else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        axes.legend(fontsize=8, frameon=False, labelcolor=INK, **beside)
    return png(figure)


def _lines(axes: Any, chart: Chart) -> None:
    for n, series in enumerate(chart.series):
        colour = COLOURS[n % len(COLOURS)]
        axes.plot(series.x, series.y, color=colour, linewidth=1.8, marker="o", markersize=3, label=series.name)
    if not chart.log_y:
        axes.set_ylim(bottom=0)


def _bars(axes: Any, chart: Chart) -> None:
    names = list(dict.fromkeys(x for series in chart.series for x in series.x))
    beside = chart.kind == "bar"
    width = 0.8 / max(1, len(chart.series)) if beside else 0.6
    height = dict.fromkeys(names, 0.0)
    for n, series in enumerate(chart.series):
        at = [names.index(x) + (n - (len(chart.series) - 1) / 2) * width * beside for x in series.x]
        bottom = 0 if beside else [height[x] for x in series.x]
        label = series.name if any(series.y) else None  # bars of no height need no word
        axes.bar(at, series.y, width, bottom=bottom, color=COLOURS[n % len(COLOURS)], label=label)
        for x, y in zip(series.x, series.y, strict=True):
            height[x] += y
    crowded = sum(len(str(n)) for n in names) > 70
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(range(len(names)), [str(n) for n in names], fontsize=8, **turned)
    axes.set_xlim(-0.8, max(1, len(names)) - 0.2)


def _timeline(axes: Any, chart: Chart) -> None:
    """Bars in rows; however short one is, it is seen, and only long ones have an edge to tell them from the next."""
    rows = list(dict.fromkeys(s.row for s in chart.spans))
    groups = list(dict.fromkeys(s.group for s in chart.spans))
    whole = max((s.start + s.length for s in chart.spans), default=1.0)
    for n, group in enumerate(groups):
        for row in rows:
            spans = [s for s in chart.spans if s.row == row and s.group == group and s.length > 0]
            bars = [(s.start, max(s.length, whole / 500)) for s in spans]
            edge = 0.4 if all(s.length > whole / 100 for s in spans) else 0.0
            label = group if row == next(s.row for s in chart.spans if s.group == group) else None
            axes.broken_barh(
                bars, (rows.index(row) - 0.4, 0.8), facecolors=COLOURS[n % len(COLOURS)], edgecolor="white",
                linewidth=edge, label=label,
            )  # fmt: skip
    axes.set_yticks(range(len(rows)), rows, fontsize=8 if len(rows) <= 20 else 6.5, color=FAINT)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, whole * 1.02)
