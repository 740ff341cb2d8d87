"""Which designs a program, its facts and the machine allow: a table of rules, checked before anything is emitted.

Each rule has a name, the reason why it exists, and a check that yields a message for each decision that breaks
it: the decision, its value, and what to do. Rules of form run first; the others may rely on well-formed decisions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from tilewright.design import dot_rules
from tilewright.design.atoms import ATOMS
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.part_rules import broken_parts
from tilewright.design.twins import twins
from tilewright.design.view import View, shown
from tilewright.errors import IllegalDesign
from tilewright.language import ir, structure

PACKINGS = ("panel", "pair", "quad", "tile")
PER_AXIS = ("tile", "apart", "block", "unroll", "split", "part")
PER_TENSOR = ("pack", "local", "unpack", "nontemporal")
DEALT = ("turns", "drawn")
GLOBAL = ("lanes", "order", "inner", "threads", "dealt")

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


V = TypeVar("V")


@dataclass(frozen=True)
class Rule(Generic[V]):
    """A rule: its name, why it exists, and the check of one design, seen as the rule wants to see it."""

    name: str
    reason: str
    check: Callable[[V], Iterator[str]]


def legal(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why `design` cannot run `kernel` under `facts`; an empty list for a legal design.

    `facts.sizes` may be incomplete: what is not known is not judged.
    """
    if facts.machine.kind == "systolic":
        from tilewright.design.systolic.design import legal_systolic

        return legal_systolic(kernel, design, facts)
    if facts.machine.kind == "dataflow":
        from tilewright.design.dataflow.design import legal_dataflow

        return legal_dataflow(kernel, design, facts)
    if facts.machine.kind == "nvidia":
        from tilewright.design.gpu.design import legal_with_packs

        return legal_with_packs(kernel, design, facts)
    view = View(kernel, design, facts)
    return _broken(FORM, view) or _broken(RULES, view)


def check(kernel: ir.Kernel, design: Design, facts: Facts) -> Design:
    """`design` itself; IllegalDesign that lists the reasons if there are any."""
    found = legal(kernel, design, facts)
    if found:
        listed = "\n  ".join(map(str, found))
        raise IllegalDesign(f"design {design.hash} is illegal for {kernel.name} on {facts.machine.name}:\n  {listed}")
    return design


def _broken(rules: Iterable[Rule[View]], view: View) -> list[Reason]:
    return [Reason(rule.name, message, rule.reason) for rule in rules for message in rule.check(view)]


# --------------------------------------------------------------------------------------------- form
def _names(v: View) -> Iterator[str]:
    kinds: dict[str, tuple[str, Collection[str]]] = {
        **dict.fromkeys(PER_AXIS, ("axis", v.tiled)),
        **dict.fromkeys(PER_TENSOR, ("tensor", v.tensors)),
        "atom": ("dot", v.dots),
        "keep": ("value", v.values),
        **dict.fromkeys(("prefetch", "ahead"), ("load", {let.name for let, _ in structure.loads(v.kernel)})),
    }
    for name, value in v.design.decisions:
        prefix, _, what = name.partition(".")
        if prefix in kinds and what:
            kind, known = kinds[prefix]
            if what not in known:
                yield f"{name}={shown(value)}: {_unknown(v, what, kind, known)}"
        elif name not in GLOBAL:
            known_names = [*GLOBAL, *(f"{p}.{kinds[p][0].upper()}" for p in kinds)]
            yield f"{name}={shown(value)}: no decision is called so{_near(name, known_names)}"


def _unknown(v: View, what: str, kind: str, known: Iterable[str]) -> str:
    if what in v.axes:
        return f"axis {what} visits single positions (each) and has no tiles; drop the decision"
    if what in v.whole:
        return f"values lie along the whole of {what}, which has no tiles; drop the decision"
    names = ", ".join(known) or "none"
    return f"{v.kernel.name} has no {kind} {what}; it has {names}{_near(what, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _values(v: View) -> Iterator[str]:
    for name, value in v.design.decisions:
        wanted = _wanted(name.partition(".")[0], value)
        if wanted:
            yield f"{name}={shown(value)}: takes {wanted}"


def _wanted(prefix: str, value: Choice) -> str | None:
    """What a decision takes, where `value` is not such a thing."""
    number = isinstance(value, int) and not isinstance(value, bool)
    if prefix in (*PER_AXIS, "prefetch", "ahead", "threads"):
        return None if number and int(value) >= 1 else "a whole number, 1 or more"  # type: ignore[arg-type]
    if prefix in ("lanes", "order", "inner"):
        return None if isinstance(value, tuple) and len(set(value)) == len(value) else "distinct names of axes"
    if prefix == "pack":
        return None if value in PACKINGS else f"{', '.join(PACKINGS)}, or is left out"
    if prefix == "atom":
        return None if value in ATOMS else f"one of {', '.join(ATOMS)}"
    if prefix == "dealt":
        return None if value in DEALT else f"{' or '.join(DEALT)}, or is left out"
    return None if isinstance(value, bool) else "true or false"


# ---------------------------------------------------------------------------------- axes and loops
def _lanes(v: View) -> Iterator[str]:
    for axis in v.design.names("lanes"):
        if axis not in v.tiled and axis not in v.whole:
            known = [*v.tiled, *v.whole]
            yield f"lanes={shown(v.design.names('lanes'))}: {_unknown(v, axis, 'tiled axis', known)}"
        elif axis in v.tiled:
            tile, lanes = v.extent(axis), v.facts.lanes
            if tile % lanes and tile & (tile - 1):
                nearest = 1 << (tile.bit_length() - 1) if tile < lanes else tile // lanes * lanes
                yield f"tile.{axis}={tile}: {axis} lies across lanes, {lanes} to a vector; take {nearest}"


def _aparts(v: View) -> Iterator[str]:
    """A tile may take every nth position of a range that is dealt to threads, if nobody packs or splits the range."""
    for axis, apart in v.design.prefixed("apart"):
        if apart == 1:
            continue
        label, nest = f"apart.{axis}={apart}", next((n for n in v.nests if _owns(n, axis)), None)
        if nest is None or axis not in {a.name for a in nest.loop.axes}:
            yield f"{label}: {axis} is no axis of an outermost parallel loop; drop it"
            continue
        if blocked := [a.name for a in nest.loop.axes if v.design.get(f"block.{a.name}")]:
            yield f"{label}: the tiles are blocked, and a block is a range; drop block.{blocked[0]}, or apart.{axis}"
        if parts := [a.name for a in v.axes.values() if a.over == axis]:
            yield f"{label}: axis {parts[0]} is a part of {axis}, which would be no range; drop it"
        if packed := [t for t, _ in v.design.prefixed("pack") if any(axis in ref.index for _, ref in v.loads_of(t))]:
            yield f"{label}: {packed[0]} is packed, and its panels hold neighbours; drop it, or pack.{packed[0]}"
        if v.extent(axis) == 1:
            yield f"{label}: a tile has one point of {axis}; drop it, or take tile.{axis}=4"


def _blocks(v: View) -> Iterator[str]:
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


def _unrolls(v: View) -> Iterator[str]:
    for axis, times in v.design.prefixed("unroll"):
        if axis not in v.unrollable:
            serial = ", ".join(sorted(v.unrollable)) or "none"
            yield f"unroll.{axis}={times}: {axis} is not the last axis of a serial loop ({serial}); drop it"


def _splits(v: View) -> Iterator[str]:
    for axis, times in v.design.prefixed("split"):
        assert isinstance(times, int)
        label = f"split.{axis}={times}"
        chunks = v.extent(axis) // v.chunk(axis)
        lanes = [a for a in v.design.names("lanes") if a == axis or any(a in nest for nest in v.parallel)]
        if axis not in v.unrollable or lanes[:1] != [axis]:
            yield f"{label}: sums are split where they lie across the lanes of a serial loop; put {axis} first in lanes"
        elif times & (times - 1) or chunks % times:
            yield f"{label}: tile.{axis}={v.extent(axis)} has {chunks} vectors; take a power of two that divides it"


def _keeps(v: View) -> Iterator[str]:
    known = twins(v.kernel)
    for value, wanted in v.design.prefixed("keep"):
        label, twin = f"keep.{value}={wanted}", known.get(value)
        if twin is None:
            those = ", ".join(known) or "none"
            yield f"{label}: no earlier loop computes the same ({those} might be kept); drop it"
        elif any(v.design.get(f"block.{a.name}") for a in twin.nest.loop.axes):
            yield f"{label}: a row is kept where rows are visited one by one; drop the blocks"
        elif parts := _computed_from(v, value) & {n for n, also in v.design.prefixed("keep") if also}:
            yield f"{label}: it is computed from {min(parts)}, which is kept too; drop one of them"


def _computed_from(v: View, value: str) -> set[str]:
    """All values that one is computed from, step by step."""
    found, ahead = set(), [value]
    while ahead:
        for name in ir.operands(v.values[ahead.pop()].expr):
            if name in v.values and name not in found:
                found.add(name)
                ahead.append(name)
    return found


def _orders(v: View) -> Iterator[str]:
    for level in ("order", "inner"):
        names = v.design.names(level)
        if names and not any(set(names) == set(_ordered(v, nest, level)) for nest in v.parallel):
            each = " or ".join(shown(_ordered(v, nest, level)) for nest in v.parallel)
            yield f"{level}={shown(names)}: takes a permutation of {each}"


def _ordered(v: View, nest: tuple[str, ...], level: str) -> tuple[str, ...]:
    """Axes whose order `level` decides: all outside, the blocked ones inside."""
    return nest if level == "order" else tuple(a for a in nest if v.design.get(f"block.{a}") is not None)


def _prefetches(v: View) -> Iterator[str]:
    """A load is fetched ahead along an axis whose tiles the parallel loop itself deals out."""
    refs = {let.name: ref for let, ref in structure.loads(v.kernel)}
    dealt = {a for nest in v.parallel for a in nest if v.design.get(f"block.{a}") is None}
    dealt |= {a.name for n in v.nests if n.loop.parallel for a in n.loop.axes if a.each}
    for load, ahead in v.design.prefixed("prefetch"):
        ref = refs[load]
        if v.design.get(f"pack.{ref.buffer}") is not None:
            yield f"prefetch.{load}={ahead}: {ref.buffer} is packed, and read from its panel; drop it"
        elif not dealt & set(ref.index):
            yield f"prefetch.{load}={ahead}: its place does not move with the tiles dealt out; drop it, or the blocks"


def _dealt(v: View) -> Iterator[str]:
    """Tiles are dealt where there are threads to take them; in turns, no load counts on the next one of a run."""
    how = v.design.get("dealt")
    if how is not None and min(v.facts.team, v.design.number("threads", v.facts.team)) == 1:
        yield f"dealt={how}: one thread takes all tiles; drop it, or threads=1"
    for load, ahead in v.design.prefixed("prefetch") if how == "turns" else ():
        yield f"dealt=turns: prefetch.{load}={ahead} fetches the next tile of a run; drop one of the two"


def _aheads(v: View) -> Iterator[str]:
    """A load inside a serial loop is fetched ahead along that loop, where it has a stride of one."""
    refs = {let.name: ref for let, ref in structure.loads(v.kernel)}
    for load, tiles in v.design.prefixed("ahead"):
        label, ref = f"ahead.{load}={tiles}", refs[load]
        if v.design.get(f"pack.{ref.buffer}") is not None:
            yield f"{label}: {ref.buffer} is packed, and read from its panel; drop it"
        elif v.design.get(f"prefetch.{load}"):
            yield f"{label}: it is fetched ahead along the parallel loop already; drop this or prefetch.{load}"
        elif not any(axis in v.unrollable and v.runs_along(ref.buffer, str(axis)) for axis in ref.index):
            serial = ", ".join(sorted(v.unrollable)) or "none"
            yield f"{label}: it has no stride of one along a serial loop ({serial}); drop it"


# ------------------------------------------------------------------------------- stores and resources
def _nontemporal(v: View) -> Iterator[str]:
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


def _registers(v: View) -> Iterator[str]:
    limit = SPILLS * max(v.facts.registers, v.single.registers)
    if v.registers > limit:
        tiles = ", ".join(f"tile.{a}={v.extent(a)}" for a in v.tiled if v.extent(a) > 1)
        yield f"{tiles}: {v.registers} vectors are live at once, and {limit} is the most; take smaller tiles"


def _scratch(v: View) -> Iterator[str]:
    if v.scratch_bytes > MOST_SCRATCH:
        blocks = ", ".join(f"block.{a}={n}" for a, n in v.design.prefixed("block"))
        mib, most = v.scratch_bytes >> 20, MOST_SCRATCH >> 20
        yield f"{blocks}: unfinished tiles take {mib} MiB for each thread, and {most} is the most; take smaller blocks"


def _code(v: View) -> Iterator[str]:
    most = max(MOST_INSTRUCTIONS, 4 * v.single.instructions)
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
    Rule("aparts", "positions that lie apart are no range that could be cut or copied", _aparts),
    Rule("blocks", "a block is a number of whole tiles, of axes that are free to be visited in blocks", _blocks),
    Rule("unrolls", "only the innermost axis of a loop in order is written out several times", _unrolls),
    Rule("splits", "accumulators of a split sum take turns, vector by vector", _splits),
    Rule("parts", "what a part of a loop comes to is joined with what others came to", broken_parts),
    Rule("keeps", "a later loop reads back only what an earlier one has computed for the same row", _keeps),
    Rule("orders", "each axis of a loop nest is visited at one level", _orders),
    Rule("packs", "panels hold an operand in the order in which one loop nest multiplies it", dot_rules.packs),
    Rule("locals", "what a cache block packs is as large as the block", dot_rules.locals_),
    Rule("unpacks", "both operands of a dot have one element type", dot_rules.unpacks),
    Rule("features", "a machine executes only the instructions it has", dot_rules.features),
    Rule("pairs", "vdpbf16ps and vpdpwssd multiply two neighbours of the summed axis in each lane", dot_rules.pairs),
    Rule("tiles", "tdpbf16ps and tdpbssd multiply tile registers of 16 rows of 64 bytes", dot_rules.tiles),
    Rule("aheads", "what a loop reads next must lie behind what it reads now", _aheads),
    Rule("prefetches", "what is fetched ahead is found by going on along the parallel loop", _prefetches),
    Rule("dealt", "tiles that are taken in turns lie as many apart as there are threads", _dealt),
    Rule("nontemporal", "a store around the caches writes whole lines, or is slower than a plain one", _nontemporal),
    Rule("registers", "what does not fit in registers is stored and loaded again in the innermost loop", _registers),
    Rule("scratch", "scratch beyond the caches costs more than blocks gain", _scratch),
    Rule("code", "compiling takes time, and code that leaves the instruction cache runs slowly", _code),
)

__all__ = ["ATOMS", "PACKINGS", "RULES", "Reason", "Rule", "check", "legal"]
