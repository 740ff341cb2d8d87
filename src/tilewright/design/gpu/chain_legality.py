"""Which designs of a chain the matrix unit, the copy engine and an SM allow: rules with their reasons."""

from __future__ import annotations

from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import Chain, Moved
from tilewright.design.gpu.chain_resources import ChainResources
from tilewright.design.gpu.resources import ATOM_ROWS
from tilewright.design.legality import Reason, Rule
from tilewright.language import ir

SINGLE: dict[str, tuple[object, ...]] = {
    "persistent": (True, False), "producer": ("warp", "warpgroup"), "schedule": ("cooperative", "pingpong"),
    "grid.order": ("row", "grouped"), "grid.descending": (True, False), "warpgroups": (1, 2, 3),
    "overlap": (True, False), "drawn": (True, False), "own": (True, False),
}  # fmt: skip
WORDS = {"store": ("direct", "tma"), "cache": ("evict_first", "evict_last"), "atom": ("wgmma", "mma", "fma")}
COUNTS = ("stages", "stages.item", "grid.group")
MOST_ITEMS = 4
"""Items in flight: as many words of shared memory tell their numbers."""
WARP_ROWS = 16
"""Rows of one of the four warps of a warpgroup."""
WORKING = 32
"""Registers of a thread beside scores, operands and sums: rows, addresses, loops. By ptxas' reports."""


def legal_chain(kernel: ir.Kernel, found: Chain, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why `design` cannot run `kernel`, a chain; an empty list for a legal design."""
    r = ChainResources(found, design, facts)
    formed = [Reason("form", m, "a decision that nobody reads would be lost in silence") for m in _form(r)]
    formed += [Reason("stores", m, "results leave by rows of one block") for m in _results(kernel, r)]
    return formed or [Reason(rule.name, m, rule.reason) for rule in RULES for m in rule.check(r)]


def _form(r: ChainResources) -> Iterator[str]:
    c = r.chain
    axes, tensors = {c.row.name, c.step.name}, {o.tensor for o in (*c.still, *c.moving)}
    tiled = axes | ({c.packed.name} if c.packed else set())
    known = {"tile": tiled, "atom": {d.name for d in c.dots}, "store": set(c.outputs), "cache": tensors}
    for name, value in r.design.decisions:
        prefix, _, what = name.partition(".")
        if name in SINGLE:
            if value not in SINGLE[name]:
                yield f"{name}={value}: takes one of {', '.join(map(str, SINGLE[name]))}"
        elif name in COUNTS or (prefix == "tile" and what in known["tile"]):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{name}={value}: takes a whole number, 1 or more"
        elif prefix in WORDS and what in known[prefix]:
            if value not in WORDS[prefix]:
                yield f"{name}={value}: takes one of {', '.join(WORDS[prefix])}"
        else:
            yield f"{name}={value}: no decision of this chain is called so; drop it"
    for axis in sorted(axes):
        if r.design.get(f"tile.{axis}") is None:
            yield f"tile.{axis} is missing; add it"
    if r.design.get("stages") is None:
        yield "stages is missing; add it"


def _results(kernel: ir.Kernel, r: ChainResources) -> Iterator[str]:
    c = r.chain
    heads = {a.name for a in (*c.each, *c.single)}
    for s in ir.walk(kernel.body):
        if not isinstance(s, ir.Store) or r.design.get(f"store.{s.ref.buffer}") != "tma":
            continue
        name = f"store.{s.ref.buffer}=tma"
        rest = [i for i in s.ref.index if i not in heads]
        param, width = kernel.param(s.ref.buffer), r.facts.sizes.get(str(rest[-1]), 0) if rest else 0
        if len(rest) != 2 or rest[0] != c.row.name or rest[1] not in r.widths:
            yield f"{name}: it is not stored by rows of whole sums; take direct"
        elif len(s.ref.index) - 1 not in r.facts.unit.get(s.ref.buffer, ()) or s.ref.buffer not in r.facts.aligned:
            yield f"{name}: its rows have no stride of one, or do not start at multiples of 16 bytes; take direct"
        elif width % 32 or param.dtype.name not in ("bf16", "f16"):
            yield f"{name}: rows of {width} {param.dtype} are not whole panels of 64 bytes in 16 bits; take direct"


def _unit(r: ChainResources) -> Iterator[str]:
    c = r.chain
    if "wgmma" not in {a.name.partition(".")[0] for a in r.facts.machine.atoms}:
        yield f"atom=wgmma: {r.facts.machine.name} has no wgmma; take fma"
    if c.dtype not in ("bf16", "f16"):
        yield f"atom=wgmma: operands are {c.dtype}; take fma"
    if any(r.design.get(f"atom.{d.name}") != "wgmma" for d in c.dots):
        yield "atom: some products go to the matrix unit and some do not; give it all"


def _atom(r: ChainResources) -> Iterator[str]:
    c = r.chain
    if r.rows != ATOM_ROWS * r.groups:
        unit = ATOM_ROWS * r.groups
        tile = unit // r.packed
        yield f"tile.{c.row.name}={r.rows // r.packed}: {r.groups} warpgroups have {ATOM_ROWS} rows each; take {tile}"
    if r.columns % 16 or r.columns > 256:
        yield f"tile.{c.step.name}={r.columns}: one wgmma sums 16 and has up to 256 columns; take 128"
    for width in r.widths:
        points = r.facts.sizes.get(width, 0)
        if width not in r.facts.fixed or points % 8 or not 8 <= points <= 256:
            yield f"atom=wgmma: sums have {points} columns along {width}, not 8, 16 ... 256 that are fixed; take fma"
    for o in (*c.still, *c.moving):
        points = r.facts.sizes.get(o.depth, 0)
        if o.depth != c.step.name and (o.depth not in r.facts.fixed or points % 16 or points < 16):
            what = f"{o.tensor} is summed over {points} along {o.depth}"
            yield f"atom=wgmma: {what}, no multiple of 16 that is fixed; take fma"


def _packed(r: ChainResources) -> Iterator[str]:
    c, rows = r.chain, r.rows // r.packed
    if r.packed == 1 or c.packed is None:
        return
    if rows % WARP_ROWS or (rows % ATOM_ROWS and ATOM_ROWS % rows):
        what = f"{rows} rows of each are not whole warps of {WARP_ROWS}"
        yield f"tile.{c.packed.name}={r.packed}: {what}; take 16, 32 or 64"
    if c.bound_by(c.packed.name):
        yield f"tile.{c.packed.name}={r.packed}: where the columns end depends on {c.packed.name}; drop it"


def _copies(r: ChainResources) -> Iterator[str]:
    for o in r.chain.still:
        if not o.runs_along_sum(r.facts):
            yield f"atom=wgmma: rows of {o.tensor} do not run along {o.depth}; take fma"
    for o in (*r.chain.still, *r.chain.moving):
        yield from _copied(r, o)


def _copied(r: ChainResources, o: Moved) -> Iterator[str]:
    unit = r.facts.unit.get(o.tensor, ())
    if not any(d in unit for d, i in enumerate(o.ref.index) if i in (o.axis, o.depth)):
        yield f"atom=wgmma: no axis of tiles of {o.tensor} has stride one; take fma"
    if o.tensor not in r.facts.aligned:
        yield f"atom=wgmma: rows of {o.tensor} do not start at multiples of 16 bytes; take fma, or pad it"
    if len(o.ref.index) > 5:
        yield f"atom=wgmma: {o.tensor} has {len(o.ref.index)} dimensions, and the copy engine knows 5; take fma"
    if o.depth == r.chain.step.name and o.runs_along_sum(r.facts) and r.chain.step.stop is not None:
        yield f"atom=wgmma: columns of {o.tensor} past the end cannot be cleared; store it by columns, or take fma"


def _ring(r: ChainResources) -> Iterator[str]:
    stages, limit = r.design.number("stages"), int(r.facts.machine.limit("shared_bytes_per_block"))
    if stages < 2 and r.design.get("overlap"):
        yield f"stages={stages}: a product lags a step behind, so two steps are held; take 2"
    if r.shared_bytes > limit:
        fits = (limit - r.shared_bytes + stages * r.step_bytes) // max(1, r.step_bytes)
        taken = f"a block takes {r.shared_bytes} bytes of shared memory, of {limit}"
        yield f"stages={stages}: {taken}; take {max(fits, 0)}, or smaller tiles"


def _registers(r: ChainResources) -> Iterator[str]:
    if r.accumulators + WORKING > r.register_limit:
        what = f"scores, operands and sums take {r.accumulators} registers"
        yield f"tile.{r.chain.step.name}={r.columns}: {what} of {r.register_limit}; take fewer columns or warpgroups"


def _drawn(r: ChainResources) -> Iterator[str]:
    items = r.design.number("stages.item", 1)
    if items > 1 and not r.design.get("persistent"):
        yield f"stages.item={items}: a block that ends has no next item; add persistent=True"
    if items > MOST_ITEMS:
        yield f"stages.item={items}: {MOST_ITEMS} items in flight are the most; take {MOST_ITEMS}"
    if r.design.get("drawn") and not r.design.get("persistent"):
        yield "drawn=True: only blocks that stay draw another tile; add persistent=True"


def _own(r: ChainResources) -> Iterator[str]:
    if r.design.get("own") and r.groups < 2:
        yield "own=True: one warpgroup has all rows of its block; drop it"


def _turns(r: ChainResources) -> Iterator[str]:
    if r.design.get("schedule") == "pingpong":
        if r.groups < 2:
            yield "schedule=pingpong: one warpgroup has nobody to take turns with; take cooperative"
        if not r.design.get("overlap"):
            yield "schedule=pingpong: a turn issues both products of a warpgroup; add overlap=True"


RULES: tuple[Rule[ChainResources], ...] = (
    Rule("unit", "the matrix unit multiplies 16-bit numbers", _unit),
    Rule("atom", "one instruction has 64 rows and sums 16 products", _atom),
    Rule("packed", "rows of one warp belong together, and all rows of a block see the same columns", _packed),
    Rule("copies", "the copy engine brings rows of 128 bytes that start at multiples of 16", _copies),
    Rule("ring", "what is multiplied lies in shared memory, all of it", _ring),
    Rule("registers", "scores, what is computed of them, and sums lie in registers, all of them", _registers),
    Rule("drawn", "a block that ends has no next tile", _drawn),
    Rule("own", "rows of a block are dealt to warpgroups", _own),
    Rule("turns", "a turn is a warpgroup's while others compute", _turns),
)

__all__ = ["legal_chain"]
