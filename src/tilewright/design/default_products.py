"""Default designs of products on a CPU: register tiles, panels and cache blocks, or long streams of weights."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.atoms import ATOMS, TILED
from tilewright.design.design import Choice
from tilewright.design.facts import Facts
from tilewright.design.panels import TILE_BYTES, WORDS
from tilewright.language import ir, structure


def is_product(nest: structure.Nest) -> bool:
    """Whether every dot sums over the only serial loop, between two tiles of parallel axes."""
    if not nest.dots or nest.main is None:
        return False
    depth = nest.main.axes[0].name
    tiles = [a.name for a in nest.loop.axes if not a.each]
    return len(tiles) == 2 and all(isinstance(d.expr, ir.Dot) and d.expr.axis == depth for d in nest.dots)


@dataclass(frozen=True)
class _Product:
    """A nest of dots: rows m by columns n, summed over k; which tensor each operand comes from."""

    m: ir.Axis
    n: ir.Axis
    k: ir.Axis
    rows: str
    columns: tuple[str, ...]
    dots: tuple[ir.Let, ...]
    dtype: str
    loads: tuple[str, ...]  # of the columns
    itemsize: int

    @property
    def loaded(self) -> bool:
        """Whether all operands are loaded: one that is computed is in no tensor, and its name is empty."""
        return all((self.rows, *self.columns))


def _product(kernel: ir.Kernel, nest: structure.Nest) -> _Product:
    assert nest.main is not None
    m, n = (a for a in nest.loop.axes if not a.each)
    values = structure.lets(kernel)
    rows, columns, loads = "", [], []
    dtype, itemsize = "f32", 4
    for dot in nest.dots:
        assert isinstance(dot.expr, ir.Dot)
        for name in (dot.expr.a, dot.expr.b):
            load = values[name].expr
            dtype, itemsize = values[name].type.dtype.name, values[name].type.dtype.bytes
            buffer = load.ref.buffer if isinstance(load, ir.Load) else ""
            if m.name in values[name].type.axes:
                rows = buffer
            else:
                columns.append(buffer)
                loads += [name] if buffer else []
    return _Product(m, n, nest.main.axes[0], rows, tuple(columns), nest.dots, dtype, tuple(loads), itemsize)


def products(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    p = _product(kernel, nest)
    rows = facts.size(kernel, p.m)
    depth_is_unit = _runs_along(kernel, facts, p.k.name, (p.rows, *p.columns))
    near = rows <= _FEW_ROWS or _rows_stay_near(kernel, p, rows, facts) or _paired_atom(p, facts) == "vnni"
    if depth_is_unit and near and not _has_tiles(p, rows, facts):
        return _inner_products(p, rows, facts)
    return _outer_products(kernel, p, rows, facts)


def _rows_stay_near(kernel: ir.Kernel, p: _Product, rows: int, facts: Facts) -> bool:
    """Whether products in pairs take all rows from L2 as fast as they multiply: nothing need be packed then.

    Four rows by four columns read a cache line for two instructions, which L2 delivers; f32 would read twice as many,
    and so do two products that share four columns.
    """
    if not (_pairs(p, facts) and _pairs_are_faster(facts)) or (len(p.columns) > 1 and rows > _SHARED_ROWS):
        return False
    return 2 * rows * facts.size(kernel, p.k) <= (facts.machine.l2_bytes or 512 << 10) // 2


_FEW_ROWS = 4  # up to here each weight meets all rows as it is read; more rows are worth a register tile
_SHARED_ROWS = 16  # the same of several products in pairs that share their rows
_IN_PLACE_ROWS = 128  # up to here the weights' rows are loaded into tile registers where they lie
_LOCAL_ROWS = 512  # up to here one cache block holds all rows, and weights are packed where they are used


def _runs_along(kernel: ir.Kernel, facts: Facts, axis: str, tensors: tuple[str, ...]) -> bool:
    """Whether all `tensors` have stride one along `axis`."""
    refs = {ref.buffer: ref for _, ref in structure.loads(kernel)}
    return all(
        t in refs and axis in refs[t].index and refs[t].index.index(axis) in facts.unit.get(t, ()) for t in tensors
    )


def _pairs(p: _Product, facts: Facts) -> bool:
    """Whether operands can be multiplied in pairs as they lie."""
    # Vectors of pairs along the sum, or of results, must fill: small sizes are part of a kernel.
    return (
        p.loaded
        and p.dtype == "bf16"
        and facts.machine.has("avx512bf16")
        and _fills(p, facts, facts.lanes, 2 * facts.lanes)
    )


def _fills(p: _Product, facts: Facts, columns: int, depth: int) -> bool:
    """Whether the result has that many columns, and the sum that many terms."""
    return facts.sizes[p.n.over] >= columns and facts.sizes[p.k.over] >= depth


def _pairs_are_faster(facts: Facts) -> bool:
    """Whether the machine retires more flops as pairs of bf16 than as f32: some split the instruction in many."""
    rates = {a.name: a.flops_per_cycle or 0.0 for a in facts.machine.atoms}
    return rates.get("vdpbf16ps", 0.0) > rates.get("fma", 0.0)


def _inner_products(p: _Product, rows: int, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    """Few rows: each weight is read once and meets all rows; lanes lie along the sum, which both run along.

    One row is bound by memory: weights come in a few long streams, which prefetchers follow across the ends of pages.
    """
    accumulators, chunk = facts.registers // 2, 2 * facts.lanes
    if rows == 1:
        streams = _STREAMS if facts.machine.habit("prefetches_across_pages") else 1
        tile_m, tile_n, depth = 1, max(1, streams // len(p.columns)), 4 * chunk
    else:
        tile_m, depth = _FEW_ROWS, chunk
        tile_n = max(1, min(4, accumulators // (tile_m * len(p.columns))))
    decisions: dict[str, Choice] = {
        f"tile.{p.m.name}": tile_m,
        f"tile.{p.n.name}": tile_n,
        f"tile.{p.k.name}": depth,
    }
    if rows == 1 and tile_n == 1:  # one long stream for each matrix, summed side by side
        decisions[f"split.{p.k.name}"] = 4
        decisions |= {f"ahead.{load}": _AHEAD // (depth * p.itemsize) for load in p.loads}
    elif rows == 1 and (apart := _runs(facts.sizes[p.n.over], tile_n * facts.team)) > 1:
        decisions[f"apart.{p.n.name}"] = apart
    if rows > tile_m:
        decisions["order"] = (p.n.name, p.m.name)  # a few columns meet all rows before the next come from memory
    if atom := _paired_atom(p, facts):
        decisions |= {f"atom.{d.name}": atom for d in p.dots}
    return decisions, [p.k.name, p.n.name]


def _paired_atom(p: _Product, facts: Facts) -> str | None:
    """The instruction that multiplies operands in pairs along the sum, as they lie."""
    if p.dtype == "i8" and p.loaded and facts.machine.has("avx512vnni") and _fills(p, facts, 1, 2 * facts.lanes):
        return "vnni"
    return "bf16x2" if _pairs(p, facts) else None


_STREAMS, _RUN = 4, 64  # rows that are read at once, and how many follow each other in each of these streams
_TURNS = 4  # times that a thread begins its streams anew, at least: what is left at the end is short


_AHEAD = 4096  # bytes that a lone stream is fetched ahead: the page that prefetchers do not enter by themselves


def _runs(rows: int, streams: int) -> int:
    """How many rows follow each other in each stream."""
    return min(_RUN, 1 << max(0, (rows // (_TURNS * streams)).bit_length() - 1))


def _outer_products(kernel: ir.Kernel, p: _Product, rows: int, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    """Many rows: a register tile of m by n, one operand across lanes, panels in the order of use."""
    if _has_tiles(p, rows, facts):
        return _tile_products(kernel, p, rows, facts)
    pairs = _pairs(p, facts) and _pairs_are_faster(facts)
    count = len(p.columns)
    tile_m, vectors = _register_tile(facts, count)
    tile_n = vectors * facts.lanes
    local = rows <= _LOCAL_ROWS
    depth, block_m, block_n = _cache_blocks(kernel, p, tile_m, tile_n, local, facts, 2 if pairs else 4)
    decisions: dict[str, Choice] = {
        f"tile.{p.m.name}": tile_m,
        f"tile.{p.n.name}": tile_n,
        f"tile.{p.k.name}": 2 if pairs else 1,
        f"block.{p.m.name}": block_m,
        f"block.{p.n.name}": block_n,
        "inner": (p.n.name, p.m.name),
        "order": (p.n.name, p.m.name),
    }
    if depth is not None:
        decisions[f"block.{p.k.name}"] = depth
    for tensor in (t for t in dict.fromkeys((*p.columns, p.rows)) if t):
        decisions[f"pack.{tensor}"] = "pair" if pairs else "panel"
        if p.loaded and p.dtype in ("bf16", "f16") and not pairs:
            decisions[f"unpack.{tensor}"] = True
    if local:
        decisions |= {f"local.{tensor}": True for tensor in p.columns if tensor}
    if pairs:
        decisions |= {f"atom.{d.name}": "bf16x2" for d in p.dots}
    return decisions, [p.n.name]


def _has_tiles(p: _Product, rows: int, facts: Facts) -> bool:
    """Whether AMX can do the dots, and has enough to do: whole tile registers, where sizes are fixed."""
    enough = rows >= 16 if p.m.over in facts.fixed else rows > _FEW_ROWS
    known = _tiled_atom(p, facts) is not None
    return p.loaded and known and enough and _fills(p, facts, 32, TILE_BYTES // p.itemsize)


def _tiled_atom(p: _Product, facts: Facts) -> str | None:
    """The instruction of the machine that multiplies tile registers of such operands."""
    known = (atom for atom, element in TILED.items() if element == p.dtype)
    return next((atom for atom in known if facts.machine.has(str(ATOMS[atom]))), None)


def _tile_products(kernel: ir.Kernel, p: _Product, rows: int, facts: Facts) -> tuple[dict[str, Choice], list[str]]:
    """AMX: four accumulators, tile registers loaded from rows of one operand and from words of neighbours of the other.

    To make words is a transpose, which each row of the result is worth that meets more than a few columns; weights are
    then the rows. Rows are loaded where they lie while that is cheap, else from a copy.
    """
    columns, depth = facts.size(kernel, p.n), facts.size(kernel, p.k)
    short = depth * p.itemsize < _PAGE
    seldom = columns <= _SELDOM and rows > columns
    turned = not seldom and _runs_along(kernel, facts, p.k.name, p.columns)
    if turned and (rows <= _IN_PLACE_ROWS or short):
        chosen = _weights_in_place(p, rows, columns, depth, facts)
    elif seldom and short and _runs_along(kernel, facts, p.k.name, (p.rows,)):
        chosen = _rows_in_place(p, rows, facts)
    else:
        chosen = _tile_blocks(kernel, p, rows, facts, turned=turned)
    chosen[f"tile.{p.k.name}"] = TILE_BYTES // p.itemsize
    chosen |= {f"atom.{d.name}": str(_tiled_atom(p, facts)) for d in p.dots}
    return chosen, [(p.m if turned else p.n).name]


_PAGE = 4096  # bytes: rows as far apart as that begin in one set of L1, and each needs a page of its own
_TILE = 32  # rows of two tile registers
_SELDOM = 2 * _TILE  # up to so many columns a copy of the rows would be read too seldom to be worth making


def _weights_in_place(p: _Product, rows: int, columns: int, depth: int, facts: Facts) -> dict[str, Choice]:
    """Weights whose rows are loaded where they lie, while the rows of the result, turned into words, wait in L2.

    Rows that half of L2 does not hold meet all weights in turns, in the highest tiles that registers allow.
    """
    few, single = rows <= _IN_PLACE_ROWS, len(p.columns) == 1
    far = few and rows > _TILE and rows * depth * p.itemsize > (facts.machine.l2_bytes or 512 << 10) // 2
    high = far and single
    chosen: dict[str, Choice] = {
        f"tile.{p.m.name}": 2 * _TILE if high else _TILE if rows > _TILE // 2 else _TILE // 2,
        f"tile.{p.n.name}": _TILE if single and not high else _TILE // 2,
        f"pack.{p.rows}": WORDS[8 * p.itemsize],
    }
    if not few:
        wide = _TILE * _share(columns, _TILE, 2, 2 * facts.machine.cores)
        return chosen | {
            f"block.{p.m.name}": _LOCAL_ROWS,
            f"block.{p.n.name}": wide,
            "inner": (p.n.name, p.m.name),
        }
    if rows > _TILE and not high:
        chosen["order"] = (p.n.name, p.m.name)  # a few weights meet all rows before the next come from memory
    return chosen


def _rows_in_place(p: _Product, rows: int, facts: Facts) -> dict[str, Choice]:
    """Rows of the result that are read where they lie, once or twice, by the few columns that they meet."""
    return {
        f"tile.{p.m.name}": _TILE,
        f"tile.{p.n.name}": _TILE if len(p.columns) == 1 else _TILE // 2,
        f"block.{p.m.name}": _TILE * _share(rows, _TILE, 2 * _LOCAL_ROWS // _TILE, 2 * facts.machine.cores),
        **{f"pack.{c}": WORDS[8 * p.itemsize] for c in p.columns},
    }


def _tile_blocks(kernel: ir.Kernel, p: _Product, rows: int, facts: Facts, *, turned: bool) -> dict[str, Choice]:
    """Cache blocks of both operands, copied; where rows of the result are `turned`, weights are the tiles' rows."""
    lane, across = (p.m, p.n) if turned else (p.n, p.m)
    local = rows <= _LOCAL_ROWS
    slab, most, words = 4096 // p.itemsize, 128 if local else 256, WORDS[8 * p.itemsize]
    chosen: dict[str, Choice] = {
        f"tile.{p.m.name}": _TILE if rows > _TILE // 2 else _TILE // 2,
        f"tile.{p.n.name}": _TILE if len(p.columns) == 1 else _TILE // 2,
        f"block.{p.m.name}": _LOCAL_ROWS if local else most,
        f"block.{p.n.name}": _TILE * _share(facts.size(kernel, p.n), _TILE, most // _TILE, 2 * facts.machine.cores),
        "inner": (lane.name, across.name),
        "order": (p.n.name, p.m.name),
        f"pack.{p.rows}": words if turned else "tile",
    }
    if facts.size(kernel, p.k) > slab:
        chosen[f"block.{p.k.name}"] = slab
    for c in p.columns:
        chosen[f"pack.{c}"] = "tile" if turned else words
        if local:
            chosen[f"local.{c}"] = True
    return chosen


def _register_tile(facts: Facts, products: int) -> tuple[int, int]:
    """(rows, vectors) of a register tile: three quarters of the registers accumulate at most, so that nothing spills.

    Three vectors to a row want fewer loads for each product than two, and leave the row operand small. Products that
    share their rows are side by side what such vectors are.
    """
    vectors = 3 if facts.registers >= 32 else 2
    if products > 1:
        return max(1, min(_SHARED_TILE, facts.registers * 3 // 4 // products)), 1
    return max(1, facts.registers * 3 // 4 // vectors), vectors


_SHARED_TILE = 8  # rows of a register tile of several products: more are level, and leave more over at the end


def _cache_blocks(
    kernel: ir.Kernel, p: _Product, tile_m: int, tile_n: int, local: bool, facts: Facts, itemsize: int
) -> tuple[int | None, int, int]:
    """(slab of k or None, rows, columns) of a cache block.

    A column panel of the slab (tile_n wide) and the rows that it meets fit L1, or the panels of all products an eighth
    of L2 where pairs halve what a step reads; the rows of the block fill half of L2. Where the block packs its own
    columns it holds all rows, and fewer columns. Sizes come from a short list, so that a new length seldom wants a new
    kernel.
    """
    depth, columns = facts.size(kernel, p.k), facts.size(kernel, p.n)
    l1, l2 = facts.machine.l1_bytes or 32 << 10, facts.machine.l2_bytes or 512 << 10
    pairs = itemsize == 2
    panel = l2 // 8 // len(p.columns) if pairs else l1
    wide = tile_n + (0 if pairs or len(p.columns) > 1 else tile_m)
    slab = max(128, panel // (wide * itemsize) // 64 * 64)
    if pairs:
        slab = 1 << (slab.bit_length() - 1)
    block_k = slab if depth > slab else None
    shares = 2 * facts.machine.cores
    most_rows = max(1, min(24, l2 // 2 // (slab * itemsize * tile_m)))
    if local:
        most_rows = max(1, _LOCAL_ROWS // tile_m)
    most_columns = 10 if not local else 1 if pairs else 2
    return block_k, tile_m * most_rows, tile_n * _share(columns, tile_n, most_columns, shares)


def _share(total: int, unit: int, most: int, pieces: int) -> int:
    """Units in a block: at most `most`, a power of two below that, and so few that there are `pieces` blocks."""
    size = most
    while size > 1 and total < unit * size * pieces:
        size //= 2
    return size


__all__ = ["is_product", "products"]
