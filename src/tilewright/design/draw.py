"""Whole designs drawn at once: decisions that belong together, from sensible grids, by the structure of each nest.

A draw asks `pick(what, options)` for every choice, so that one description serves random draws and enumeration.
Like the default design it tells nests apart by what they contain, never by the operator's name: products, streams of
dots, and rows. What it draws may be illegal; `space` drops that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import TypeVar

from tilewright.design.atoms import ATOMS, PAIRED, TILED
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.mutations import ACCUMULATORS
from tilewright.design.panels import TILE_BYTES, WORDS
from tilewright.design.pick import Pick
from tilewright.design.twins import twins
from tilewright.language import ir, structure

T = TypeVar("T")
Decisions = dict[str, Choice]


def draw(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A design of all nests of a program."""
    if facts.machine.kind == "systolic":
        from tilewright.design.systolic.design import draw_systolic

        return draw_systolic(kernel, facts, pick)
    if facts.machine.kind == "dataflow":
        from tilewright.design.dataflow.design import draw_dataflow

        return draw_dataflow(kernel, facts, pick)
    if facts.machine.kind == "nvidia":
        from tilewright.design.gpu.design import draw_gpu

        return draw_gpu(kernel, facts, pick)
    decisions: Decisions = {}
    lanes: list[str] = []
    for nest in structure.nests(kernel):
        plan = _Plan(kernel, nest, facts)
        chosen, across = (_product if plan.is_product else _stream if nest.dots else _row)(plan, pick)
        decisions |= chosen
        lanes += [a for a in across if a not in lanes]
    return Design.of({**decisions, **({"lanes": tuple(lanes)} if lanes else {})})


@dataclass(frozen=True)
class _Plan:
    """A nest and what draws ask of it."""

    kernel: ir.Kernel
    nest: structure.Nest
    facts: Facts

    @cached_property
    def parallel(self) -> tuple[str, ...]:
        """Tiled axes of the nest, as written."""
        return tuple(a.name for a in self.nest.loop.axes if not a.each)

    @cached_property
    def serial(self) -> tuple[str, ...]:
        """Tiled axes of the loops inside."""
        loops = [s for s in ir.walk(self.nest.loop.body) if isinstance(s, ir.Loop)]
        return tuple(dict.fromkeys(a.name for loop in loops for a in loop.axes if not a.each))

    @cached_property
    def is_product(self) -> bool:
        """Whether every dot sums over the only serial loop, between tiles of two parallel axes."""
        main = self.nest.main
        if not self.nest.dots or main is None or len(self.parallel) != 2 or not self.nest.loop.parallel:
            return False
        return all(isinstance(d.expr, ir.Dot) and d.expr.axis == main.axes[0].name for d in self.nest.dots)

    @cached_property
    def operands(self) -> dict[str, tuple[str, ...]]:
        """Tensors that dots read, with the axes of the tiles read."""
        values = structure.lets(self.kernel)
        names = [n for d in self.nest.dots if isinstance(d.expr, ir.Dot) for n in (d.expr.a, d.expr.b)]
        loads = [(values[n].type.axes, values[n].expr) for n in names]
        return {e.ref.buffer: axes for axes, e in loads if isinstance(e, ir.Load)}

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """Dims that values of the program lie along as a whole."""
        used = {a for let in structure.lets(self.kernel).values() for a in let.type.axes}
        return tuple(d for d in self.kernel.dims if d in used and d not in structure.axes(self.kernel))

    @cached_property
    def bits(self) -> int:
        """Bits of an element of the widest operand of dots."""
        return max((self.kernel.param(t).dtype.bits for t in self.operands), default=32)

    @cached_property
    def element(self) -> str:
        """The element type of all operands of dots; empty where they differ, or are not loaded."""
        kinds = {self.kernel.param(t).dtype.name for t in self.operands}
        return kinds.pop() if len(kinds) == 1 else ""

    @property
    def tiled(self) -> str | None:
        """The instruction that multiplies such operands in tile registers."""
        return next((atom for atom, element in TILED.items() if element == self.element), None)

    @cached_property
    def unit(self) -> frozenset[str]:
        """Axes along which some access of the nest has stride one."""
        refs = [s.expr.ref for s in self._inside(ir.Let) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
        refs += [s.ref for s in self._inside(ir.Store) if isinstance(s, ir.Store)]
        found = (ref.index[d] for ref in refs for d in self.facts.unit.get(ref.buffer, ()) if d < len(ref.index))
        return frozenset(i for i in found if isinstance(i, str))

    def _inside(self, kind: type) -> list[ir.Stmt]:
        return [s for s in ir.walk(self.nest.loop.body) if isinstance(s, kind)]

    def size(self, axis: str) -> int:
        """How long an axis is."""
        known = structure.axes(self.kernel)
        return self.facts.size(self.kernel, known[axis]) if axis in known else self.facts.sizes[axis]

    def written(self) -> tuple[str, ...]:
        """Tensors that the nest writes."""
        return tuple(dict.fromkeys(s.ref.buffer for s in self._inside(ir.Store) if isinstance(s, ir.Store)))

    def loads(self) -> tuple[ir.Let, ...]:
        """Loads of the nest."""
        return tuple(s for s in self._inside(ir.Let) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load))


def upto(size: int, options: Sequence[int]) -> list[int]:
    """The options that are no larger than what covers `size`; at least the smallest."""
    return [n for n in options if n < 2 * size] or [min(options)]


# ------------------------------------------------------------------------------------------ products
def _product(p: _Plan, pick: Pick) -> tuple[Decisions, list[str]]:
    """Rows by columns, summed over a serial axis."""
    style = pick("style", _styles(p))
    if style.startswith("inner"):
        return _inner_product(p, style == "inner-pairs", pick)
    return _outer_product(p, style, pick)


def _styles(p: _Plan) -> list[str]:
    """Instructions that multiply, with the lanes along the sum (inner) or along the result."""
    has, styles = p.facts.machine.has, ["outer", "inner"]
    if p.element == "bf16" and has("avx512bf16"):
        styles += ["pairs", "inner-pairs"]
    if p.element == "i8" and has("avx512vnni"):
        styles += ["inner-pairs"]
    return ["tiles", *styles] if p.tiled is not None and has(str(ATOMS[p.tiled])) else styles


def _depth(p: _Plan) -> str:
    assert p.nest.main is not None
    return p.nest.main.axes[0].name


def _inner_product(p: _Plan, pairs: bool, pick: Pick) -> tuple[Decisions, list[str]]:
    m, n = p.parallel
    k, lanes = _depth(p), p.facts.lanes
    room = max(1, p.facts.registers // len(p.nest.dots))
    rows = pick("tile.m", upto(p.size(m), (1, 2, 3, 4, 6, 8)))
    columns = pick("tile.n", upto(p.size(n), [c for c in (1, 2, 3, 4, 6, 8) if c * rows <= room] or [1]))
    chosen: Decisions = {f"tile.{m}": rows, f"tile.{n}": columns}
    vectors = pick("tile.k", (2, 4, 8) if pairs else (1, 2, 4, 8))
    chosen[f"tile.{k}"] = vectors * lanes
    chosen |= _split(k, vectors // 2 if pairs else vectors, pick)
    chosen |= _unrolled(k, pick("unroll", (1, 2, 4)))
    chosen |= _nonempty("order", pick("order", [(), (n, m)]))
    chosen |= _parted(p, k, vectors * lanes, pick)
    if pairs:
        paired = next(atom for atom, element in PAIRED.items() if element == p.element)
        chosen |= {f"atom.{d.name}": paired for d in p.nest.dots}
    return chosen, [k, n] if columns & (columns - 1) == 0 else [k]


def _outer_product(p: _Plan, style: str, pick: Pick) -> tuple[Decisions, list[str]]:
    m, n = p.parallel
    k, lane = _depth(p), pick("lane", (n, m))
    row = m if lane == n else n
    tile_row, tile_lane, step = _register_tile(p, style, row, lane, pick)
    chosen: Decisions = {f"tile.{row}": tile_row, f"tile.{lane}": tile_lane, f"tile.{k}": step}
    chosen |= _unrolled(k, 1 if style == "tiles" else pick("unroll", (4, 1, 2, 8)))
    blocked = pick("blocked", (True, False))
    if blocked:
        chosen |= _blocks(p, {row: tile_row, lane: tile_lane}, k, pick)
    chosen |= _packs(p, style, lane, blocked, pick)
    chosen |= _nonempty("order", pick("order", [(), (n, m)]))
    if style != "outer":
        chosen |= {f"atom.{d.name}": str(p.tiled) if style == "tiles" else "bf16x2" for d in p.nest.dots}
    return chosen, [lane]


def _register_tile(p: _Plan, style: str, row: str, lane: str, pick: Pick) -> tuple[int, int, int]:
    """(rows, elements across lanes, steps of the sum) whose accumulators fit the registers."""
    lanes, count = p.facts.lanes, len(p.nest.dots)
    if style == "tiles":
        rows, columns = pick(
            "tile",
            [(r, c) for r, c in ((2, 2), (1, 2), (2, 1), (1, 1), (1, 3), (3, 1), (1, 4), (4, 1)) if r * c * count <= 6],
        )
        return 16 * rows, 16 * columns, 8 * TILE_BYTES // p.bits
    vectors = pick("vectors", upto(-(-p.size(lane) // lanes), (3, 2, 4, 1)))
    most = max(1, (p.facts.registers - vectors - 1) // (vectors * count))
    rows = pick(
        "rows", upto(p.size(row), sorted({most, most * 3 // 4, most // 2, most // 4} - {0}, reverse=True) or [1])
    )
    return rows, vectors * lanes, 2 if style == "pairs" else 1


def _blocks(p: _Plan, tiles: dict[str, int], k: str, pick: Pick) -> Decisions:
    """Blocks of whole tiles, in powers of two, up to what covers an axis; and a slab of the sum."""
    chosen: Decisions = {}
    for axis, tile in tiles.items():
        times = [t for t in (8, 1, 2, 4, 16, 32, 64) if tile * t < 2 * p.size(axis)] or [1]
        chosen[f"block.{axis}"] = tile * pick(f"block.{axis}", times)
    slab = pick("slab", [0, *(s for s in (512, 256, 1024, 2048, 128) if s < p.size(k))])
    chosen |= {f"block.{k}": slab} if slab else {}
    first, second = p.parallel
    return chosen | _nonempty("inner", pick("inner", [(second, first), ()]))


def _packs(p: _Plan, style: str, lane: str, blocked: bool, pick: Pick) -> Decisions:
    """Who is packed, where: all threads before the loops, each thread in its blocks, or not at all."""
    chosen: Decisions = {}
    where = ("all", "block") if blocked else ("all",)
    for tensor, axes in p.operands.items():
        in_place = style not in ("tiles", "pairs") or (style == "tiles" and lane not in axes)
        place = pick(f"pack.{tensor}", (*where, "none") if in_place else where)
        if place == "none":
            continue
        layout = "panel" if style == "outer" else "tile" if style == "tiles" and lane not in axes else WORDS[p.bits]
        chosen[f"pack.{tensor}"] = layout
        if place == "block":
            chosen[f"local.{tensor}"] = True
    packed = all(f"pack.{t}" in chosen for t in p.operands)
    if style == "outer" and p.bits == 16 and packed and pick("unpack", (True, False)):
        chosen |= {f"unpack.{t}": True for t in p.operands}
    return chosen


# -------------------------------------------------------------------------------------------- streams
def _stream(p: _Plan, pick: Pick) -> tuple[Decisions, list[str]]:
    """Dots over whole dimensions: those lie across lanes, or rows do; some rows share what is streamed."""
    pairs = p.element == "bf16" and p.facts.machine.has("avx512bf16")
    style = pick("style", [*(("rows-pairs", "along-pairs") if pairs else ()), "along"])
    chosen: Decisions = {f"atom.{d.name}": "bf16x2" for d in p.nest.dots} if style.endswith("pairs") else {}
    if style.startswith("rows") and p.parallel and p.size(p.parallel[-1]) >= p.facts.lanes:
        return _rows_across(p, chosen, pick)
    for axis in p.parallel:
        chosen[f"tile.{axis}"] = pick(f"tile.{axis}", upto(p.size(axis), (1, 2, 4, 8)))
    for axis in p.serial:
        chosen[f"tile.{axis}"] = pick(
            f"tile.{axis}", sorted({p.facts.lanes, p.facts.lanes // 2, 2 * p.facts.lanes, 4, 8, 1})
        )
    for axis in _last_serial(p):
        chosen |= _unrolled(axis, pick("unroll", (1, 2)))
    chosen |= _nonempty("order", pick("order", [(), *list(permutations(p.parallel))[1:6]]))
    return chosen, [*p.whole, *pick("lanes", [p.serial, (*p.serial, *p.parallel), (*p.parallel, *p.serial)])]


def _rows_across(p: _Plan, chosen: Decisions, pick: Pick) -> tuple[Decisions, list[str]]:
    """A vector of rows meets what is streamed point by point, so that nothing is added up across lanes."""
    *others, rows = p.parallel
    chosen |= {f"tile.{axis}": pick(f"tile.{axis}", upto(p.size(axis), (1, 2))) for axis in others}
    chosen[f"tile.{rows}"] = p.facts.lanes
    for axis in p.serial:
        chosen[f"tile.{axis}"] = p.facts.lanes // 2
    summed = [d.expr.axis for d in p.nest.dots if isinstance(d.expr, ir.Dot) and d.expr.axis in p.whole]
    kept = [d for d in p.whole if d not in summed]
    first = pick("lanes", [(*kept, rows), (rows, *kept)])
    return chosen, [*first, *p.serial, *dict.fromkeys(summed)]


def _last_serial(p: _Plan) -> list[str]:
    loops = [s for s in ir.walk(p.nest.loop.body) if isinstance(s, ir.Loop) and not s.parallel]
    return list(dict.fromkeys(loop.axes[-1].name for loop in loops if not loop.axes[-1].each))


# ----------------------------------------------------------------------------------------------- rows
def _row(p: _Plan, pick: Pick) -> tuple[Decisions, list[str]]:
    """No dots: an axis of stride one lies across lanes, some vectors at a time; several rows at once or one."""
    lanes = p.facts.lanes
    along = [a for a in (*p.whole, *p.serial, *p.parallel) if a in p.unit]
    chosen: Decisions = {}
    vectors = pick("vectors", (4, 1, 2, 8))
    for axis in p.serial:
        chosen[f"tile.{axis}"] = vectors * lanes if axis in along else pick(f"tile.{axis}", (1, 2, 4))
        if axis in along and axis in structure.summed_in_loops(p.kernel):
            chosen |= _split(axis, vectors, pick)
    for axis in _last_serial(p):
        chosen |= _unrolled(axis, pick("unroll", (1, 2, 4)))
    leads = not p.serial and not p.whole
    for axis in p.parallel:
        wide = leads and axis in along
        tile = vectors * lanes if wide else pick(f"tile.{axis}", upto(p.size(axis), (1, 2, 4)))
        chosen[f"tile.{axis}"] = tile
        times = pick(f"block.{axis}", [t for t in (0, 16, 4, 64, 256) if t * tile < 2 * max(1, p.size(axis))])
        chosen |= {f"block.{axis}": times * tile} if times else {}
    chosen |= {
        f"nontemporal.{t}": True
        for t in p.written()
        if t in p.facts.aligned and pick(f"nontemporal.{t}", (False, True))
    }
    chosen |= _kept(p, chosen, pick)
    return chosen | _fetched(p, chosen, pick), along


def _kept(p: _Plan, chosen: Decisions, pick: Pick) -> Decisions:
    """Values that a later loop over a row reads back, where rows are visited one by one."""
    if any(f"block.{axis}" in chosen for axis in p.parallel):
        return {}
    known = [name for name, twin in twins(p.kernel).items() if twin.nest == p.nest and twin.is_computed]
    return {f"keep.{name}": True for name in known if pick("keep", (False, True))}


def _fetched(p: _Plan, chosen: Decisions, pick: Pick) -> Decisions:
    dealt = {a.name for a in p.nest.loop.axes if p.nest.loop.parallel and f"block.{a.name}" not in chosen}
    moving = [let for let in p.loads() if isinstance(let.expr, ir.Load) and dealt & set(let.expr.ref.index)]
    ahead = pick("prefetch", (0, 1, 2)) if moving else 0
    return {f"prefetch.{let.name}": ahead for let in moving} if ahead else {}


def _split(axis: str, vectors: int, pick: Pick) -> Decisions:
    """Accumulators of a sum over `axis`, each of which takes as many of the vectors of a tile."""
    count = pick("split", [n for n in ACCUMULATORS if vectors % n == 0])
    return {f"split.{axis}": count} if count > 1 else {}


def _parted(p: _Plan, axis: str, tile: int, pick: Pick) -> Decisions:
    """The loop over an axis in one piece, or a part for each thread, where tiles are fewer than threads."""
    share = -(-p.size(axis) // (tile * max(2, p.facts.team))) * tile
    return {f"part.{axis}": share} if share and pick("part", (False, True)) else {}


def _unrolled(axis: str, times: int) -> Decisions:
    return {f"unroll.{axis}": times} if times > 1 else {}


def _nonempty(name: str, axes: tuple[str, ...]) -> Decisions:
    return {name: axes} if axes else {}


def choices(kernel: ir.Kernel, facts: Facts) -> int:
    """How many draws there are where every choice is free: the size of the structured part of the space."""
    counts: list[int] = []

    def first(what: str, options: Sequence[T], /) -> T:
        counts.append(len(options))
        return options[0]

    draw(kernel, facts, first)
    return math.prod(counts)


__all__ = ["choices", "draw", "upto"]
