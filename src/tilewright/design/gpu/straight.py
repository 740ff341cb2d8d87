"""Designs of products of few rows whose operands go straight from memory to registers: a GEMV, widened.

Nothing but the weights takes time in such a product. So a block has no barrier, no descriptor and no shared memory to
set up before its first load: each warp asks for its part of some rows of the weights, all of it at once where registers
allow, and multiplies as it arrives. Warps of a block share the sum (`warps.AXIS`), and join what they have at the end.
`atom=fma`: the lanes of a warp lie along the sum of the same rows, and an access reads 512 bytes of one row: all the
bandwidth there is, for one row of x to four. `atom=mma`: fragments of 16 rows of x by 8 of the weights, 64 bytes each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.product import Operand, Product, product
from tilewright.design.legality import Reason, Rule
from tilewright.language import ir

CHUNK = 16
"""Bytes of a row that a lane reads at once."""

UNITS = {"mma": (16, 8, 4), "fma": (1, 1, 32)}
"""Rows and columns of a fragment of the result, and lanes along the sum."""

DTYPES = {"mma": ("bf16", "f16", "i8", "f8e4m3"), "fma": ("bf16", "f16", "f32", "tf32")}
MOST_ROWS = {"mma": 64, "fma": 8}
"""Rows of a tile; more are read again by each warp so often that shared memory, or mma, pays."""

_NUMBERS = ("tile", "warps", "unroll")
_WORDS = {"cache": ("ca", "cg", "cs", "evict_first"), "atom": ("mma", "fma")}
_SINGLE = ("warps", "resident", "stages")
_ORDERS = ("row", "grouped")
MOST_JOINED = 8192
"""Numbers that the warps of a block give one another at once."""

_SPARE = 16  # registers for addresses and the epilogue


@dataclass(frozen=True)
class Straight:
    """A product by such a design: what a warp has."""

    product: Product
    design: Design
    facts: Facts

    def tile(self, axis: str) -> int:
        """Points of an axis that a block works on, of the sum in one step."""
        return self.design.number(f"tile.{axis}")

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.design.number("warps", 4)

    @property
    def along(self) -> int:
        """Warps that share a sum."""
        return self.design.number(f"warps.{self.product.k.name}", 1)

    @property
    def across(self) -> int:
        """Warps along the columns."""
        return max(1, self.warps // self.along)

    @property
    def atom(self) -> str:
        """What multiplies."""
        return str(next(atom for _, atom in self.design.prefixed("atom")))

    @property
    def unit(self) -> tuple[int, int, int]:
        """Rows and columns of a fragment of the result, and lanes along the sum."""
        return UNITS[self.atom]

    @property
    def run(self) -> int:
        """Elements of a chunk."""
        return CHUNK // self.product.itemsize

    @property
    def step(self) -> int:
        """Points of the sum that a warp takes with one chunk a lane."""
        return self.unit[2] * self.run

    @property
    def fragments(self) -> tuple[int, int, int]:
        """Of one warp: fragments of rows and of columns of the result, and chunks of the sum in a step."""
        p, (rows, columns, _) = self.product, self.unit
        across = self.tile(p.n.name) // (columns * self.across)
        return self.tile(p.m.name) // rows, across, self.tile(p.k.name) // self.step

    @property
    def weights(self) -> int:
        """Operands along the columns."""
        return sum(o.axis == self.product.n.name for o in self.product.operands)

    @property
    def registers(self) -> int:
        """Of a thread, for sums and for what is in flight."""
        rows, columns, chunks = self.fragments
        sums = rows * columns * len(self.product.dots) * (4 if self.atom == "mma" else 1)
        # Rows of x are asked for as they are needed: the assembler holds those of one or two chunks.
        halves = min(2 * rows, -(-self.product.size(self.product.m, self.facts) // 8))
        of_x = 4 * halves * min(chunks, 2) if self.atom == "mma" else 4 * rows + 8
        return sums + 4 * chunks * columns * self.weights + of_x

    @property
    def stages(self) -> int:
        """Steps of a warp that are on their way at once; 0: the one at hand, straight to registers.

        1: straight to registers too, where chunks of the next step take the place of those that are multiplied.
        """
        return self.design.number("stages", 0)

    @property
    def flying(self) -> int:
        """Bytes of weights that a block has asked for before it needs the first."""
        _, columns, chunks = self.fragments
        return 32 * self.warps * CHUNK * columns * chunks * self.weights * max(1, self.stages)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: steps on their way, and sums that its warps join."""
        rows, columns, _ = self.fragments
        each = 4 * rows * columns * (32 if self.atom == "mma" else 1)
        joined = min(each * self.warps, MOST_JOINED) * len(self.product.dots) if self.along > 1 else 0
        return self.ring_bytes + (4 * joined if self.atom == "mma" else joined)

    @property
    def ring_bytes(self) -> int:
        """Shared memory of a block in which steps are on their way."""
        _, columns, chunks = self.fragments
        _, width, lanes = self.unit
        rows = columns * width * self.weights
        slots = self.stages if self.stages > 1 else 0
        return slots * self.warps * rows * slot_pitch(chunks * lanes * CHUNK, lanes < 32)


def slot_pitch(row_bytes: int, quads: bool) -> int:
    """Bytes from one row to the next of a step on its way: lanes in quads read eight rows, from all banks."""
    return row_bytes + (64 if quads and row_bytes % 128 == 0 else 0)


def is_straight(design: Design) -> bool:
    """Whether a design feeds what multiplies from memory, without shared memory between: by warps along the sum."""
    return any(True for _ in design.prefixed("warps"))


def straight(p: Product, facts: Facts, columns: int, along: int, across: int, chunks: int, atom: str = "mma") -> Design:
    """A design by what a warp has: fragments of columns, warps along the sum and across, chunks in flight.

    As many warps share a sum as have a part of it, at most `along`.
    """
    height, width, lanes = UNITS[atom]
    steps = math.ceil(p.size(p.k, facts) / (lanes * (CHUNK // p.itemsize) * chunks))
    along = parts_of(steps, along)
    rows = -(-min(p.size(p.m, facts), MOST_ROWS[atom]) // height) * height
    decisions: dict[str, Choice] = {f"atom.{d.name}": atom for d in p.dots}
    decisions |= {
        f"tile.{p.m.name}": rows,
        f"tile.{p.n.name}": width * columns * across,
        f"tile.{p.k.name}": lanes * (CHUNK // p.itemsize) * chunks,
        "warps": along * across,
        f"warps.{p.k.name}": along,
    }
    decisions |= {f"cache.{o.tensor}": "cs" for o in p.operands if o.axis == p.n.name}
    return Design.of(decisions)


def parts_of(steps: int, most: int) -> int:
    """Parts of equal length, the last one perhaps shorter, that so many steps fall in."""
    return math.ceil(steps / math.ceil(steps / most))


# -------------------------------------------------------------------------------------------------- legality
def legal_straight(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why such a design cannot run `kernel`; an empty list for a legal one."""
    found = product(kernel)
    if isinstance(found, str):
        return [Reason("product", f"atom: {found}; add lanes", "fragments hold operands of plain products")]
    s = Straight(found, design, facts)
    formed = [Reason("form", m, "a decision that nobody reads would be lost in silence") for m in _form(s)]
    return formed or [Reason(rule.name, m, rule.reason) for rule in RULES for m in rule.check(s)]


def _form(s: Straight) -> Iterator[str]:
    p = s.product
    axes, tensors = {p.m.name, p.n.name, p.k.name}, {o.tensor for o in p.operands} | set(p.outputs)
    known = {"tile": axes, "warps": {p.k.name}, "unroll": {p.k.name}}
    known |= {"cache": tensors, "atom": {d.name for d in p.dots}}
    for name, value in s.design.decisions:
        prefix, _, what = name.partition(".")
        if name in _SINGLE or name == "grid.group" or (prefix in _NUMBERS and what in known[prefix]):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                yield f"{name}={value}: takes a whole number, 1 or more"
        elif name == "grid.order":
            if value not in _ORDERS:
                yield f"{name}={value}: takes one of {', '.join(_ORDERS)}"
        elif prefix in _WORDS and what in known[prefix]:
            if value not in _WORDS[prefix]:
                yield f"{name}={value}: takes one of {', '.join(_WORDS[prefix])}"
        else:
            yield f"{name}={value}: no decision of operands in registers is called so; drop it"
    for axis in sorted(axes):
        if s.design.get(f"tile.{axis}") is None:
            yield f"tile.{axis} is missing; add it"
    if len(dict(s.design.prefixed("atom"))) != len(p.dots) or len({a for _, a in s.design.prefixed("atom")}) > 1:
        yield "atom: all products of a kernel take the same; give it all of them"


def _unit(s: Straight) -> Iterator[str]:
    if s.product.dtype not in DTYPES[s.atom]:
        yield f"atom={s.atom} multiplies {', '.join(DTYPES[s.atom])} here, not {s.product.dtype}; take another"


def _operands(s: Straight) -> Iterator[str]:
    for o in s.product.operands:
        yield from _operand(s, o)


def _operand(s: Straight, o: Operand) -> Iterator[str]:
    if not s.product.runs_along_sum(o, s.facts):
        yield f"atom: {o.tensor} does not run along the sum, and its chunks would be single elements; add engine"
    elif o.tensor not in s.facts.aligned:
        yield f"atom: rows of {o.tensor} do not start at multiples of 16 bytes; add engine, or pack.{o.tensor}=row"


def _sum(s: Straight) -> Iterator[str]:
    k = s.product.k
    if k.over not in s.facts.fixed or s.facts.sizes[k.over] % s.run:
        yield f"tile.{k.name}: {k.over} is no fixed multiple of {s.run}, the elements of a chunk; take another atom"


def _tiles(s: Straight) -> Iterator[str]:
    p = s.product
    rows, columns, depth = (s.tile(a.name) for a in (p.m, p.n, p.k))
    if s.warps % s.along or s.warps > 32:
        yield f"warps={s.warps}: takes up to 32, a multiple of warps.{p.k.name}={s.along}"
        return
    height, width, _ = s.unit
    if rows % height or rows > MOST_ROWS[s.atom]:
        yield f"tile.{p.m.name}={rows}: takes {height} rows each of the instruction, up to {MOST_ROWS[s.atom]}"
    if columns % (width * s.across):
        yield f"tile.{p.n.name}={columns}: {s.across} warps take {width} columns each; take {width * s.across}"
    if depth % s.step:
        yield f"tile.{p.k.name}={depth}: a warp takes {s.step} at a time; take a multiple of it"
    elif p.k.over in s.facts.fixed:
        steps = math.ceil(s.facts.sizes[p.k.over] / depth)
        if (parts := parts_of(steps, s.along)) != s.along:
            yield f"warps.{p.k.name}={s.along}: {steps} steps fall in fewer parts; take {parts}"


def _registers(s: Straight) -> Iterator[str]:
    most = min(255, 65536 // (32 * s.warps * s.design.number("resident", 1)) // 8 * 8)
    if s.registers + _SPARE > most:
        yield f"tile: {s.registers} registers of a thread hold sums and operands, of {most}; take smaller tiles"
    if not 1 <= s.design.number("resident", 1) <= 64 // s.warps:
        yield f"resident={s.design.number('resident', 1)}: takes 1 to {64 // s.warps} blocks of {s.warps} warps"


def _ring(s: Straight) -> Iterator[str]:
    if not s.stages:
        return
    if s.stages == 1 and s.atom != "mma":
        yield "stages=1: registers are filled again behind products of mma; take 2, or drop it"
    resident, room = s.design.number("resident", 1), int(s.facts.machine.limit("shared_bytes_per_block"))
    # Of each block the system takes 1 KB.
    each = min(room, (room + 1024) // resident - 1024)
    if s.shared_bytes > each:
        taken = f"{s.shared_bytes} bytes of shared memory in each of {resident} blocks"
        yield f"stages={s.stages}: {taken}, of {each}; take fewer"


RULES: tuple[Rule[Straight], ...] = (
    Rule("unit", "an instruction multiplies the types it has", _unit),
    Rule("operands", "a lane reads 16 bytes of a row that lie side by side along the sum", _operands),
    Rule("sum", "no chunk is cut by the end of the sum", _sum),
    Rule("tiles", "16 rows by 8 columns a fragment of mma, four lanes along the sum; of FMA one, and 32", _tiles),
    Rule("registers", "sums and operands lie in registers, all of them", _registers),
    Rule("ring", "what is on its way lies in shared memory", _ring),
)

__all__ = [
    "CHUNK", "MOST_ROWS", "RULES", "UNITS", "Straight", "is_straight", "legal_straight", "slot_pitch", "straight",
]  # fmt: skip
