"""Rules of rows on a GPU: values that stay in registers from loop to loop, and loops that blocks of a cluster share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.early import Early, early_loads
from tilewright.design.gpu.shape import power
from tilewright.design.hold import Held, held_rows
from tilewright.design.legality import Reason, Rule
from tilewright.design.twins import Twin, twins
from tilewright.language import ir, structure
from tilewright.language.accumulate import find_accumulations

MOST_REGISTERS = 128
"""Registers of a thread that may hold what is kept: half of them."""
CACHES = ("ca", "cg", "cs", "evict_first", "evict_last", "strong")


@dataclass(frozen=True)
class Rows:
    """A design beside its program and the facts."""

    kernel: ir.Kernel
    design: Design
    facts: Facts

    @property
    def kept(self) -> list[Twin]:
        """Values that a later loop takes from registers."""
        known = twins(self.kernel)
        return [known[name] for name, wanted in self.design.prefixed("keep") if wanted]

    @property
    def early(self) -> list[Early]:
        """Loads that come in the first loop."""
        known = early_loads(self.kernel)
        return [known[name] for name, wanted in self.design.prefixed("early") if wanted]

    @property
    def rows(self) -> list[Held]:
        """Tensors whose rows are loaded once, before rounds that read them."""
        known = held_rows(self.kernel)
        return [known[name] for name, wanted in self.design.prefixed("hold") if wanted]

    def tile(self, axis: str) -> int:
        """Points of an axis that a block works on at a time."""
        return self.design.number(f"tile.{axis}", 1)

    def blocks(self, axis: str) -> int:
        """Blocks of a cluster that share the loop over an axis."""
        return self.design.number(f"split.{axis}", 1)

    @property
    def loops(self) -> dict[str, ir.Loop]:
        """The loop of each axis."""
        return {a.name: s for s in ir.walk(self.kernel.body) if isinstance(s, ir.Loop) for a in s.axes}


def broken_rules(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why values cannot stay, or loops cannot be shared, as `design` says."""
    rows = Rows(kernel, design, facts)
    return [Reason(rule.name, message, rule.reason) for rule in RULES for message in rule.check(rows)]


def _keeps(r: Rows) -> Iterator[str]:
    for twin in r.kept:
        yield from _apart(r, f"keep.{twin.later.name}", twin.first.axes[0].name, twin.second.axes[0].name)
    for early in r.early:
        yield from _apart(r, f"early.{early.load.name}", early.first, early.later)
    for row in r.rows:
        for axis in row.axes:
            yield from _apart(r, f"hold.{row.tensor}", row.axes[0], axis)


def _apart(r: Rows, label: str, first: str, later: str) -> Iterator[str]:
    """What hinders the loops over two axes from meeting in registers."""
    dim = structure.axes(r.kernel)[first].over
    if dim not in r.facts.fixed or not r.facts.sizes.get(dim):
        yield f"{label}: the size of {dim} is no part of the kernel, or 0; fix it, or drop the decision"
    for what, of in (("tile", r.tile), ("split", r.blocks)):
        if of(first) != of(later):
            yield f"{label}: {what}.{first} and {what}.{later} differ; make them equal"


def _held(r: Rows) -> Iterator[str]:
    taken = held(r)
    if taken > MOST_REGISTERS:
        yield f"keep: {taken} registers a thread, and {MOST_REGISTERS} is the most; take more warps, or keep less"


def held(r: Rows) -> int:
    """Registers of a thread that hold what is kept."""
    kept = {t.earlier.name: (t.first.axes[0].name, t.earlier) for t in r.kept}
    rows = ((h.axes[0], h.load) for h in r.rows)
    return sum(_registers(r, *of) for of in (*kept.values(), *((e.later, e.load) for e in r.early), *rows))


def _registers(r: Rows, row: str, let: ir.Let) -> int:
    lanes, dim = r.design.names("lanes"), structure.axes(r.kernel)[row].over
    tiles = {a: r.tile(a) for a in let.type.axes}
    threads = min(32 * r.design.number("warps", 4), math.prod(power(n) for a, n in tiles.items() if a in lanes))
    trips = -(-r.facts.sizes.get(dim, 1) // (tiles[row] * r.blocks(row)))
    return -(-math.prod(tiles.values()) * trips * let.type.dtype.bytes // (4 * threads))


def _splits(r: Rows) -> Iterator[str]:
    counts = {axis: n for axis, n in r.design.prefixed("split") if isinstance(n, int) and n > 1}
    most = int(dict(r.facts.machine.limits).get("max_cluster_blocks", 1))
    if len(set(counts.values())) > 1:
        yield f"split: clusters of {', '.join(map(str, counts.values()))} blocks in one kernel; make them equal"
    for axis, blocks in counts.items():
        if blocks > most:
            yield f"split.{axis}={blocks}: a cluster of {r.facts.machine.name} has at most {most} blocks; take fewer"
        yield from (f"split.{axis}={blocks}: {why}" for why in _unsplit(r.loops[axis], axis))


def _unsplit(loop: ir.Loop, axis: str) -> Iterator[str]:
    """What hinders the tiles of a loop from being dealt out."""
    if loop.parallel or len(loop.axes) != 1 or loop.axes[0].start is not None or loop.axes[0].stop is not None:
        yield "only a serial loop over a whole dimension is shared; drop it"
    sums = {a.target for a in find_accumulations(loop.body).values()}
    for stmt in ir.walk(loop.body):
        if isinstance(stmt, ir.Assign) and stmt.name not in sums:
            yield f"{stmt.name} is carried, and is no sum, maximum or minimum that could be joined; drop it"
        if isinstance(stmt, ir.Store) and axis not in stmt.ref.index:
            yield f"every block would store to the same places of {stmt.ref.buffer}; drop it"


def _caches(r: Rows) -> Iterator[str]:
    for tensor, policy in r.design.prefixed("cache"):
        if policy not in CACHES:
            yield f"cache.{tensor}={policy}: takes one of {', '.join(CACHES)}"


RULES: tuple[Rule[Rows], ...] = (
    Rule("keep", "registers have no addresses: each loop must find its pieces where another left them", _keeps),
    Rule("held", "a row that stays takes registers for as long as it stays", _held),
    Rule("split", "blocks of a cluster join what they have added up, and nothing else", _splits),
    Rule("cache", "a policy is an instruction's", _caches),
)

__all__ = ["RULES", "Rows", "broken_rules", "held"]
