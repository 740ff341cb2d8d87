"""The default design of a product on a GPU: tile, parts of the sum, ring and cluster, by bytes and waves.

Few rows: `few_default`. Many: the tile and the split whose waves waste least; blocks in pairs share what they read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.few_default import default_few
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.resources import ATOM_ROWS, ROW_BYTES, SPARE_REGISTERS, Resources, beside, shares_of

FEW_ROWS = 128
"""Rows up to which the time is that of reading the weights."""

_L2 = 1.0e13  # bytes/s that all SMs together read from L2
_PORT = 9.5e10  # bytes/s that one SM takes in
_MEET, _TICKET = 1.2e-6, 3.2e-6  # seconds until parts of a sum have met: in a cluster, in memory
_WAVE = 1.0e-6  # seconds to fill and to drain the pipeline of one tile
_MEETING = 64 << 10  # bytes of shared memory that parts of a sum may take from the ring
_SURE = 1.03  # what a split has to be better by
_MMA = 0.8  # share of its peak that the matrix unit keeps up

_SHAPES = (
    (128, 256, 2, "cooperative"), (256, 128, 2, "cooperative"), (128, 192, 2, "cooperative"),
    (128, 128, 2, "cooperative"), (128, 160, 2, "cooperative"), (128, 224, 2, "cooperative"),
    (256, 96, 2, "cooperative"), (192, 160, 3, "cooperative"), (128, 96, 2, "cooperative"), (128, 64, 2, "cooperative"),
    (64, 256, 1, "cooperative"), (64, 128, 1, "cooperative"), (64, 64, 1, "cooperative"),
)  # fmt: skip
"""Rows and columns of a tile, warpgroups, and their schedule."""

_ROWS = ((64, 1), (128, 2), (128, 1), (192, 3), (256, 2))
"""Rows of the atom with few columns, and warpgroups."""


def shapes(p: Product, facts: Facts, swap: bool) -> list[tuple[int, int, int, str]]:
    """Tiles that are worth a trial: (rows of the atom, its columns, warpgroups, schedule)."""
    m = p.size(p.m, facts)
    if not swap:
        even = _rows_of(m) if m <= FEW_ROWS else ()
        few = [(r, c, g, "cooperative") for r, g in even for c in even_columns(p, facts, r)]
        return [*few, *((r, c // len(p.dots) // 8 * 8, g, s) for r, c, g, s in _SHAPES)]
    whole = -(-m // 8) * 8
    widths = dict.fromkeys((min(256, whole), *(w for w in (32, 64, 128) if w < whole)))
    return [(rows, w, g, "cooperative") for rows, g in _ROWS for w in widths if rows // g * w * len(p.dots) <= 64 * 256]


def _rows_of(m: int) -> tuple[tuple[int, int], ...]:
    """Rows of the atom with x along them, and warpgroups."""
    return ((-(-m // 8) * 8, 1),) if m <= ATOM_ROWS else ((128, 2), (64, 1))


def even_columns(p: Product, facts: Facts, rows: int) -> list[int]:
    """Columns of tiles of `rows` that come out even: one or two for each SM, of whole sums or of parts."""
    down = _tiles(p, facts, rows, 1 << 30, False)
    found: dict[int, None] = {}
    for share in (1.0, 0.5, 2.0, 4.0):  # parts of a sum, over tiles of an SM
        columns = math.ceil(p.size(p.n, facts) * down * share / facts.machine.cores / 8) * 8
        if 16 <= columns <= 256 // len(p.dots):
            found[columns] = None
    return list(found)


def default_product(p: Product, facts: Facts) -> Design:
    """A legal design of a product, good at once."""
    few_rows = p.size(p.m, facts) <= FEW_ROWS and p.size(p.n, facts) >= 64
    if few_rows and (few := default_few(p, facts)) is not None:
        return few
    return min(_many(p, facts), key=lambda c: c.seconds).design(p, facts)


@dataclass(frozen=True)
class _Candidate:
    """A shape with its split, and how long it should take."""

    seconds: float
    rows: int
    columns: int
    groups: int
    parts: int
    swap: bool
    tiles: int

    def design(self, p: Product, facts: Facts) -> Design:
        row, column = (p.n.name, p.m.name) if self.swap else (p.m.name, p.n.name)
        decisions: dict[str, Choice] = {f"atom.{d.name}": "wgmma" for d in p.dots}
        decisions |= {
            f"tile.{row}": self.rows,
            f"tile.{column}": self.columns,
            f"tile.{p.k.name}": ROW_BYTES // p.itemsize,
        }
        decisions |= {"warpgroups": self.groups, "stages": 2}
        if self.swap:
            decisions["swap"] = True
        if self.parts > 1:
            alone = self.rows != 64 * self.groups
            how = "two_pass" if alone else _join(p, self.rows, self.columns, self.parts)[1]
            decisions |= {f"split.{p.k.name}": self.parts, f"how.{p.k.name}": how}
        else:
            decisions |= self._order(p, facts)
        if decisions.get(f"how.{p.k.name}") != "cluster":
            decisions |= self._stores(p, facts)
        if not self.swap and self.parts == 1:
            decisions |= early(p, Design.of(decisions), facts)
        stages = deepest_ring(p, Design.of(decisions), facts)
        # Tiles that are asked for early hold up the first steps, so warpgroups begin one after the other.
        held = any(_whole(p, tensor) for tensor, _ in Design.of(decisions).prefixed("early"))
        if held and 1 < self.groups < stages:
            decisions["stagger"] = 1
        return Design.of({**decisions, "stages": stages})

    def _order(self, p: Product, facts: Facts) -> dict[str, Choice]:
        """Blocks that stay, in groups that share operands in L2, in pairs that share what they read."""
        decisions: dict[str, Choice] = {"persistent": True, "grid.order": "grouped", "grid.group": 8}
        # The wider operand is the one to share (all weights count), but for tiles of 128 rows: there blocks that share
        # weights are faster.
        wide = self.rows > self.columns * len(p.dots) and self.rows > 128
        axis, size = (p.n, self.columns) if wide else (p.m, self.rows)
        count = -(-p.size(axis, facts) // size)
        if self.tiles > facts.machine.cores // 2 and (count % 2 == 0 or count > 8):
            decisions[f"cluster.{axis.name}"] = 2
        return decisions

    def _stores(self, p: Product, facts: Facts) -> dict[str, Choice]:
        """Results leave by the copy engine where it can write them."""
        fits = self.columns % 32 == 0 and p.result_dtype in ("bf16", "f16")
        if not fits or not all(t in facts.aligned and p.unit_column(t, facts) for t in p.outputs):
            return {}
        return {f"store.{t}": "tma" for t in p.outputs}


def _whole(p: Product, tensor: str) -> bool:
    """Whether a tensor that is read beside the sums has an element for each of them."""
    index = beside(p)[tensor].index
    return p.m.name in index and p.n.name in index


def early(p: Product, design: Design, facts: Facts) -> dict[str, Choice]:
    """What is read beside the sums comes before them, where registers are left for it."""
    read: dict[str, Choice] = {f"early.{t}": True for t in Resources(p, design, facts).beside}
    r = Resources(p, Design.of({**dict(design.decisions), **read}), facts)
    return read if r.accumulators + SPARE_REGISTERS + r.early <= r.register_limit else {}


def _join(p: Product, rows: int, columns: int, parts: int) -> tuple[float, str]:
    """Seconds until the parts of a sum are joined, and where: in a cluster if they are few and small, or by memory."""
    if parts == 1:
        return 0.0, ""
    each, shares = 4 * rows * columns * len(p.dots), shares_of(columns, parts)
    memory = _TICKET + parts * each * 2e-11, "two_pass"
    if parts > 4 or each * parts // shares > _MEETING:
        return memory
    return min(memory, (_MEET + parts * (parts - 1) * (parts / shares) ** 0.5 * each * 2e-11, "cluster"))


def _room(facts: Facts) -> int:
    return int(facts.machine.limit("shared_bytes_per_block"))


def deepest_ring(p: Product, design: Design, facts: Facts, room: int | None = None) -> int:
    """As many stages as `room` bytes of shared memory hold (a block's limit), and no more than a block has steps."""
    r = Resources(p, design, facts)
    steps = math.ceil(p.size(p.k, facts) / r.splits / r.depth)
    fits = ((room or _room(facts)) - r.shared_bytes) // (r.stage_bytes + 16) + design.number("stages")
    return max(2, min(fits, steps, 16))


def _parts(p: Product, facts: Facts, most: int) -> list[int]:
    """Into how many parts a sum may be split: four steps each at least; the size must be a part of the kernel."""
    steps = -(-p.size(p.k, facts) // (ROW_BYTES // p.itemsize))
    if p.k.over not in facts.fixed:
        return [1]
    return [s for s in range(1, most + 1) if s == 1 or (steps >= 4 * s and -(-steps // -(-steps // s)) == s)]


def _tiles(p: Product, facts: Facts, rows: int, columns: int, swap: bool) -> int:
    m, n = p.size(p.m, facts), p.size(p.n, facts)
    each = math.prod(facts.sizes.get(a.over, 1) for a in p.each)
    return each * (-(-n // rows) * -(-m // columns) if swap else -(-m // rows) * -(-n // columns))


def _many(p: Product, facts: Facts) -> list[_Candidate]:
    """Seconds by the matrix unit or by L2, whichever is slower, for all waves of tiles."""
    found = []
    for rows, columns, groups, schedule in shapes(p, facts, False):
        if schedule == "cooperative" and columns:
            tiles = _tiles(p, facts, rows, columns, False)
            for parts in _parts(p, facts, 4):
                seconds = _many_seconds(p, facts, rows, columns, groups, parts, tiles)
                found.append(_Candidate(seconds, rows, columns, groups, parts, False, tiles))
    return found


def _many_seconds(p: Product, facts: Facts, rows: int, columns: int, groups: int, parts: int, tiles: int) -> float:
    # Wider operands take the matrix unit as much longer as they have more bytes.
    stated = facts.machine.peak(p.dtype) or (facts.machine.peak("bf16") or 1e15) * 2 / p.itemsize
    sms, peak = facts.machine.cores, stated
    depth = p.size(p.k, facts) / parts
    flops = 2.0 * rows * columns * depth * len(p.dots)
    moved = depth * p.itemsize * (rows + columns * len(p.dots))
    pairs = 0.75 if tiles > sms // 2 and parts == 1 else 1.0  # blocks in pairs read one operand once for both
    rate = _MMA if groups < 3 else _MMA * 0.93  # three warpgroups have few registers to hide anything in
    rate *= 0.96 + 0.04 * min(1.0, rows * columns * len(p.dots) / (128 * 256))
    waves, busy = math.ceil(tiles * parts / sms), min(sms, tiles * parts)
    each = max(flops * sms / (peak * rate), moved * pairs * busy / _L2, moved / _PORT)
    if parts == 1:
        return waves * (each + _WAVE)
    join = 2 * _TICKET + parts * 12.0 * rows * columns * waves * 1e-11
    if rows == 64 * groups and waves == 1:  # blocks of a cluster join their parts, if that is quicker
        join = min(join, _join(p, rows, columns, parts)[0])
    return (waves * (each + _WAVE) + join) * _SURE
