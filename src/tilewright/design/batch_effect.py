"""What horizontal batching does: launches, intensity, occupancy and time of several kernels, and of the one after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.language import ir, structure


@dataclass(frozen=True)
class Side:
    """One side of a comparison: launches, bytes that move at least once, flop/B, cores that have tiles, seconds.

    `occupancy` is the share of the cores' time that has tiles to work on, where each core takes as many as the most
    loaded one; `measured` is None where nothing was measured.
    """

    launches: int
    flops: float
    bytes: int
    occupancy: float
    estimated: float
    measured: float | None = None

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Effect:
    """What batching does: so many kernels before, one after."""

    before: Side
    after: Side

    def __str__(self) -> str:
        rows = [
            ("launches", str(self.before.launches), str(self.after.launches)),
            ("intensity, flop/B", f"{self.before.intensity:.3g}", f"{self.after.intensity:.3g}"),
            ("occupancy", f"{self.before.occupancy:.0%}", f"{self.after.occupancy:.0%}"),
            ("estimated, us", f"{1e6 * self.before.estimated:.3g}", f"{1e6 * self.after.estimated:.3g}"),
        ]
        if self.before.measured is not None and self.after.measured is not None:
            rows.append(("measured, us", f"{1e6 * self.before.measured:.3g}", f"{1e6 * self.after.measured:.3g}"))
        return "\n".join(f"{name:<18} {one:>8} -> {other:>8}" for name, one, other in rows)


@dataclass(frozen=True)
class Launched:
    """A kernel with its facts and its design (the default, where it is None)."""

    kernel: ir.Kernel
    facts: Facts
    design: Design | None = None

    @property
    def chosen(self) -> Design:
        """The design that it runs by."""
        return self.design or default_design(self.kernel, self.facts)


class Work(Protocol):
    """How much a program has to do at given sizes."""

    @property
    def flops(self) -> float:
        """Floating-point operations."""

    @property
    def bytes(self) -> int:
        """Bytes that move at least once."""


def effect(
    before: Sequence[Launched],
    after: Launched,
    model: Callable[[ir.Kernel, Design, Facts], float],
    work: Callable[[ir.Kernel, Mapping[str, int]], Work],
    measure: Callable[[Launched], float] | None = None,
) -> Effect:
    """What it does to run `after` in place of all of `before`.

    `model` estimates the seconds of a kernel; `work` counts its floating-point operations and the bytes it moves at
    least once; `measure`, where given, takes the seconds of one launch.
    """
    return Effect(_side(before, model, work, measure), _side([after], model, work, measure))


def _side(
    launched: Sequence[Launched],
    model: Callable[[ir.Kernel, Design, Facts], float],
    work: Callable[[ir.Kernel, Mapping[str, int]], Work],
    measure: Callable[[Launched], float] | None,
) -> Side:
    counts = [work(x.kernel, x.facts.sizes) for x in launched]
    seconds = [model(x.kernel, x.chosen, x.facts) for x in launched]
    measured = None if measure is None else sum(map(measure, launched))
    flops, moved = sum(w.flops for w in counts), sum(w.bytes for w in counts)
    shares = [occupancy(x.kernel, x.chosen, x.facts) for x in launched]
    busy = sum(s * share for s, share in zip(seconds, shares, strict=True)) / sum(seconds)
    return Side(len(launched), flops, moved, busy, sum(seconds), measured)


def occupancy(kernel: ir.Kernel, design: Design, facts: Facts) -> float:
    """The share of the cores that has tiles to work on, over the whole of a launch: 1 where all are equally loaded."""
    cores = min(facts.team, design.number("threads", facts.team))
    tiles = _tiles(kernel, design, facts)
    rounds = [math.ceil(n / cores) * cores for n in tiles]
    return sum(tiles) / sum(rounds) * cores / facts.machine.cores if sum(rounds) else 0.0


def _tiles(kernel: ir.Kernel, design: Design, facts: Facts) -> list[int]:
    """Tiles, or blocks of them, that each parallel loop deals out."""
    counts = []
    for nest in structure.nests(kernel):
        if nest.loop.parallel:
            counts.append(math.prod(_pieces(kernel, a, design, facts) for a in nest.loop.axes))
    return counts


def _pieces(kernel: ir.Kernel, axis: ir.Axis, design: Design, facts: Facts) -> int:
    size = facts.size(kernel, axis)
    if axis.each:
        return size
    tile = design.number(f"tile.{axis.name}", 1)
    return -(-size // design.number(f"block.{axis.name}", tile))


__all__ = ["Effect", "Launched", "Side", "effect", "occupancy"]
