"""A way through the design graph from one design to another, in steps that each are legal and mostly pay.

Every step gives one decision the value that it has at the goal, or a few that belong together: lanes with the tiles
across them, all decisions of one kind, and any others only where nothing smaller is legal. Which decisions there are
is read off the two designs, so the way exists on any machine and for any program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.legality import legal
from tilewright.language import ir, structure

WIDTH = 6
"""Partial ways kept at each length."""

_WORSE, _IDLE, _JOINT, _GAIN = 4.0, 0.1, 0.04, 0.02
"""What a way pays: for each factor e lost, for a step that gains less than `_GAIN`, for each decision in company."""


@dataclass(frozen=True)
class Step:
    """A design on the way, the decisions that changed to reach it (None: dropped), and what the model predicts."""

    design: Design
    changes: tuple[tuple[str, Choice | None], ...]
    predicted: float


def naive_design(kernel: ir.Kernel) -> Design:
    """One output at a time, scalar, nothing blocked, packed or unrolled: what a first loop nest would do."""
    tiled = [a.name for a in structure.axes(kernel).values() if not a.each]
    return Design.of({**{f"tile.{a}": 1 for a in tiled}, "lanes": ()})


def find_path(
    kernel: ir.Kernel, facts: Facts, start: Design, goal: Design, model: Callable[[Design], float]
) -> list[Step]:
    """Steps from `start` (the first, without changes) to `goal`, by a beam search that shuns steps back.

    `model` predicts seconds. Both ends must be legal; the way then always exists, in one step if need be.
    """
    ways: list[tuple[float, tuple[Step, ...]]] = [(0.0, (Step(start, (), model(start)),))]
    done: list[tuple[float, tuple[Step, ...]]] = []
    while ways:
        longer: dict[Design, tuple[float, tuple[Step, ...]]] = {}
        for cost, way in ways:
            if way[-1].design == goal:
                done.append((cost, way))
                continue
            for step in _steps(kernel, facts, way[-1].design, goal, model):
                found = (cost + _cost(way[-1], step), (*way, step))
                if step.design not in longer or found[0] < longer[step.design][0]:
                    longer[step.design] = found
        ways = sorted(longer.values(), key=lambda w: (w[0], w[1][-1].predicted, w[1][-1].design.to_json()))[:WIDTH]
    return list(min(done, key=lambda w: w[0])[1])


def _cost(before: Step, after: Step) -> float:
    lost = math.log(after.predicted / before.predicted)
    return _WORSE * max(0.0, lost) + (_IDLE if lost > -_GAIN else 0.0) + _JOINT * (len(after.changes) - 1)


def _steps(
    kernel: ir.Kernel, facts: Facts, design: Design, goal: Design, model: Callable[[Design], float]
) -> Iterator[Step]:
    """Legal steps towards the goal: single decisions and companies; of larger sets the smallest that are legal."""
    there, here = dict(goal.decisions), dict(design.decisions)
    open_ = [n for n in sorted({*there, *here}) if there.get(n) != here.get(n)]
    tried = list(dict.fromkeys([*((n,) for n in open_), *_companies(open_, there)]))
    found = [s for names in tried if (s := _step(kernel, facts, here, there, names, model)) is not None]
    for size in range(2, len(open_) + 1):
        if found:
            break
        found = [s for c in combinations(open_, size) if (s := _step(kernel, facts, here, there, c, model)) is not None]
    yield from found


def _companies(names: list[str], goal: dict[str, Choice]) -> Iterator[tuple[str, ...]]:
    """Decisions that belong together: lanes and the tiles across them; all of one kind; blocks and their order."""
    lanes = goal.get("lanes")
    if "lanes" in names and isinstance(lanes, tuple):
        yield from (("lanes", f"tile.{a}") for a in lanes if f"tile.{a}" in names)
        yield tuple(n for n in names if n == "lanes" or n.removeprefix("tile.") in lanes)
    kinds = {n: n.partition(".")[0] for n in names}
    for kind in dict.fromkeys(kinds.values()):
        yield tuple(n for n in names if kinds[n] == kind)
    yield tuple(n for n in names if kinds[n] in ("block", "order", "inner"))
    yield tuple(n for n in names if kinds[n] in ("pack", "local", "unpack"))
    yield tuple(n for n in names if kinds[n] in ("atom", "pack", "local", "unpack"))


def _step(
    kernel: ir.Kernel,
    facts: Facts,
    here: dict[str, Choice],
    there: dict[str, Choice],
    names: tuple[str, ...],
    model: Callable[[Design], float],
) -> Step | None:
    """The step that takes over `names`; None for no name, or where its design is illegal."""
    changes = tuple((n, there.get(n)) for n in names)
    changed = {**here, **dict(changes)}
    design = Design.of({n: c for n, c in changed.items() if c is not None})
    if not names or legal(kernel, design, facts):
        return None
    return Step(design, changes, model(design))
