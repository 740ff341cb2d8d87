"""The picture of a served trace: time per token while kernels are learned, with each swap marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.bench.record import newest
from tilewright.bench.serve_learn import FAMILY
from tilewright.errors import ArgumentError
from tilewright.report.canvas import BAD, FAINT, MAIN, OTHER, canvas, note, png, titled
from tilewright.report.evidence import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = 8
"""Points of a pass: each is the mean of an eighth of its requests, beside the generic time of the same ones."""


@dataclass(frozen=True)
class Point:
    """The mean over some requests in a row: when the last was answered, microseconds a token, and generic ones."""

    at: float
    us: float
    generic_us: float


def write_served(root: Path) -> list[Path]:
    """Write docs/figures/served-MACHINE.png for each machine with a served trace; ArgumentError where there is none."""
    written = []
    for _, record in newest(root / "benchmarks" / "results", "serve"):
        for result in (r for r in record["results"] if r.family == FAMILY and not r.error):
            place = root / "docs" / "figures" / f"served-{record['machine']['architecture']}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, png(served_figure(result.raw)))
            written.append(place)
    if not written:
        raise ArgumentError("no results file holds a served trace; run `tilewright bench serve --only learn --save`")
    return written


def points(raw: dict[str, Any]) -> list[Point]:
    """The passes while something was learned, in blocks of requests; times count from when learning began."""
    learning = raw["learning"]
    tokens = learning["tokens"]
    generic = [min(us) for us in zip(*(p["us"] for side in raw["generic"] for p in side["passes"]), strict=True)]
    step, found = max(len(tokens) // BLOCKS, 1), list[Point]()
    for one in learning["learning"]:
        at, pace = one["began"] - learning["began"], (one["ended"] - one["began"]) / sum(one["us"])
        for start in range(0, len(tokens), step):
            block = slice(start, start + step)
            count, us = sum(tokens[block]), sum(one["us"][block])
            at += us * pace
            found.append(Point(at, us / count, sum(generic[block]) / count))
    return found


def swaps(raw: dict[str, Any]) -> list[tuple[float, str]]:
    """When a kernel was swapped in, counted from when learning began, and for what."""
    began = raw["learning"]["began"]
    return [(e["at"] - began, _short(e["shape"])) for e in raw["learning"]["events"] if e["kind"] == "promote"]


def _short(shape: str) -> str:
    """`gate_up 257-1024` for `gate_up batch=257-1024 bf16 cpu`."""
    name, _, rest = shape.partition(" ")
    ranges = [part.partition("=")[2] for part in rest.split() if "=" in part]
    return " ".join((name, *ranges))


def served_figure(raw: dict[str, Any]) -> Figure:
    """Time per token over the trace, generic and while learning, with a line for each swap."""
    seen, marks = points(raw), swaps(raw)
    figure, axes = canvas(9.0, 4.2)
    at = [p.at for p in seen]
    axes.step(at, [p.generic_us for p in seen], where="pre", color=OTHER, linewidth=1.0, label="generic kernels")
    axes.step(at, [p.us for p in seen], where="pre", color=MAIN, linewidth=1.4, label="while it learns")
    top = 1.25 * max(max(p.us, p.generic_us) for p in seen)
    axes.set_ylim(0, top)
    _mark(axes, marks, top)
    axes.legend(loc="lower left", frameon=False, fontsize=9)
    titled(axes, "A served trace: each swap of a kernel is a line", "seconds since learning began", "us a token")
    return figure


def _mark(axes: Any, marks: Sequence[tuple[float, str]], top: float) -> None:
    for at, name in marks:
        axes.axvline(at, color=BAD, linewidth=0.9, linestyle="--")
        note(axes, name, at, 0.985 * top, rotation=90, va="top", ha="right", fontsize=7.5, color=FAINT)


__all__ = ["Point", "points", "served_figure", "swaps", "write_served"]
