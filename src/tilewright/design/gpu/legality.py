"""Which designs of a product the matrix unit, the copy engine and an SM allow: rules with their reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import chain
from tilewright.design.gpu.product import Operand, product
from tilewright.design.gpu.resources import ATOM_ROWS, ROW_BYTES, SPARE_REGISTERS, Resources, shares_of
from tilewright.design.legality import Reason, Rule
from tilewright.language import ir

NUMBERS = ("tile", "cluster", "split", "box")
WORDS = {
    "how": ("cluster", "two_pass", "atomic"),
    "store": ("direct", "tma"),
    "cache": ("evict_first", "evict_last"),
    "atom": ("wgmma", "mma", "fma"),
    "engine": ("tma", "cp_async", "plain"),
}
SINGLE: dict[str, tuple[object, ...]] = {
    "swap": (True, False), "persistent": (True, False), "pdl": (True, False), "producer": ("warp", "warpgroup"),
    "schedule": ("cooperative", "pingpong"), "grid.order": ("row", "grouped", "hilbert"), "warpgroups": (1, 2, 3),
    "inflight": (0, 1),
}  # fmt: skip
COUNTS = ("stages", "stagger", "grid.group")
SHARED_RESERVE = 1024
TICKETS = 1 << 14
UNIT_DTYPES = ("bf16", "f16", "tf32", "i8")
"""What wgmma multiplies here. Its sums of 8-bit floats keep fewer bits than f32 has: those go to mma."""


def is_for_matrix_unit(design: Design) -> bool:
    """Whether a design gives its dots to wgmma."""
    return any(atom == "wgmma" for _, atom in design.prefixed("atom"))


def legal_gpu(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why `design` cannot run `kernel` on an NVIDIA GPU; an empty list for a legal design."""
    if not is_for_matrix_unit(design):
        from tilewright.design.gpu.simt import legal_simt

        return legal_simt(kernel, design, facts)
    found = product(kernel)
    if isinstance(found, str) and not isinstance(chained := chain(kernel), str):
        from tilewright.design.gpu.chain_legality import legal_chain

        return legal_chain(kernel, chained, design, facts)
    if isinstance(found, str):
        return [Reason("product", f"atom=wgmma: {found}; take mma or fma", "the matrix unit adds up plain products")]
    r = Resources(found, design, facts)
    formed = [Reason("form", m, "a decision that nobody reads would be lost in silence") for m in _form(r)]
    return formed or [Reason(rule.name, m, rule.reason) for rule in RULES for m in rule.check(r)]


# ---------------------------------------------------------------------------------------------- form
def _form(r: Resources) -> Iterator[str]:
    p = r.product
    axes = {p.m.name, p.n.name, p.k.name}
    tensors = {o.tensor for o in p.operands} | set(p.outputs)
    known = {"tile": axes, "cluster": {p.m.name, p.n.name}, "split": {p.k.name}, "how": {p.k.name}}
    known |= {"atom": {d.name for d in p.dots}, "store": set(p.outputs), "cache": tensors, "engine": tensors}
    known |= {"early": set(r.beside), "box": {o.tensor for o in p.operands}}
    for name, value in r.design.decisions:
        prefix, _, what = name.partition(".")
        if name in SINGLE:
            if value not in SINGLE[name]:
                yield f"{name}={value}: takes one of {', '.join(map(str, SINGLE[name]))}"
        elif name in COUNTS or (prefix in NUMBERS and what in known[prefix]):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{name}={value}: takes a whole number, 1 or more"
        elif prefix == "early" and what in known["early"]:
            if value is not True:
                yield f"{name}={value}: takes True, or is left away"
        elif prefix in WORDS and what in known[prefix]:
            if value not in WORDS[prefix]:
                yield f"{name}={value}: takes one of {', '.join(WORDS[prefix])}"
        else:
            yield f"{name}={value}: no decision of this product is called so; drop it"
    for axis in sorted(axes):
        if r.design.get(f"tile.{axis}") is None:
            yield f"tile.{axis} is missing; add it"
    if r.design.get("stages") is None:
        yield "stages is missing; add it"


# --------------------------------------------------------------------------------------------- rules
def _unit(r: Resources) -> Iterator[str]:
    if "wgmma" not in {a.name.partition(".")[0] for a in r.facts.machine.atoms}:
        yield f"atom=wgmma: {r.facts.machine.name} has no wgmma; take mma"
    if r.product.dtype not in UNIT_DTYPES:
        yield f"atom=wgmma: operands are {r.product.dtype}; take mma or fma"
    if r.product.dtype == "i8" and r.splits > 1:
        yield f"split.{r.product.k.name}={r.splits}: parts of sums are joined in f32, and these are i32; drop it"
    if any(r.design.get(f"atom.{d.name}") != "wgmma" for d in r.product.dots):
        yield "atom: some products go to the matrix unit and some do not; give it all"
    if r.design.get("pdl"):
        yield "pdl=True: every kernel that can overlaps the one before it; drop it"


def _sizes(r: Resources) -> Iterator[str]:
    k = r.product.k
    if r.facts.sizes.get(k.over) == 0:
        yield f"tile.{k.name}: {k.over} is 0, and the first of no steps sets nothing; take fma"


def _atom(r: Resources) -> Iterator[str]:
    rows, columns = r.tile(r.row), r.tile(r.column)
    unit = ATOM_ROWS * (1 if r.pingpong else r.groups)
    if r.short:
        yield from _short(r)
    elif rows % unit:
        more = -(-rows // unit) * unit
        yield f"tile.{r.row}={rows}: not a multiple of {unit}, the rows of {r.groups} warpgroups; take {more}"
    if columns % 8 or columns > 256:
        yield f"tile.{r.column}={columns}: one wgmma has 8, 16, ... 256 columns; take {min(256, -(-columns // 8) * 8)}"
    if r.depth * r.product.itemsize % ROW_BYTES:
        least = ROW_BYTES // r.product.itemsize
        yield f"tile.{r.product.k.name}={r.depth}: not whole rows of {ROW_BYTES} bytes; take {least}"
    if r.product.dtype == "i8" and columns > 32 and columns % 16:
        yield f"tile.{r.column}={columns}: of i8 one wgmma has 8, 16, 24, 32, 48, ... 256 columns; take {columns + 8}"
    for o in r.product.operands:
        if not r.product.runs_along_sum(o, r.facts) and r.tile(o.axis) * r.product.itemsize % ROW_BYTES:
            least = ROW_BYTES // r.product.itemsize
            label = f"tile.{o.axis}={r.tile(o.axis)}"
            yield f"{label}: {o.tensor} has its rows along {o.axis}, {least} to 128 bytes; take {least}"


def _short(r: Resources) -> Iterator[str]:
    """A tile of fewer rows than the atom has: of few rows of x, boxes as high as x is."""
    label = f"tile.{r.row}={r.tile(r.row)}"
    if r.tile(r.row) % 8:
        yield f"{label}: swizzled rows come in eights; take {-(-r.tile(r.row) // 8) * 8}"
    if r.groups > 1 or r.pingpong:
        yield f"{label}: {r.groups} warpgroups take {ATOM_ROWS} rows each; take warpgroups=1"
    if r.splits > 1 and r.how != "cluster":
        yield f"{label}: parts are joined in memory by whole rows of the atom; take how.{r.product.k.name}=cluster"
    if any(r.design.get(f"store.{t}") == "tma" for t in r.product.outputs):
        yield f"{label}: boxes of results are {ATOM_ROWS} rows high; take store=direct"


def _copies(r: Resources) -> Iterator[str]:
    for o in r.product.operands:
        yield from _copied(r, o)


def _copied(r: Resources, o: Operand) -> Iterator[str]:
    if r.product.itemsize != 2 and not r.product.runs_along_sum(o, r.facts):
        yield f"engine.{o.tensor}=tma: {r.product.dtype} must run along the sum, for wgmma turns 16 bits only; take fma"
    unit = r.facts.unit.get(o.tensor, ())
    tile_dims = [d for d, i in enumerate(o.ref.index) if i in (o.axis, r.product.k.name)]
    if not any(d in unit for d in tile_dims):
        yield f"engine.{o.tensor}=tma: no axis of its tiles has stride one; take mma or fma"
    if o.tensor not in r.facts.aligned:
        yield f"engine.{o.tensor}=tma: its rows do not start at multiples of 16 bytes; take fma, or pad it"
    yield from _box(r, o)
    if r.design.get(f"engine.{o.tensor}", "tma") != "tma":
        yield f"engine.{o.tensor}: the matrix unit is fed by the copy engine alone; take tma, or mma"


def _box(r: Resources, o: Operand) -> Iterator[str]:
    """Rows that one instruction of the copy engine moves, where a design says it."""
    rows = r.design.number(f"box.{o.tensor}", 0)
    if not rows:
        return
    along = r.product.runs_along_sum(o, r.facts)
    share = (r.tile(o.axis) if along else r.depth) // (r.cluster(r.row) * r.cluster(r.column) // r.cluster(o.axis))
    if rows % 8 or rows > min(share, 256) or share % rows:
        yield f"box.{o.tensor}={rows}: takes a multiple of 8 that divides {share}, the rows of a block's copy"


def _ring(r: Resources) -> Iterator[str]:
    stages, limit = r.design.number("stages"), int(r.facts.machine.limit("shared_bytes_per_block"))
    if stages <= r.design.number("inflight", 1):
        yield f"stages={stages}: one step is multiplied while the next arrives; take 2"
    if r.shared_bytes > limit:
        fits = (limit - r.shared_bytes + stages * r.stage_bytes) // r.stage_bytes
        taken = f"a block takes {r.shared_bytes} bytes of shared memory, of {limit}"
        yield f"stages={stages}: {taken}; take {max(fits, 0)}, or smaller tiles"


def _registers(r: Resources) -> Iterator[str]:
    taken = r.accumulators + SPARE_REGISTERS
    if r.early and taken <= r.register_limit < taken + r.early:
        yield f"early: {r.early} registers of a thread would wait beside {r.accumulators} with sums; drop it"
    elif taken > r.register_limit:
        yield (
            f"tile.{r.row}={r.tile(r.row)}, tile.{r.column}={r.tile(r.column)}: {r.accumulators} registers of a thread "
            f"hold sums, of {r.register_limit}; take smaller tiles or more warpgroups"
        )


def _clusters(r: Resources) -> Iterator[str]:
    most = int(dict(r.facts.machine.limits).get("max_cluster_blocks", 1))
    if r.blocks > most:
        yield f"cluster: {r.blocks} blocks, and {most} is the most; take fewer"
    spread = r.cluster(r.row) * r.cluster(r.column)
    if spread > 1 and r.splits > 1 and r.how == "cluster":
        yield f"how.{r.product.k.name}=cluster: blocks of the cluster share operands already; take two_pass"
    for axis in (r.product.m, r.product.n):
        if axis.over not in r.facts.fixed:
            continue
        tiles = -(-r.facts.sizes[axis.over] // r.tile(axis.name))
        if r.cluster(axis.name) > max(1, tiles):
            yield f"cluster.{axis.name}={r.cluster(axis.name)}: {axis.over} has {tiles} tiles; take fewer blocks"
    for o in r.product.operands:
        share = spread // r.cluster(o.axis)
        rows = r.tile(o.axis) if r.product.runs_along_sum(o, r.facts) else r.depth
        if share > 1 and rows % (8 * share):
            yield f"cluster: {share} blocks share {rows} rows of {o.tensor}, at least 8 each; take fewer blocks"


def _splits(r: Resources) -> Iterator[str]:
    p, parts = r.product, r.splits
    if parts == 1:
        return
    label = f"split.{p.k.name}={parts}"
    if p.k.over not in r.facts.fixed:
        yield f"{label}: {p.k.over} is not a part of the kernel, so its parts have no size; drop it"
        return
    steps = math.ceil(r.facts.sizes[p.k.over] / r.depth)
    if math.ceil(steps / math.ceil(steps / parts)) != parts:
        yield f"{label}: {steps} steps fall in fewer parts; take {math.ceil(steps / math.ceil(steps / parts))}"
    if r.how == "cluster" and (r.design.get("persistent") or not (r.short or r.groups * ATOM_ROWS == r.tile(r.row))):
        wanted = "one tile for each block, 64 rows for each warpgroup"
        yield f"how.{p.k.name}=cluster: {wanted}; drop persistent, or take two_pass"
    if r.pingpong:
        yield f"{label}: warpgroups that take turns do not join parts; take schedule=cooperative"
    if r.how != "cluster" and r.tiles > TICKETS:
        yield f"{label}: {r.tiles} tiles, and there are {TICKETS} tickets; drop it"


def _turns(r: Resources) -> Iterator[str]:
    if r.early and (r.splits > 1 or r.pingpong):
        yield "early: loads come first where a block computes one whole sum at a time; drop it"
    if r.pingpong and r.groups != 2:
        yield f"schedule=pingpong: two warpgroups take turns, not {r.groups}; take warpgroups=2"
    if steps := r.design.number("stagger", 0):
        if r.pingpong or r.groups == 1:
            yield f"stagger={steps}: it is for warpgroups that share each step; drop it"
        elif r.design.number("stages") < steps * (r.groups - 1) + 2:
            most = (r.design.number("stages") - 2) // (r.groups - 1)
            yield f"stagger={steps}: the ring has to hold what lies between the warpgroups; take {most}, or drop it"
    if r.design.get("producer") == "warp" and r.accumulators > 128:
        yield "producer=warp: consumers get no registers from it; take producer=warpgroup"


def _stores(r: Resources) -> Iterator[str]:
    for tensor in r.product.outputs:
        if r.design.get(f"store.{tensor}") != "tma":
            continue
        label = f"store.{tensor}=tma"
        if tensor not in r.facts.aligned or not r.product.unit_column(tensor, r.facts):
            yield f"{label}: it takes rows at multiples of 16 bytes, columns side by side; take direct"
        if r.tile(r.product.n.name) % (64 if r.swap else 32) or r.product.result_dtype not in ("bf16", "f16"):
            yield f"{label}: it takes 32 or 64 columns of 16-bit elements at a time; take direct"
        elif not r.swap and (width := _stored_together(r)) not in (32, 64):
            yield f"{label}: a block of the cluster writes {width} columns at a time, not 32 or 64; take direct"


def _stored_together(r: Resources) -> int:
    """Columns that leave together: of a block's share, where blocks of a cluster join parts of a sum, or its tile's."""
    together = r.splits > 1 and r.how == "cluster"
    share = r.tile(r.column) // (shares_of(r.tile(r.column), r.splits) if together else 1)
    return share if share <= ATOM_ROWS else math.gcd(share, ATOM_ROWS)


RULES = (
    Rule("unit", "a machine executes only the instructions it has", _unit),
    Rule("sizes", "the first step sets the sum", _sizes),
    Rule("atom", "wgmma multiplies 64 rows by up to 256 columns, 32 bytes of the sum at a time", _atom),
    Rule("copies", "the copy engine moves boxes with rows of 128 bytes that start at multiples of 16", _copies),
    Rule("ring", "a block's steps in flight lie in its shared memory", _ring),
    Rule("registers", "sums lie in registers", _registers),
    Rule("clusters", "blocks of a cluster run together on neighbouring SMs", _clusters),
    Rule("splits", "parts of a sum are joined in order by one block", _splits),
    Rule("turns", "each warpgroup has its place in the schedule", _turns),
    Rule("stores", "the copy engine writes boxes as it reads them", _stores),
)

__all__ = ["RULES", "is_for_matrix_unit", "legal_gpu"]
