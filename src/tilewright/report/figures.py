"""The pictures of a report: each takes the evidence and gives a figure, or None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.design.trial import Trial, best_so_far
from tilewright.report.canvas import (
    BAD,
    FAINT,
    GOOD,
    INK,
    MAIN,
    OTHER,
    canvas,
    figure_of,
    note,
    percent,
    time_scale,
    titled,
)
from tilewright.report.evidence import Evidence
from tilewright.report.ladder import slowest_level
from tilewright.report.series import measured, median_error, pairs, spearman
from tilewright.report.tree import Node, tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# ------------------------------------------------------------------------------------------- best so far
def best_figure(evidence: Evidence) -> Figure | None:
    """Best-so-far time after each trial, beside a random search with as many trials."""
    curve = best_so_far(evidence.trials)
    if not any(map(math.isfinite, curve)):
        return None
    figure, axes = canvas()
    scale, unit = time_scale(curve[-1])
    drawn = evidence.random[: len(curve)]
    above = not drawn or curve[-1] > best_so_far(drawn)[-1]
    starts = [next(filter(math.isfinite, c), curve[-1]) for c in (curve, best_so_far(drawn)) if c]
    top = 1.6 * max(starts) / scale  # the curves are what is to be seen; slower trials stand at the edge
    _curve(axes, evidence.trials, scale, top, MAIN, evidence.strategy, above)
    if drawn:
        _curve(axes, drawn, scale, top, OTHER, "random", not above)
    _level(axes, evidence.topic.vendor_seconds, scale, top, evidence.topic.vendor)
    _level(axes, evidence.topic.roof_seconds, scale, top, "roofline")
    axes.set_yscale("log")
    axes.set_ylim(axes.get_ylim()[0], top * 1.04)
    _plain_ticks(axes, "y")
    axes.set_xlim(1, max(2, len(curve)) * 1.14)
    titled(axes, f"Best so far: {evidence.topic.title}", "trials", f"{unit} a call")
    return figure


def _curve(axes: Axes, trials: Sequence[Trial], scale: float, top: float, colour: str, name: str, above: bool) -> None:
    curve = [s / scale for s in best_so_far(trials)]
    known = [(n, s) for n, s in enumerate(curve, start=1) if math.isfinite(s)]
    if not known:
        return
    axes.step([n for n, _ in known], [s for _, s in known], where="post", color=colour, linewidth=2)
    every = [(n, t.outcome.seconds / scale) for n, t in enumerate(trials, start=1) if t.outcome.seconds is not None]
    axes.plot([n for n, _ in every], [min(s, top) for _, s in every], ".", color=colour, alpha=0.4, markersize=5)
    end = known[-1]
    note(axes, f" {name}", *end, color=colour, fontweight="bold", va="bottom" if above else "top")


def _level(axes: Axes, seconds: float | None, scale: float, top: float, name: str) -> None:
    """A dashed line across, its name beside the axes; of what lies above them the time, at their upper edge."""
    if seconds is None or not name:
        return
    place = seconds / scale
    if place > top:
        place, name = top, f"{name} {place:,.3g}"
    else:
        axes.axhline(place, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    note(axes, name, 1.01, place, transform=axes.get_yaxis_transform(), va="center", color=FAINT)


def _plain_ticks(axes: Axes, which: str) -> None:
    """Numbers as people write them on a logarithmic axis: 0.5, 20, not powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    short = high / max(low, 1e-30) < 300
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}" if v >= 1000 else f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------------------- predicted and measured
def predicted_figure(evidence: Evidence) -> Figure | None:
    """Predicted against measured time of every trial, on logarithmic axes; on the diagonal both agree."""
    values = [*pairs(evidence.trials), *pairs(evidence.random)]
    if len(values) < 2:
        return None
    figure, axes = canvas(5.6, 4.6)
    scale, unit = time_scale(min(m for _, m in values))
    for trials, colour, name in ((evidence.random, OTHER, "random"), (evidence.trials, MAIN, evidence.strategy)):
        dots = [(p / scale, m / scale) for p, m in pairs(trials)]
        if dots:
            axes.plot(
                [p for p, _ in dots], [m for _, m in dots], "o", color=colour, alpha=0.65, markersize=5, label=name
            )
    best = next((t for t in evidence.trials if t.design == evidence.winner and t.outcome.seconds), None)
    if best is not None and best.outcome.seconds is not None:
        axes.plot(best.predicted / scale, best.outcome.seconds / scale, "*", color=GOOD, markersize=14, label="winner")
    ends = [min(min(v) for v in values) / scale / 1.3, max(max(v) for v in values) / scale * 1.3]
    axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    for which in "xy":
        _plain_ticks(axes, which)
    text = f"{len(values)} designs\nrank correlation {spearman(values):.2f}\nmedian error {median_error(values):.0%}"
    note(axes, text, 0.03, 0.97, transform=axes.transAxes, va="top")
    axes.legend(loc="lower right", fontsize=8.5, frameon=False)
    titled(axes, "Predicted and measured", f"predicted, {unit}", f"measured, {unit}")
    return figure


# ---------------------------------------------------------------------------------------------- roofline
def roofline_figure(evidence: Evidence) -> Figure | None:
    """The roofline of the level of memory that bounds most, with the ladder's path below it."""
    topic, level = evidence.topic, slowest_level(evidence.ladder)
    found = [(n, r, r.traffic(level or "")) for n, r in enumerate(evidence.ladder) if r.seconds]
    points = [(n, topic.flops / t[0], topic.flops / r.seconds / 1e9) for n, r, t in found if t and r.seconds]
    if not topic.peak or not points:
        return None
    rate = max(t[1] for _, _, t in found if t)
    if level == "memory" and topic.stream:
        rate = topic.stream  # measured, where the model has what a data sheet says
    figure, axes = canvas(7.0, 4.4)
    ridge = topic.peak / rate
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    low, high = min([*xs, ridge, topic.intensity]) / 3, max([*xs, ridge, topic.intensity]) * 4
    axes.plot([low, ridge, high], [low * rate / 1e9, topic.peak / 1e9, topic.peak / 1e9], color=INK, linewidth=1.6)
    axes.axvline(topic.intensity, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(xs, ys, "-", color=MAIN, linewidth=1.2, alpha=0.6)
    axes.scatter(xs, ys, c=range(len(points)), cmap="viridis_r", s=42, zorder=3)
    for label, x, y in _labels(points):
        note(axes, f" {label}", x * 1.06, y, va="center", fontsize=8)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_ylim(min(ys) / 2.5, topic.peak / 1e9 * 2.5)
    for which in "xy":
        _plain_ticks(axes, which)
    note(axes, f"{topic.peak / 1e9:,.0f} GFLOP/s", high, topic.peak / 1e9 * 1.1, ha="right", va="bottom")
    note(axes, "every operand once ", topic.intensity, min(ys) / 2.2, color=FAINT, va="bottom", ha="right")
    titled(
        axes,
        f"Roofline of {level}, {rate / 1e9:,.0f} GB/s; the numbers are the ladder's rungs",
        f"operations for each byte from {level}",
        "GFLOP/s",
    )
    return figure


def _labels(points: Sequence[tuple[int, float, float]]) -> list[tuple[str, float, float]]:
    """Numbers of points with the place of each text; neighbours that would overlap share one, such as `4-7, 9`."""
    groups: list[list[tuple[int, float, float]]] = []
    for point in sorted(points, key=lambda p: -p[2]):
        near = next(
            (g for g in groups if abs(math.log(g[-1][1] / point[1])) < 0.2 and g[-1][2] < 1.35 * point[2]), None
        )
        if near is None:
            groups.append([point])
        else:
            near.append(point)
    return [(_runs([n for n, _, _ in g]), g[0][1], math.sqrt(g[0][2] * g[-1][2])) for g in groups]


def _runs(numbers: Sequence[int]) -> str:
    """`4-7, 9`."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)


# --------------------------------------------------------------------------------------- the design graph
def graph_figure(evidence: Evidence) -> Figure | None:
    """The explored designs, each under the one it was made from: colour is time, the text on an edge its mutation."""
    nodes = tree(evidence.trials, evidence.winner)
    times = [t.outcome.seconds for t in measured(evidence.trials) if t.outcome.seconds is not None]
    if not nodes or not times:
        return None
    figure, axes = canvas(8.6, 0.9 + 0.2 * len(nodes))
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    # A few very slow designs would leave one colour for all others.
    usual = sorted(times)[int(0.8 * (len(times) - 1))]
    colours = LogNorm(min(times), max(min(times) * 1.1, usual))
    cmap = colormaps["RdYlBu_r"]
    scale, unit = time_scale(min(times))
    for node in nodes:
        _edge(axes, nodes, node)
    for node in nodes:
        seconds = node.trial.outcome.seconds
        fill = "white" if seconds is None else cmap(colours(min(seconds, colours.vmax or seconds)))
        edge = BAD if seconds is None else INK if node.winning else FAINT
        best = node.trial.design == evidence.winner
        axes.plot(node.depth, node.row, "*" if best else "o", markersize=15 if best else 8, markerfacecolor=fill,
                  markeredgecolor=edge, markeredgewidth=1.2, zorder=3)  # fmt: skip
        axes.annotate(
            _label(node, scale, unit), (node.depth, node.row), (9, 0), textcoords="offset points", va="center",
            fontsize=7.8, fontweight="bold" if node.winning else "normal", color=INK if node.winning else "#4a5060",
        )  # fmt: skip
    axes.set_ylim(len(nodes) - 0.4, -0.6)
    axes.set_xlim(-0.3, max(n.depth for n in nodes) + 3.4)
    axes.axis("off")
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(colours, cmap), ax=axes, shrink=min(1.0, 8 / max(8, len(nodes))), aspect=14)
    bar.ax.minorticks_off()
    ticks = [colours.vmin or 0, math.sqrt((colours.vmin or 0) * (colours.vmax or 0)), colours.vmax or 0]
    bar.set_ticks(ticks, labels=[f"{t / scale:.3g}" for t in ticks[:2]] + [f"{ticks[2] / scale:.3g} or more"])
    bar.ax.tick_params(labelsize=8)
    bar.set_label(f"{unit} a call", fontsize=8.5)
    drawn = f"{len(nodes)} of {len({t.design for t in evidence.trials})} designs tried"
    titled(axes, f"Design graph: {drawn}; an edge is named by its mutation, at its lower end")
    return figure


def _edge(axes: Axes, nodes: Sequence[Node], node: Node) -> None:
    if node.parent is not None:
        above = nodes[node.parent]
        colour, width = (MAIN, 2.0) if node.winning else (FAINT, 0.8)
        xs, ys = [above.depth, above.depth, node.depth], [above.row, node.row, node.row]
        axes.plot(xs, ys, color=colour, linewidth=width, zorder=1, linestyle="-" if node.made else ":")


def _label(node: Node, scale: float, unit: str) -> str:
    outcome = node.trial.outcome
    time = f"{outcome.seconds / scale:.3g} {unit}" if outcome.seconds is not None else outcome.status
    more = f"  (+{node.hidden} slower)" if node.hidden else ""
    return f"{node.edge}:  {time}{more}"


# --------------------------------------------------------------------------------------------- the ladder
def ladder_figure(evidence: Evidence) -> Figure | None:
    """The rate of each rung, with its mutation, its gain over the rung before and its share of the vendor's rate."""
    topic = evidence.topic
    rungs = [(n, r) for n, r in enumerate(evidence.ladder) if r.seconds]
    if len(rungs) < 2:
        return None
    figure, axes = canvas(8.6, 1.1 + 0.36 * len(rungs))
    rates = [topic.rate(r.seconds or 1) for _, r in rungs]
    rows = range(len(rungs))
    axes.barh(rows, rates, color=[FAINT, *[MAIN] * (len(rungs) - 2), GOOD], height=0.62, alpha=0.85)
    before: float | None = None
    for row, ((_, rung), rate) in enumerate(zip(rungs, rates, strict=True)):
        gain = "" if before is None else f"  x{rate / before:.2f}" if rate < 10 * before else f"  x{rate / before:.0f}"
        share = topic.of_vendor(rung.seconds or 1)
        against = "" if share is None else f"  {percent(share)} of {topic.vendor}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
        note(axes, f"{figure_of(rate)}{gain}{against}", rate * 1.06, row, va="center", bbox=box)
        before = rate
    axes.set_yticks(list(rows), [f"{n}  {r.mutation}" for n, r in rungs])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 2, max(rates) * (60 if max(rates) > 30 * min(rates) else 6))
    _plain_ticks(axes, "x")
    axes.grid(False, axis="y")
    if topic.vendor_seconds:
        axes.axvline(topic.rate(topic.vendor_seconds), color=OTHER, linewidth=1.2, linestyle=(0, (4, 3)))
    titled(axes, f"The ladder: {topic.title}", topic.unit)
    return figure


FIGURES = {
    "ladder": ladder_figure,
    "best": best_figure,
    "predicted": predicted_figure,
    "roofline": roofline_figure,
    "graph": graph_figure,
}
"""Every picture by the stem of its file, in the order of the page."""
