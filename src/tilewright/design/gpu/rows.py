"""Designs of rows: nests without dots, whose lanes lie along what has stride one. Default and draws by one description.

Each choice lists its options with the best guess first, by closed forms over sizes and machine: the default design
takes the first of each, a draw any.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tilewright.design.default_rows import unit_axes
from tilewright.design.design import Choice, Design
from tilewright.design.early import early_loads
from tilewright.design.gpu.row_rules import Rows, held
from tilewright.design.gpu.shape import VECTOR, Shape, power
from tilewright.design.gpu.words import streamed
from tilewright.design.hold import held_rows
from tilewright.design.pick import Pick
from tilewright.design.twins import twins
from tilewright.language import ir, structure

T = TypeVar("T")
Decisions = dict[str, Choice]

MOST_THREADS = 1024
_REGISTERS = 1 << 16
"""Registers of an SM."""
_SHORT = 16
"""Accesses of a row so short that a warp, each thread with one of them, reads neighbouring rows at once."""
_SMALL = 128
"""Threads of a block that shares one of few rows: where each has one access, a cluster of such is the quickest."""
_ROUNDS = 1024
"""Accesses of a block that holds a row for rounds: four for each of 256 threads leave room for what these do."""
_BLOCKS = 4
"""Blocks on an SM that share sums over rows: all that there are should be at work at once, and as many on each SM."""
_TURNS = 4
"""Turns of an inner loop that a thread makes at once where SMs are left without a token."""
_MOST_SHARED = 128
"""Values of a thread where positions meet what it has loaded at once, each of them all of it."""
_LONG = 1 << 16
"""Bytes of a row from which on one block has too few bytes in flight for it."""


def default_rows(s: Shape) -> Design:
    """The first option of every choice."""
    return draw_rows(s, _first)


def draw_rows(s: Shape, pick: Pick) -> Design:
    """A design of a nest of rows, legal or not."""
    along, decisions = _described(s, pick)
    words = streamed(s, decisions)
    spoken = pick("words", (True, False)) if words else False
    if spoken:
        decisions |= words
    return Design.of(decisions | s.widths({*s.whole, *(a.name for a in along)}))


def _first(what: str, options: Sequence[T], /) -> T:
    return options[0]


def _described(s: Shape, pick: Pick) -> tuple[list[ir.Axis], Decisions]:
    """The axes that rows lie along, and all decisions but the widths of accesses."""
    unit = unit_axes(s.kernel, s.facts)
    across = [a for a in s.parallel if unit.get(a.name)]
    rows = {a.over for a in s.serial if unit.get(a.name)}
    walked = [a for a in s.serial if a.over in rows]  # all walks over such a row, also one that reads it by strides
    if walked and max(unit.get(a.name, 0) for a in walked) >= max((unit[a.name] for a in across), default=0):
        return walked, _Walked(s, walked).described(pick)
    if s.serial and not s.whole:
        return across, _columns(s, across, pick)
    across = [] if s.whole else sorted(across, key=lambda a: -unit[a.name])[:1]  # a thread's tile lies along one axis
    return across, _flat(s, across, pick)


# ------------------------------------------------------------------------------------- loops that walk over rows
@dataclass(frozen=True)
class _Walked:
    """A nest whose serial loops walk over rows, once or several times."""

    s: Shape
    along: list[ir.Axis]

    @property
    def length(self) -> int:
        """Elements of a row."""
        return max(self.s.size(a) for a in self.along)

    @property
    def rows(self) -> int:
        """Rows of all blocks."""
        return self.s.count

    @property
    def fixed(self) -> bool:
        """Whether rows have a length that is part of the kernel."""
        return all(a.over in self.s.facts.fixed and self.s.facts.sizes.get(a.over, 0) > 0 for a in self.along)

    @property
    def few(self) -> bool:
        """Whether SMs are left without a row."""
        return self.rows <= self.s.facts.machine.cores

    def described(self, pick: Pick) -> Decisions:
        """Threads of a row, rows of a block, what stays in registers, and who shares a row."""
        s, blocks = self.s, pick("split", self._blocks())
        accesses = pick("accesses", _around(self._accesses, 1, 8))
        share = -(-self.length // blocks)
        stays = self.fixed and share <= MOST_THREADS * s.run * 4
        lanes = max(1, min(MOST_THREADS if stays else 256, power(-(-share // (s.run * accesses)))))
        usual = 256 if self._tiny else 64 if self._short else 128
        best = (usual, *(n for n in (128, 256, 64, 32) if n != usual))
        threads = max(lanes, pick("threads", best) if lanes < 128 else lanes)
        found: Decisions = {"warps": threads // 32}
        found |= {f"tile.{a.name}": min(power(s.size(a)), lanes * s.run) for a in self.along}
        rest, spare = [a for a in (*s.serial, *s.parallel) if a not in self.along], threads // lanes
        for axis in rest:
            found[f"tile.{axis.name}"] = tile = min(power(s.size(axis)), spare * self._shared(axis, pick))
            spare = max(1, spare // tile)
        found["lanes"] = (*s.whole, *(a.name for a in self.along), *(a.name for a in rest))
        if blocks > 1:
            found |= {f"split.{a.name}": blocks for a in self.along}
        return found | self._stays(pick, found)

    @property
    def long(self) -> bool:
        """Whether one block has too few bytes in flight for a row."""
        return self.length * VECTOR // self.s.run >= _LONG

    @property
    def rounds(self) -> bool:
        """Whether rounds read a row again and again."""
        return self.fixed and bool(held_rows(self.s.kernel))

    @property
    def _accesses(self) -> int:
        """Accesses of a thread to a row: one where it waits for nothing else, many where rows hide behind rows."""
        blocks = self._blocks()[0]
        if self.rounds:
            crowded = self.rows * blocks > self.s.facts.machine.cores
            return 8 if crowded and self.length > _ROUNDS * self.s.run * blocks else 4
        if self.long:
            return 8 if not self.few else 4 if self.length > MOST_THREADS * self.s.run * blocks else 1
        return 1 if self.few else 2 if self._short else 1 if self._tiny else 4

    def _shared(self, axis: ir.Axis, pick: Pick) -> int:
        """Points of a parallel axis for each thread: many where all of them want the same of a row, few where not."""
        along = {a.name for a in self.along}
        rows = [let.type.axes for let, _ in structure.loads(self.s.kernel) if along & set(let.type.axes)]
        if axis not in self.s.parallel:
            return 1
        if any(axis.name in axes for axes in rows):
            return pick("rows", (2, 1, 4)) if self._short else 1
        most = max(1, _MOST_SHARED // self.s.run)
        return pick("shared", _around(most, 1, most))

    def _blocks(self) -> tuple[int, ...]:
        """Blocks of a cluster that share a row: several where rows are long and few, or are to be done at once."""
        most = int(dict(self.s.facts.machine.limits).get("max_cluster_blocks", 1))
        if most == 1 or not self.s.sums_only(self.along):
            return (1,)
        held = _ROUNDS if self.rounds else 4 * MOST_THREADS  # accesses of a block
        best = min(most, power(-(-self.length // (held * self.s.run))))
        if self.long and self.few and not self.rounds:
            best = most
        elif self.long and not self.few:
            best = min(most, power(-(-self.length // (8 * _SMALL * self.s.run))))
        elif self.few:
            small = min(most, power(-(-self.length // (_SMALL * self.s.run))))
            best = small if small >= 4 and small * self.rows <= 2 * self.s.facts.machine.cores else best
        return _around(best, 1, most)

    def _stays(self, pick: Pick, walk: Decisions) -> Decisions:
        """What stays in registers, what is loaded before it is needed, and whether blocks stay."""
        found: Decisions = {}
        keep = {f"keep.{name}": True for name, t in twins(self.s.kernel).items() if not t.is_computed}
        early = {f"early.{name}": True for name in early_loads(self.s.kernel)}
        if keep and self._fits(walk | keep) and pick("keep", (True, False)):
            found |= keep
        hold = {f"hold.{name}": True for name in held_rows(self.s.kernel)}
        if hold and self._fits(walk | found | hold) and pick("hold", (True, False)):
            found |= hold
            if Design.of(walk).number("warps") <= 8 and pick("resident", (True, False)):
                found["resident"] = 2  # one block computes while the other one's parts are on their way
        soon = self.few or (self._short and not self._tiny) or self._odd
        if early and self._fits(walk | found | early) and pick("early", (soon, not soon)):
            found |= early
        if not self.few and pick("persistent", (False, True)):
            found["persistent"] = True
        return found

    @property
    def _tiny(self) -> bool:
        """Whether a row is so short that a warp reads several at once."""
        return self.length <= _SHORT * self.s.run

    @property
    def _short(self) -> bool:
        """Whether rows are short and want the same vectors: then a thread takes two rows, and a vector serves both."""
        return self.length <= _SMALL * self.s.run and not self.few and bool(early_loads(self.s.kernel))

    @property
    def _odd(self) -> bool:
        """Whether rows begin anywhere: accesses are narrow and many, and one more way to memory is not hidden."""
        along = {a.name for a in self.along}
        rows = {ref.buffer for let, ref in structure.loads(self.s.kernel) if along & set(let.type.axes)}
        return not rows <= self.s.facts.aligned

    def _fits(self, decisions: Decisions) -> bool:
        """Whether what stays takes no more than a third of a thread's registers."""
        design = Design.of(decisions)
        room = min(255, _REGISTERS // (32 * design.number("warps")))
        return self.fixed and held(Rows(self.s.kernel, design, self.s.facts)) <= room // 3


# ------------------------------------------------------------------------------ sums over rows, column by column
def _columns(s: Shape, along: list[ir.Axis], pick: Pick) -> Decisions:
    """Lanes on columns side by side, other threads on rows; blocks of a cluster share the rows."""
    machine, columns = s.facts.machine, math.prod(s.size(a) for a in along)
    most = int(dict(machine.limits).get("max_cluster_blocks", 1))
    split = pick("split", _around(most, 1, most)) if s.sums_only(s.serial) else 1
    even = power(columns * split // (s.run * _BLOCKS * machine.cores)) if split > 1 else 8
    lanes = pick("lanes", _around(min(32, max(8, even)), 8, 32))
    warps, deep = pick("warps", (8, 16, 4) if split > 1 else (16, 8, 4)), pick("accesses", (4, 2, 1))
    lanes = min(lanes, power(-(-columns // s.run)))
    found: Decisions = {"warps": warps}
    for axis in along:
        found[f"tile.{axis.name}"] = min(power(s.size(axis)), lanes * s.run)
    for axis in s.serial:
        found[f"tile.{axis.name}"] = min(power(s.size(axis)), 32 * warps // lanes * deep)
        if split > 1:
            found[f"split.{axis.name}"] = split
    rest = [a for a in s.parallel if a not in along]
    found |= {f"tile.{a.name}": 1 for a in rest}
    found["lanes"] = (*(a.name for a in along), *(a.name for a in (*s.serial, *rest)))
    return found


# ----------------------------------------------------------------------------------- element by element, and heads
def _flat(s: Shape, along: list[ir.Axis], pick: Pick) -> Decisions:
    """A piece of a row, or some whole rows, for each block: nothing passes from one thread to another."""
    length = max([s.size(a) for a in along] + [s.facts.sizes.get(d, 1) for d in s.whole], default=1)
    threads = pick("threads", _around(128, 64, 512))
    lanes = max(1, min(threads, power(-(-length // s.run))))
    rows, points = {*s.whole, *(a.name for a in along)}, s.count if along else s.count * length
    inputs = sum(bool(rows & set(let.type.axes)) for let, _ in structure.loads(s.kernel))
    many = points > 8 * s.facts.machine.cores * s.run * threads  # where one input has too little in flight for a thread
    accesses = pick("accesses", _around(2 if many and inputs == 1 else 1, 1, 8))
    found: Decisions = {"warps": max(1, threads // 32)}
    for axis in along:
        found[f"tile.{axis.name}"] = min(power(s.size(axis)), lanes * s.run * accesses)
    spare, rest = threads // lanes, [a for a in (*s.serial, *s.parallel) if a not in along]
    few = s.count <= s.facts.machine.cores  # then each turn of an inner loop is a wait that nothing else fills
    deep = 1 if along else max(accesses, _TURNS if few else 1)
    for axis in rest:
        inner = axis in s.serial
        free = spare * deep if inner or not s.serial else 1
        found[f"tile.{axis.name}"] = tile = min(power(s.size(axis)), free)
        if not inner:
            spare, deep = max(1, spare // tile), 1
    found["lanes"] = (*s.whole, *(a.name for a in along), *(a.name for a in rest))
    return found


def _around(best: int, low: int, high: int) -> tuple[int, ...]:
    """Powers of two near `best`, itself first."""
    near = (best, 2 * best, best // 2, 4 * best, best // 4)
    return tuple(dict.fromkeys(n for n in near if low <= n <= high)) or (best,)


def fixed_dims(kernel: ir.Kernel) -> tuple[str, ...]:
    """Dims of a program of rows whose size is best a part of the kernel: how long rows are, not how many.

    They are what tiles lie along, but for the first dimension of any tensor, which counts rows, tokens or entries.
    """
    loops = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop)]
    if any(isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot) for s in ir.walk(kernel.body)):
        return ()
    counted = counted_dims(kernel)
    return _unique(a.over for s in loops for a in s.axes if not a.each and a.over not in counted)


def inner_dims(kernel: ir.Kernel) -> tuple[str, ...]:
    """Dims that an inner loop of a nest goes through at every step of an outer one: how long a page is.

    They are best a part of the kernel, which divides and multiplies by them.
    """
    serial = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) and not s.parallel]
    inside = [s for loop in serial for s in ir.walk(loop.body) if isinstance(s, ir.Loop)]
    return _unique(a.over for s in inside for a in s.axes if a.over in kernel.dims)


def counted_dims(kernel: ir.Kernel) -> tuple[str, ...]:
    """The first dimension of every tensor that has several: how many rows, tokens or entries there are."""
    return _unique(str(p.dims[0]) for p in kernel.params if p.dims is not None and len(p.dims) > 1)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


__all__ = ["counted_dims", "default_rows", "draw_rows", "fixed_dims", "inner_dims"]
