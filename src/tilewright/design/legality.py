"""Which designs a program, its facts and the machine allow: a table of rules, checked before anything is emitted.

Each rule has a name, the reason why it exists, and a check that yields a message for each decision that breaks
it: the decision, its value, and what to do. Rules of form run first; the others may rely on well-formed decisions.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.footprint import Footprint
from tilewright.errors import IllegalDesign
from tilewright.language import ir, structure

PACKINGS = ("panel", "pair", "tile")
ATOMS = {"fma": None, "bf16x2": "avx512bf16", "amx_bf16": "amx-bf16"}
"""Instructions that multiply, and the feature that a machine must have for each."""

PER_AXIS = ("tile", "block", "unroll")
PER_TENSOR = ("pack", "unpack", "nontemporal")
GLOBAL = ("lanes", "order", "inner", "threads")

SPILLS = 2
"""Values live at once may be this many times the registers: up to there, compilers still hide some of it."""

MOST_INSTRUCTIONS = 12_000
"""Instructions written for a kernel; LLVM takes about a second for three times as many lines."""

MOST_SCRATCH = 16 << 20
"""Bytes of scratch for each thread."""

_LINE = 64


@dataclass(frozen=True)
class Reason:
    """Why a design is illegal: the rule, what is wrong and how to mend it, and why the rule exists."""

    rule: str
    message: str
    reason: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.message} ({self.reason})"


@dataclass(frozen=True)
class _View(Footprint):
    """A design beside the program it is for."""

    @cached_property
    def tensors(self) -> dict[str, ir.Param]:
        return {p.name: p for p in self.kernel.params if p.dims is not None}

    @cached_property
    def tiled(self) -> dict[str, ir.Axis]:
        """Axes that have tiles."""
        return {n: a for n, a in self.axes.items() if not a.each}

    @cached_property
    def nests(self) -> list[structure.Nest]:
        return structure.nests(self.kernel)

    @cached_property
    def parallel(self) -> list[tuple[str, ...]]:
        """The tiled axes of each top-level parallel loop."""
        return [tuple(a.name for a in n.loop.axes if not a.each) for n in self.nests if n.loop.parallel]

    @cached_property
    def unrollable(self) -> frozenset[str]:
        """Last axes of serial loops."""
        loops = [s for s in ir.walk(self.kernel.body) if isinstance(s, ir.Loop) and not s.parallel]
        return frozenset(loop.axes[-1].name for loop in loops)

    @cached_property
    def single(self) -> Footprint:
        """What the program takes with the smallest tiles: no design takes less."""
        tiles = {f"tile.{a}": 1 for a in self.tiled} | {f"unroll.{a}": 1 for a in self.unrollable}
        return Footprint(self.kernel, Design.of({**dict(self.design.decisions), **tiles}), self.facts)

    def loads_of(self, tensor: str) -> list[tuple[ir.Let, ir.Ref]]:
        return [(let, ref) for let, ref in structure.loads(self.kernel) if ref.buffer == tensor]

    def dots_of(self, value: str) -> list[tuple[ir.Let, ir.Dot]]:
        return [(let, dot) for let, dot in self.dots.values() if value in (dot.a, dot.b)]

    def readers_of(self, tensor: str) -> list[tuple[ir.Let, ir.Dot]]:
        """Dots that multiply what is loaded from a tensor."""
        return [found for let, _ in self.loads_of(tensor) for found in self.dots_of(let.name)]

    def operand(self, name: str) -> tuple[ir.Let, str | None]:
        """An operand of a dot, and the tensor that it is loaded from."""
        let = self.values[name]
        return let, let.expr.ref.buffer if isinstance(let.expr, ir.Load) else None

    def runs_along(self, tensor: str, axis: str) -> bool:
        """Whether a tensor has stride one along an axis."""
        dims = [ref.index.index(axis) for _, ref in self.loads_of(tensor) if axis in ref.index]
        return bool(dims) and all(d in self.facts.unit.get(tensor, ()) for d in dims)

    def lies_in_tiles(self, tensor: str, value: ir.Let, depth: str) -> bool:
        """Whether whole tile registers can be loaded from an operand as it lies in memory."""
        whole = {self.dim(a) for a in value.type.axes} <= self.facts.multiples
        return whole and self.design.get(f"pack.{tensor}") is None and self.runs_along(tensor, depth)

    def dim(self, axis: str) -> str:
        """The dimension that an axis is a range of."""
        while axis in self.axes:
            axis = self.axes[axis].over
        return axis

    def fixed_size(self, axis: str) -> int | None:
        """The size of an axis' dimension where no other is ever met."""
        dim = self.dim(axis)
        return self.facts.sizes.get(dim) if dim in self.facts.fixed else None


Check = Callable[[_View], Iterator[str]]


@dataclass(frozen=True)
class Rule:
    """A rule: its name, why it exists, and the check of one design."""

    name: str
    reason: str
    check: Check


def legal(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why `design` cannot run `kernel` under `facts`; an empty list for a legal design.

    `facts.sizes` may be incomplete: what is not known is not judged.
    """
    view = _View(kernel, design, facts)
    return _broken(FORM, view) or _broken(RULES, view)


def check(kernel: ir.Kernel, design: Design, facts: Facts) -> Design:
    """`design` itself; IllegalDesign that lists the reasons if there are any."""
    found = legal(kernel, design, facts)
    if found:
        listed = "\n  ".join(map(str, found))
        raise IllegalDesign(f"design {design.hash} is illegal for {kernel.name} on {facts.machine.name}:\n  {listed}")
    return design


def _broken(rules: Iterable[Rule], view: _View) -> list[Reason]:
    return [Reason(rule.name, message, rule.reason) for rule in rules for message in rule.check(view)]


# --------------------------------------------------------------------------------------------- form
def _names(v: _View) -> Iterator[str]:
    kinds = {
        **dict.fromkeys(PER_AXIS, ("axis", v.tiled)),
        **dict.fromkeys(PER_TENSOR, ("tensor", v.tensors)),
        "atom": ("dot", v.dots),
        "prefetch": ("load", {let.name for let, _ in structure.loads(v.kernel)}),
    }
    for name, value in v.design.decisions:
        prefix, _, what = name.partition(".")
        if prefix in kinds and what:
            kind, known = kinds[prefix]
            if what not in known:
                yield f"{name}={_shown(value)}: {_unknown(v, what, kind, known)}"
        elif name not in GLOBAL:
            known_names = [*GLOBAL, *(f"{p}.{kinds[p][0].upper()}" for p in kinds)]
            yield f"{name}={_shown(value)}: no decision is called so{_near(name, known_names)}"


def _unknown(v: _View, what: str, kind: str, known: Iterable[str]) -> str:
    if what in v.axes:
        return f"axis {what} visits single positions (each) and has no tiles; drop the decision"
    if what in v.whole:
        return f"values lie along the whole of {what}, which has no tiles; drop the decision"
    names = ", ".join(known) or "none"
    return f"{v.kernel.name} has no {kind} {what}; it has {names}{_near(what, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _values(v: _View) -> Iterator[str]:
    for name, value in v.design.decisions:
        wanted = _wanted(name.partition(".")[0], value)
        if wanted:
            yield f"{name}={_shown(value)}: takes {wanted}"


def _wanted(prefix: str, value: Choice) -> str | None:
    """What a decision takes, where `value` is not such a thing."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if prefix in (*PER_AXIS, "prefetch", "threads"):
        return None if number and int(value) >= 1 else "a whole number, 1 or more"  # type: ignore[arg-type]
    if prefix in ("lanes", "order", "inner"):
        return None if isinstance(value, tuple) and len(set(value)) == len(value) else "distinct names of axes"
    if prefix == "pack":
        return None if value in PACKINGS else f"{', '.join(PACKINGS)}, or is left out"
    if prefix == "atom":
        return None if value in ATOMS else f"one of {', '.join(ATOMS)}"
    return None if isinstance(value, bool) else "true or false"


def _shown(value: Choice) -> str:
    return f"({', '.join(value)})" if isinstance(value, tuple) else str(value)


# ---------------------------------------------------------------------------------- axes and loops
def _lanes(v: _View) -> Iterator[str]:
    for axis in v.design.names("lanes"):
        if axis not in v.tiled and axis not in v.whole:
            known = [*v.tiled, *v.whole]
            yield f"lanes={_shown(v.design.names('lanes'))}: {_unknown(v, axis, 'tiled axis', known)}"
        elif axis in v.tiled:
            tile, lanes = v.extent(axis), v.facts.lanes
            if tile % lanes and tile & (tile - 1):
                nearest = 1 << (tile.bit_length() - 1) if tile < lanes else tile // lanes * lanes
                yield f"tile.{axis}={tile}: {axis} lies across lanes, {lanes} to a vector; take {nearest}"


def _blocks(v: _View) -> Iterator[str]:
    for axis, size in v.design.prefixed("block"):
        tile = v.extent(axis)
        assert isinstance(size, int)
        if size % tile:
            yield f"block.{axis}={size}: not a multiple of tile.{axis}={tile}; take {-(-size // tile) * tile}"
        nest = next((n for n in v.nests if _owns(n, axis)), None)
        if nest is None:
            yield f"block.{axis}={size}: {axis} is no axis of a parallel loop nor the only one summed over; drop it"
        elif not any(f"block.{a.name}" in dict(v.design.decisions) for a in nest.loop.axes):
            others = " or ".join(f"block.{a.name}" for a in nest.loop.axes if not a.each)
            yield f"block.{axis}={size}: the tiles around it are not blocked, so it has no effect; add {others}"
        elif axis not in {a.name for a in nest.loop.axes} and v.facts.sizes.get(v.dim(axis)) == 0:
            yield f"block.{axis}={size}: {v.dim(axis)} is 0, and the last of no blocks writes nothing; drop it"


def _owns(nest: structure.Nest, axis: str) -> bool:
    """Whether an axis is one of a nest's that can be blocked."""
    if not nest.loop.parallel:
        return False
    main = nest.main.axes[0].name if nest.main is not None else None
    return axis == main or axis in {a.name for a in nest.loop.axes}


def _unrolls(v: _View) -> Iterator[str]:
    for axis, times in v.design.prefixed("unroll"):
        if axis not in v.unrollable:
            serial = ", ".join(sorted(v.unrollable)) or "none"
            yield f"unroll.{axis}={times}: {axis} is not the last axis of a serial loop ({serial}); drop it"


def _orders(v: _View) -> Iterator[str]:
    for level in ("order", "inner"):
        names = v.design.names(level)
        if names and not any(set(names) == set(_ordered(v, nest, level)) for nest in v.parallel):
            each = " or ".join(_shown(_ordered(v, nest, level)) for nest in v.parallel)
            yield f"{level}={_shown(names)}: takes a permutation of {each}"


def _ordered(v: _View, nest: tuple[str, ...], level: str) -> tuple[str, ...]:
    """Axes whose order `level` decides: all outside, the blocked ones inside."""
    return nest if level == "order" else tuple(a for a in nest if v.design.get(f"block.{a}") is not None)


# ------------------------------------------------------------------------------------------ packing
def _packs(v: _View) -> Iterator[str]:
    for tensor, layout in v.design.prefixed("pack"):
        problem = _unpackable(v, tensor)
        if problem:
            yield f"pack.{tensor}={layout}: {problem}; drop it"
            continue
        if layout in ("pair", "tile") and v.tensors[tensor].dtype.bits != 16:
            dtype = v.tensors[tensor].dtype
            yield f"pack.{tensor}={layout}: {tensor} is {dtype}, and only 16-bit floats go in pairs; take panel"
        for let, dot in v.readers_of(tensor):
            yield from _packed_reader(v, tensor, str(layout), let, dot)


def _unpackable(v: _View, tensor: str) -> str | None:
    """Why no panel of a tensor can be made."""
    loads = v.loads_of(tensor)
    if not loads or not all(v.dots_of(let.name) and _read_by_dots_alone(v, let.name) for let, _ in loads):
        return f"{tensor} is not just an operand of dots"
    if len({ref for _, ref in loads}) > 1:
        return f"{tensor} is loaded at different places"
    let, ref = loads[0]
    for index in ref.index:
        if isinstance(index, str) and index not in v.axes:
            return f"its index {index} is no axis of a loop"
        if isinstance(index, str) and (v.axes[index].start is not None or v.axes[index].stop is not None):
            return f"axis {index} covers only a part of its dimension"
    return None if len(let.type.axes) == 2 else f"its tiles have axes {_shown(let.type.axes)}, not two"


def _read_by_dots_alone(v: _View, value: str) -> bool:
    uses = [let for let in v.values.values() if value in ir.operands(let.expr)]
    stored = any(isinstance(s, (ir.Store, ir.Assign)) and s.value == value for s in ir.walk(v.kernel.body))
    return not stored and all(isinstance(let.expr, ir.Dot) for let in uses)


def _packed_reader(v: _View, tensor: str, layout: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """What the dot `let` asks of the layout of its operand."""
    atom = v.design.get(f"atom.{let.name}", "fma")
    if v.is_inner(let, dot):
        yield f"pack.{tensor}={layout}: {let.name} has its lanes along {dot.axis}, across the panels; drop it"
    elif layout != "panel" and atom == "fma":
        yield f"pack.{tensor}={layout}: atom.{let.name} is fma, which reads single elements; take panel"
    elif layout == "tile" and atom != "amx_bf16":
        yield f"pack.{tensor}={layout}: atom.{let.name} is {atom}, which reads pairs; take pair"


def _unpacks(v: _View) -> Iterator[str]:
    for tensor, wanted in v.design.prefixed("unpack"):
        if not wanted:
            continue
        if v.design.get(f"pack.{tensor}") != "panel":
            yield f"unpack.{tensor}=True: elements are widened while they are packed; add pack.{tensor}=panel"
        if v.tensors[tensor].dtype.bits != 16:
            yield f"unpack.{tensor}=True: {tensor} is {v.tensors[tensor].dtype}, which is not a 16-bit float; drop it"
        for let, dot in v.readers_of(tensor):
            others = [t for n in (dot.a, dot.b) if (t := v.operand(n)[1]) != tensor]
            if any(o is None or not v.design.get(f"unpack.{o}") for o in others):
                names = " and ".join(f"unpack.{o}" for o in others)
                yield f"unpack.{tensor}=True: {let.name} multiplies it with a narrower operand; add {names}=True"


# -------------------------------------------------------------------------------------------- atoms
def _features(v: _View) -> Iterator[str]:
    for dot, atom in v.design.prefixed("atom"):
        feature = ATOMS[str(atom)]
        if feature is not None and not v.facts.machine.has(feature):
            yield f"atom.{dot}={atom}: {v.facts.machine.name} has no {feature}; take fma"


def _pairs(v: _View) -> Iterator[str]:
    for name, atom in v.design.prefixed("atom"):
        if atom != "bf16x2":
            continue
        let, dot = v.dots[name]
        label = f"atom.{name}=bf16x2"
        if wrong := [n for n in (dot.a, dot.b) if v.values[n].type.dtype.name != "bf16"]:
            yield f"{label}: {wrong[0]} is {v.values[wrong[0]].type.dtype}, not bf16; take fma"
        elif sources := [n for n in (dot.a, dot.b) if v.operand(n)[1] is None]:
            yield f"{label}: {sources[0]} is computed, and pairs are read from memory; take fma"
        else:
            yield from (_inner_pairs if v.is_inner(let, dot) else _outer_pairs)(v, label, let, dot)


def _inner_pairs(v: _View, label: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """Lanes along the sum: both operands lie in pairs as they are."""
    k, chunk = dot.axis, 2 * v.facts.lanes
    if v.extent(k) % chunk:
        yield f"{label}: tile.{k}={v.extent(k)} is not a multiple of {chunk}, a vector of pairs; take {chunk}"
    size = v.fixed_size(k)
    if size is not None and size < chunk:
        yield f"{label}: {v.dim(k)} is always {size}, less than {chunk}, a vector of pairs; take fma"
    for operand in (dot.a, dot.b):
        tensor = v.operand(operand)[1]
        assert tensor is not None
        if not v.runs_along(tensor, k):
            yield f"{label}: {tensor} has no stride of one along {k}; put another axis first in lanes, or take fma"


def _outer_pairs(v: _View, label: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """Lanes along the result: both operands hold neighbours of the sum side by side."""
    k, lane = dot.axis, v.lane_of(let.type.axes)
    if lane is None:
        yield f"{label}: no axis of the result lies across lanes; add one to lanes, with a tile of {v.facts.lanes}"
        return
    if v.extent(lane) % v.facts.lanes:
        yield f"{label}: tile.{lane}={v.extent(lane)} does not fill vectors of {v.facts.lanes}; take {v.facts.lanes}"
    size = v.fixed_size(lane)
    if size is not None and size < v.facts.lanes:
        yield f"{label}: {v.dim(lane)} is always {size}, less than a vector of {v.facts.lanes}; take fma"
    if v.extent(k) % 2:
        yield f"{label}: tile.{k}={v.extent(k)} is odd, and two neighbours are multiplied at once; take 2"
    for operand in (dot.a, dot.b):
        value, tensor = v.operand(operand)
        assert tensor is not None
        even = (v.fixed_size(k) or 1) % 2 == 0 and v.runs_along(tensor, k)
        if v.design.get(f"pack.{tensor}") != "pair" and (lane in value.type.axes or not even):
            yield f"{label}: neighbours along {k} are not side by side in {tensor}; add pack.{tensor}=pair"


_TILE_ROWS, _TILE_DEPTH, _TILE_REGISTERS = 16, 32, 8


def _tiles(v: _View) -> Iterator[str]:
    amx = [n for n, atom in v.design.prefixed("atom") if atom == "amx_bf16"]
    for nest in v.nests:
        inside = [d.name for d in nest.dots]
        if set(inside) & set(amx) and not set(inside) <= set(amx):
            rest = ", ".join(f"atom.{d}" for d in inside if d not in amx)
            yield f"atom.{amx[0]}=amx_bf16: tile registers are set up for a whole loop; set {rest} to it as well"
    registers = sum(_tile_blocks(v, v.dots[n][0]) for n in amx)
    if amx and registers + 2 > _TILE_REGISTERS:
        yield (
            f"atom.{amx[0]}=amx_bf16: the tiles take {registers} accumulators, and {_TILE_REGISTERS - 2} of the "
            f"{_TILE_REGISTERS} tile registers are free; take smaller tiles"
        )
    for name in amx:
        yield from _tile_operands(v, f"atom.{name}=amx_bf16", *v.dots[name])


def _tile_blocks(v: _View, let: ir.Let) -> int:
    return math.prod(-(-v.extent(axis) // _TILE_ROWS) for axis in let.type.axes)


def _tile_operands(v: _View, label: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    lane = v.lane_of((dot.axis, *let.type.axes))
    if lane is None or lane == dot.axis:
        yield f"{label}: the columns of the result lie across lanes; put one of {_shown(let.type.axes)} first in lanes"
        return
    for axis, unit in ((dot.axis, _TILE_DEPTH), *((a, _TILE_ROWS) for a in let.type.axes)):
        if v.extent(axis) % unit:
            yield f"{label}: tile.{axis}={v.extent(axis)} does not fill tile registers of {unit}; take {unit}"
        size = v.fixed_size(axis)
        if size is not None and size < unit:
            yield f"{label}: {v.dim(axis)} is always {size}, less than a tile register of {unit}; take fma"
    for operand in (dot.a, dot.b):
        value, tensor = v.operand(operand)
        layout = "pair" if lane in value.type.axes else "tile"
        if value.type.dtype.name not in ("bf16",):
            yield f"{label}: {operand} is {value.type.dtype}, not bf16; take fma"
        if layout == "tile" and tensor is not None and v.lies_in_tiles(tensor, value, dot.axis):
            continue
        if tensor is None or v.design.get(f"pack.{tensor}") != layout:
            yield f"{label}: tile registers are loaded from packed memory; add pack.{tensor or operand}={layout}"


# ------------------------------------------------------------------------------- stores and resources
def _nontemporal(v: _View) -> Iterator[str]:
    for tensor, wanted in v.design.prefixed("nontemporal"):
        if not wanted:
            continue
        label = f"nontemporal.{tensor}=True"
        stores = [s for s in ir.walk(v.kernel.body) if isinstance(s, ir.Store) and s.ref.buffer == tensor]
        if not stores or v.loads_of(tensor):
            yield f"{label}: {tensor} is {'read again' if stores else 'not written'}; drop it"
            continue
        if tensor not in v.facts.aligned:
            yield f"{label}: rows of {tensor} do not start at multiples of {_LINE} bytes; drop it, or align them"
        for store in stores:
            lane = v.lane_of(v.values[store.value].type.axes)
            unit = [store.ref.index[d] for d in v.facts.unit.get(tensor, ())]
            if lane is None or lane not in unit or v.extent(lane) % v.facts.lanes:
                along = ", ".join(map(str, unit)) or "an axis with stride one"
                yield f"{label}: it takes whole vectors; lay {along} across lanes, in tiles of {v.facts.lanes}"


def _registers(v: _View) -> Iterator[str]:
    limit = SPILLS * max(v.facts.registers, v.single.registers)
    if v.registers > limit:
        tiles = ", ".join(f"tile.{a}={v.extent(a)}" for a in v.tiled if v.extent(a) > 1)
        yield f"{tiles}: {v.registers} vectors are live at once, and {limit} is the most; take smaller tiles"


def _scratch(v: _View) -> Iterator[str]:
    if v.scratch_bytes > MOST_SCRATCH:
        blocks = ", ".join(f"block.{a}={n}" for a, n in v.design.prefixed("block"))
        mib, most = v.scratch_bytes >> 20, MOST_SCRATCH >> 20
        yield f"{blocks}: unfinished tiles take {mib} MiB for each thread, and {most} is the most; take smaller blocks"


def _code(v: _View) -> Iterator[str]:
    most = max(MOST_INSTRUCTIONS, 2 * v.single.instructions)
    if v.instructions > most:
        choices = [f"{p}.{a}={n}" for p in ("tile", "unroll") for a, n in v.design.prefixed(p) if n != 1]
        count = f"about {v.instructions} instructions, and {most} is the most"
        yield f"{', '.join(choices)}: {count}; unroll less, or take smaller tiles"


FORM = (
    Rule("names", "a decision that nobody reads would be lost in silence", _names),
    Rule("values", "a decision has a value that the lowering understands", _values),
)
RULES = (
    Rule("lanes", "a vector is loaded, computed and stored whole", _lanes),
    Rule("blocks", "a block is a number of whole tiles, of axes that are free to be visited in blocks", _blocks),
    Rule("unrolls", "only the innermost axis of a loop in order is written out several times", _unrolls),
    Rule("orders", "each axis of a loop nest is visited at one level", _orders),
    Rule("packs", "panels hold an operand in the order in which one loop nest multiplies it", _packs),
    Rule("unpacks", "both operands of a dot have one element type", _unpacks),
    Rule("features", "a machine executes only the instructions it has", _features),
    Rule("pairs", "vdpbf16ps multiplies two neighbours of the summed axis in each lane", _pairs),
    Rule("tiles", "tdpbf16ps multiplies tile registers of 16 rows and 32 bf16", _tiles),
    Rule("nontemporal", "a store around the caches writes whole lines, or is slower than a plain one", _nontemporal),
    Rule("registers", "what does not fit in registers is stored and loaded again in the innermost loop", _registers),
    Rule("scratch", "scratch beyond the caches costs more than blocks gain", _scratch),
    Rule("code", "compiling takes time, and code that leaves the instruction cache runs slowly", _code),
)

__all__ = ["ATOMS", "PACKINGS", "RULES", "Reason", "Rule", "check", "legal"]
