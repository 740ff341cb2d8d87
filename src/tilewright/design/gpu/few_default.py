"""The default design of a product of few rows whose operands pass through shared memory.

Nothing but the weights takes time: each SM should read the same share of them, once, and little else. x lies along the
rows of the atom in tiles as high as it is, and columns are so many that every SM has a tile or two (up to 64 rows; more
in pairs of blocks that share the weights); or weights lie along the rows, 64 or 128 a block. Sums are split where tiles
are too few. Which of these is best is told by a closed form, fitted to sweeps on an H200 (note 0019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tilewright.design.cost.waves import usable
from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.product import Product
from tilewright.design.gpu.resources import ATOM_ROWS, ROW_BYTES, Resources, shares_of

_BASE = 6.3e-6  # seconds of a launch, of the first step on its way, and of the last results
_PORT = 1.55e11  # bytes/s that one SM takes in beside what the others do
_PAIR, _NARROW = 0.8, 32  # of that time, where half of more columns come from the other block of a pair
_UNEVEN = 0.5  # of the time by which the last round of blocks is longer than its share
_NORM = 1.7  # by which the time of memory and that of the SM's port are joined
_STEP = 2e-8  # seconds of a block's step: its barriers
_WIDE, _WIDER = 112, 2e-7  # columns of tiles along the rows of x from which on those along the weights are quicker
_MEET, _TICKET, _SPREAD = 0.1e-6, 0.7e-6, 1.2e-6  # seconds: parts in a cluster, in memory; clusters of more than two
_GIVEN, _LEFT = 1.5e-10, 7e-11  # seconds a byte of parts that are given to other blocks, and left in memory
_FREE = 2048  # bytes that are given while the last products end, if they are no more
_STEPS = 4  # of a block at least, where steps are long
_MANY_STEPS = 16  # of a block: then long ones may overlap
_BOX = 8  # rows of a box of high tiles
_HALF, _WIDTHS = 128, (128, 160, 192, 224, 256)  # columns of tiles, where SMs have several
_SHARED, _FILLED = 112, 0.93  # columns of small tiles of few rows, and how full their last round has to be
_MEETING = 64 << 10  # bytes of shared memory that parts of a sum may take from the ring


@dataclass(frozen=True)
class _Few:
    """Tiles of such a design."""

    p: Product
    facts: Facts
    rows: int  # of x in a tile
    columns: int
    groups: int
    parts: int = 1
    how: str = "cluster"
    swap: bool = False
    wide: bool = False  # several rounds of tiles
    shared: bool = False  # by pairs of blocks that share x, two of them on an SM

    @property
    def down(self) -> int:
        """Tiles along the rows: the blocks of a cluster, which share weights."""
        return -(-self.p.size(self.p.m, self.facts) // self.rows)

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.down * (self.parts if self.how == "cluster" else 1)

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        each = math.prod(self.facts.sizes.get(a.over, 1) for a in self.p.each)
        return each * self.down * -(-self.p.size(self.p.n, self.facts) // self.columns) * self.parts

    @property
    def depth(self) -> int:
        """Bytes of a row of a part of the sum."""
        return -(-self.p.size(self.p.k, self.facts) // self.parts) * self.p.itemsize

    @property
    def seconds(self) -> float:
        """How long it should take."""
        p, machine = self.p, self.facts.machine
        sms = usable(machine.cores, self.cluster)
        read = machine.memory.read or machine.memory.bandwidth or 3e12
        weights = sum(o.axis == p.n.name for o in p.operands)
        turns = -(-self.blocks // sms)
        memory = self.blocks / self.down * self.columns * self.depth * weights / read
        if turns > 1:  # of one round others draw for the SMs that idle
            memory *= 1 + _UNEVEN * (turns * sms / self.blocks - 1) / turns
        port = turns * (self.columns * weights + self.rows) * self.depth / _PORT * self._paired
        streams = float((memory**_NORM + port**_NORM) ** (1 / _NORM))
        steps = turns * self.depth / (max(2, self.lines) * ROW_BYTES)  # short ones cost half of that
        wide = 0.0 if self.swap or self.columns < _WIDE else _WIDER
        return (
            _BASE
            + streams
            + _STEP * steps
            + self._join
            + wide
            + (_SPREAD if self.cluster > 2 and 2 * self.blocks > sms else 0.0)
        )

    @property
    def _paired(self) -> float:
        """What the port of an SM takes for a pair of blocks, of what it takes for two."""
        return _PAIR if self.down > 1 and self.columns > _NARROW else 1.0

    @property
    def lines(self) -> int:
        """Lines of 128 bytes of each row in a step: long ones, as far as the ring stays deep."""
        weights = sum(o.axis == self.p.n.name for o in self.p.operands)
        line = (self.columns * weights + self.rows) * ROW_BYTES
        room = int(self.facts.machine.limit("shared_bytes_per_block")) // (2 if self._several else 1)
        room -= self._part if self.parts > 1 and self.how == "cluster" else 0
        if self.wide and self.groups > 1 and room // (2 * line) >= 3:
            return 2
        if self.wide or self.shared or (self.down > 1 and self.columns == ATOM_ROWS):  # these want a deep ring
            return 1
        if not self.swap and (self.groups > 1 or (self._stored and self.columns >= _WIDE)):
            return 1
        deep = 5 if self.down > 1 else 3 if self._boxed else 4
        long = self.depth // (_STEPS * ROW_BYTES)  # a short sum falls in several steps all the same
        choices = (*(((4, 5),) if self.swap and not self._stored and long >= 8 else ()), (2, deep))
        return next((n for n, deep in choices if n <= long and room // (n * line) >= deep), 1)

    @property
    def _several(self) -> bool:
        """Whether an SM has several blocks at once."""
        return self.shared or (self.blocks > self.facts.machine.cores and not self.wide)

    @property
    def _boxed(self) -> bool:
        """Whether weights come in boxes of few rows: of high tiles, lines of a row are then asked for together."""
        many = self.p.size(self.p.m, self.facts) > ATOM_ROWS // 2
        return self.columns >= _WIDE and self.down == 1 and many and not self._stored

    @property
    def _stored(self) -> bool:
        """Whether results leave by the copy engine, where there are whole boxes of them."""
        p, facts = self.p, self.facts
        shares = shares_of(self.rows if self.swap else self.columns, self.parts) if self.parts > 1 else 1
        width = self.columns // (1 if self.swap else shares)
        whole = width % ATOM_ROWS == 0 if self.swap else width % 32 == 0 if shares == 1 else width in (32, 64)
        met = self.parts == 1 or (self.how == "cluster" and not (self.swap and self.rows // shares % 8))
        aligned = all(t in facts.aligned and p.unit_column(t, facts) for t in p.outputs)
        rows = min(p.size(p.m, facts), self.rows)
        return whole and met and aligned and rows >= ATOM_ROWS and p.result_dtype in ("bf16", "f16")

    @property
    def _join(self) -> float:
        """Seconds until the parts of a sum are one."""
        if self.parts == 1:
            return 0.0
        if self.how == "cluster":
            given = self._part * (self.parts - 1) / self.parts
            return _MEET + _GIVEN * given if given > _FREE else 0.0
        return _TICKET + _LEFT * self._part * (self.parts - 1)

    @property
    def _part(self) -> int:
        """Bytes of a part of a sum: whole rows of the atom."""
        height = self.columns if self.swap else max(ATOM_ROWS, self.rows)
        return 4 * height * (self.rows if self.swap else self.columns) * len(self.p.dots)

    # ------------------------------------------------------------------------------------------------ design
    def design(self) -> Design:
        """The decisions: steps as long as a deep ring allows."""
        p = self.p
        decisions: dict[str, Choice] = {f"atom.{d.name}": "wgmma" for d in p.dots}
        decisions |= {f"tile.{p.m.name}": self.rows, f"tile.{p.n.name}": self.columns, "warpgroups": self.groups}
        decisions |= {"producer": "warp", "stages": 2}
        if self._stored:
            decisions |= {f"store.{t}": "tma" for t in p.outputs}
            decisions["producer"] = "warpgroup" if self.columns > _HALF and not self.swap else "warp"
        if self.shared:
            decisions[f"cluster.{p.n.name}"] = 2
        if self.swap:
            decisions["swap"] = True
        if self.down > 1:
            decisions[f"cluster.{p.m.name}"] = self.down
        if self.parts > 1:
            decisions |= {f"split.{p.k.name}": self.parts, f"how.{p.k.name}": self.how}
        elif not self.swap:
            from tilewright.design.gpu.default import early

            decisions |= early(p, Design.of({**decisions, f"tile.{p.k.name}": ROW_BYTES // p.itemsize}), self.facts)
        decisions[f"tile.{p.k.name}"] = self.lines * ROW_BYTES // p.itemsize
        if self.lines > 1 and self._boxed:
            decisions |= {f"box.{o.tensor}": _BOX for o in p.operands if o.axis == p.n.name}
        overlaps = self.down > 1 or self.shared or (self.swap and self._stored) or (self.groups > 1 and self.parts > 1)
        overlaps |= self.lines == 2 and not self._boxed and (self.swap or self.groups == 1)
        overlaps |= self.lines == 4 and self.depth >= _MANY_STEPS * self.lines * ROW_BYTES
        high = self._stored and not self.swap and self.columns >= _WIDE
        overlaps |= high and self.lines == 1 and (self.groups == 1 or self.columns < _WIDTHS[-1])
        decisions["inflight"] = 1 if overlaps else 0
        return Design.of({**decisions, "stages": self._stages(Design.of(decisions))})

    def _stages(self, design: Design) -> int:
        """As many steps as shared memory holds, of all blocks that an SM has at once."""
        r, room = Resources(self.p, design, self.facts), int(self.facts.machine.limit("shared_bytes_per_block"))
        if self._several:
            room = room // 2
        steps = math.ceil(self.p.size(self.p.k, self.facts) / r.splits / r.depth)
        fits = (room - r.shared_bytes) // (r.stage_bytes + 16) + 2
        return max(2, min(fits, steps, 16))


def default_few(p: Product, facts: Facts) -> Design | None:
    """The best of the designs that come into question; None where no tile fits."""
    if (wide := _wide(p, facts)) is not None:
        return wide.design()
    found = [f for f in (*_across(p, facts), *_along(p, facts)) if _holds(f)]
    return min(found, key=lambda f: f.seconds).design() if found else None


def _wide(p: Product, facts: Facts) -> _Few | None:
    """Weights of so many columns that no tile holds an SM's share of them: tiles whose rounds are filled best.

    Up to 32 rows pairs of small blocks, two on an SM, share x; of more rows tiles are as high as x is.
    """
    m, n, sms = p.size(p.m, facts), p.size(p.n, facts), facts.machine.cores
    few = m <= ATOM_ROWS // 2
    rows = -(-m // 16) * 16 if few else -(-m // ATOM_ROWS) * ATOM_ROWS
    share = n * max(1, rows // ATOM_ROWS) / sms
    batched = any(facts.sizes.get(a.over, 1) > 1 for a in p.each)
    if len(p.dots) > 1 or batched or share <= (2 * _HALF if rows == ATOM_ROWS else _HALF):
        return None
    if not few:
        columns = min(_WIDTHS, key=lambda c: (math.ceil(-(-n // c) / sms) * c, -c))
        return _Few(p, facts, rows, columns, rows // ATOM_ROWS, wide=True)
    filled = -(-n // _SHARED) / (2 * sms)
    if filled > _FILLED * math.ceil(filled):
        return _Few(p, facts, rows, _SHARED, 1, shared=True)
    return _Few(p, facts, rows, _HALF, 2, swap=True, shared=True)


def _holds(few: _Few) -> bool:
    """Whether registers hold its sums, and a sum is split only where SMs would idle."""
    if few.parts > 1 and few.blocks > few.facts.machine.cores:
        return False
    rows = few.columns if few.swap else max(ATOM_ROWS, few.rows)
    across = few.rows if few.swap else few.columns
    return rows // few.groups * across * len(few.p.dots) * (1 if few.parts == 1 else 2) <= 64 * 256


def _across(p: Product, facts: Facts) -> Iterator[_Few]:
    """x along the rows of the atom: columns of which every SM has the same number of tiles."""
    m, n, sms = p.size(p.m, facts), p.size(p.n, facts), facts.machine.cores
    rows = min(ATOM_ROWS, -(-m // 8) * 8)
    down = -(-m // rows)
    most = 256 // len(p.dots) // 8 * 8
    for parts in _parts(p, facts, 2 if down == 1 else 1):
        columns = _boxes(max(16, -(-n * down * parts // sms // 8) * 8), n, rows)
        if columns <= (most if parts == 1 else ATOM_ROWS) and 8 * columns >= rows:
            yield _Few(p, facts, rows, columns, 1, parts)
        elif down > 1 and (half := -(-n // sms // 8) * 8) <= most:  # two blocks for each SM
            yield _Few(p, facts, rows, half, 1)
    if down > 1 and 2 in _parts(p, facts, 2) and -(-n // _NARROW) * 2 <= sms:
        yield _Few(p, facts, 2 * ATOM_ROWS, _NARROW, 2, 2)  # all rows in one block, of two warpgroups


def _boxes(columns: int, n: int, rows: int) -> int:
    """A few columns more, where the copy engine can then write the results and no SM has more tiles."""
    more = -(-columns // 32) * 32
    return more if rows == ATOM_ROWS and -(-n // more) > 0.9 * -(-n // columns) else columns


def _along(p: Product, facts: Facts) -> Iterator[_Few]:
    """Weights along the rows of the atom, x in its columns."""
    columns = max(8, -(-p.size(p.m, facts) // 8) * 8)
    for rows, groups in ((64, 1), (128, 2)):
        for parts in _parts(p, facts, 4):
            if parts > 1 and groups > 1 and parts < 4:
                continue
            if parts == 1 or 4 * rows * columns * len(p.dots) * parts // shares_of(columns, parts) <= _MEETING:
                yield _Few(p, facts, columns, rows, groups, parts, swap=True)
            if parts > 1:
                yield _Few(p, facts, columns, rows, groups, parts, "two_pass", swap=True)


def _parts(p: Product, facts: Facts, most: int) -> list[int]:
    """Into how many parts a sum may be split: four long steps each at least, the size a part of the kernel."""
    steps = -(-p.size(p.k, facts) // (ROW_BYTES // p.itemsize))
    if p.k.over not in facts.fixed:
        return [1]
    return [s for s in range(1, most + 1) if s == 1 or (steps >= 8 * s and -(-steps // -(-steps // s)) == s)]


__all__ = ["default_few"]
