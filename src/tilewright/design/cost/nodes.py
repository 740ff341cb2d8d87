"""A schedule at its sizes: a tree of single loops with trip counts, and what moves inside each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from tilewright.design.cost.patch import Patch, patch
from tilewright.design.cost.schedule import Access, Loop, Phase, Work
from tilewright.design.cost.tiling import Tiling

Moving = Mapping[str, float]
"""Points that each axis covers."""


@dataclass
class Leaf:
    """Work, and the points of each axis that it covers."""

    work: Work
    moving: Moving
    turn: int = 0  # which of the serial loops of a tile it belongs to: they run one after the other

    @property
    def accesses(self) -> tuple[Access, ...]:
        """What it touches."""
        return self.work.accesses

    @cached_property
    def patches(self) -> dict[Access, Patch]:
        """Where it touches it."""
        return {a: patch(a, self.moving) for a in self.work.accesses}

    @property
    def turns(self) -> dict[str, int]:
        """The turn in which each buffer is touched."""
        return {a.buffer: self.turn for a in self.work.accesses}


@dataclass
class Node:
    """`trips` times (on average) the children, in order; each trip covers a part of one axis."""

    axis: str
    trips: float
    moving: Moving  # before the axis is cut
    children: list[Node | Leaf] = field(default_factory=list)
    loop: Loop | None = None  # on the innermost level of a loop
    turn: int = 0

    @cached_property
    def accesses(self) -> tuple[Access, ...]:
        """What all of it touches."""
        return tuple(dict.fromkeys(a for c in self.children for a in c.accesses))

    @cached_property
    def patches(self) -> dict[Access, Patch]:
        """Where the whole loop touches it."""
        return {a: patch(a, self.moving) for a in self.accesses}

    @cached_property
    def turns(self) -> dict[str, int]:
        """The turn in which each buffer is touched first."""
        found: dict[str, int] = {}
        for child in self.children:
            for buffer, turn in child.turns.items():
                found[buffer] = min(turn, found.get(buffer, turn))
        return found

    def walk(self) -> Iterator[Node | Leaf]:
        """Itself and all inside, outer first."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()
            else:
                yield child


@dataclass(frozen=True)
class Share:
    """What the busiest thread does of a phase: the loops of an average thread, and how much more it has of them."""

    root: Node
    threads: int
    excess: float  # tiles of the busiest thread over those of the average one


def count(size: int, steps: tuple[int, ...]) -> int:
    """Steps of the last kind that cover `size` points, where each step of one kind is cut by the next.

    count(10, (4, 3)) == 5: two blocks of 4 take two steps each, and a block of 2 takes one.
    """
    if size <= 0:
        return 0
    step, rest = steps[0], steps[1:]
    if not rest:
        return -(-size // step)
    whole, left = divmod(size, step)
    return whole * count(step, rest) + (count(left, rest) if left else 0)


def share(phase: Phase, tiling: Tiling, threads: int) -> Share:
    """The tree of a phase on `threads` threads; tiles are dealt in equal runs, the last axis fastest."""
    moving: dict[str, float] = {a: float(tiling.size(a)) for a in tiling.program.axes}
    moving |= {d: float(tiling.points[d]) for d in tiling.program.whole}
    counts = [count(tiling.size(v.axis), (v.step,)) for v in phase.loop.levels]
    total = 1
    for n in counts:
        total *= n
    team = max(1, min(threads, total)) if phase.parallel else 1
    split: dict[str, float] = {}
    left = float(team)
    for level, n in zip(phase.loop.levels, counts, strict=True):
        if left > 1 and n > 0:
            split[level.axis] = min(left, float(n))
            left /= split[level.axis]
    moving |= {axis: moving[axis] / parts for axis, parts in split.items()}
    root = _node(phase.loop, 0, moving, {}, tiling, split)
    return Share(root, team, -(-total // team) * team / total if total else 1.0)


def _node(
    loop: Loop,
    at: int,
    moving: Moving,
    steps: dict[str, tuple[int, ...]],
    tiling: Tiling,
    split: Mapping[str, float],
    turn: int = 0,
) -> Node:
    level = loop.levels[at]
    size, before = tiling.size(level.axis), steps.get(level.axis, ())
    over = tiling.program.axes[level.axis].over
    if not before and over in tiling.program.axes:  # a range of another axis: one of its tiles
        size = tiling.points[over]
    outer = count(size, before) if before else 1
    trips = count(size, (*before, level.step)) / max(1, outer)
    if level.axis in split:
        trips /= split[level.axis]
    inside = {**moving, level.axis: min(float(level.step), moving[level.axis])}
    deeper = {**steps, level.axis: (*before, level.step)}
    last = at == len(loop.levels) - 1
    node = Node(level.axis, trips, moving, loop=loop if last else None, turn=turn)
    if not last:
        rest = {a: n for a, n in split.items() if a != level.axis}
        node.children.append(_node(loop, at + 1, inside, deeper, tiling, rest, turn))
        return node
    for child, when in zip(loop.body, _turns(loop, turn), strict=True):
        node.children.append(
            _node(child, 0, inside, deeper, tiling, {}, when) if isinstance(child, Loop) else Leaf(child, inside, when)
        )
    return node


def _turns(loop: Loop, turn: int) -> list[int]:
    """The turn of each part of a body: a serial loop after another one begins the next."""
    turns, serial = list[int](), 0
    for child in loop.body:
        is_serial = isinstance(child, Loop) and child.serial
        turns.append(turn + max(0, serial - (not is_serial)))
        serial += is_serial
    return turns
