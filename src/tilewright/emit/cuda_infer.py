"""How the axes of a program without roles are spread over the threads of a block: from lanes, tiles and accesses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_fragments import direct_dots, fragment_layouts
from tilewright.emit.cuda_layouts import AccCols, AccRows, Dist, Layouts, Spread, Wish, spread
from tilewright.errors import IllegalDesign
from tilewright.language import ir


def infer(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], threads: int) -> Layouts:
    """How the axes of all values are spread over the threads of a block."""
    axes = {a.name: a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes}
    if any(isinstance(s, ir.Copy) for s in ir.walk(kernel.body)):
        return _of_panels(kernel, axes, threads)
    if direct_dots(kernel):
        return fragment_layouts(kernel, axes, sizes, threads)
    runs = _runs(kernel, layouts)
    wishes = {}
    for name in _value_axes(kernel):
        points = (axes[name].step or 1) if name in axes else sizes.get(name)
        if points is None:
            raise IllegalDesign(f"{kernel.name}: tiles lie along the whole of {name}, whose size is not fixed")
        run = runs.get(name, 1)
        while run > 1 and run // 2 >= points:
            run //= 2
        wishes[name] = Wish(max(points, 1), run)
    for same in pieces(kernel).values():  # what lies in registers is dealt alike in every loop over it
        run = max(wishes[a].run for a in same)
        wishes |= {a: Wish(wishes[a].points, run) for a in same}
    lanes = ir.note(kernel.notes, "lanes", ())
    named = tuple(str(a) for a in (lanes if isinstance(lanes, tuple) else (lanes,)))
    found = spread(kernel, wishes, named, threads)
    loops = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Loop)]
    blocks = {a.name: ir.number(s.notes, "split", 1) for s in loops for a in s.axes}
    wholes = {d: _whole(found.of[same[0]], sizes[d], blocks[same[0]]) for d, same in pieces(kernel).items()}
    return Layouts({**found.of, **wholes})


def registers(kernel: ir.Kernel) -> dict[str, tuple[str, ...]]:
    """Buffers that lie in registers, with their axes."""
    allocs = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc) and ir.note(s.notes, "place") == "register"]
    return {s.name: tuple(str(d) for d in s.dims) for s in allocs}


def pieces(kernel: ir.Kernel) -> dict[str, list[str]]:
    """For each dimension that lies in registers as a whole the axes of the loops that go through it piece by piece."""
    held = {d for dims in registers(kernel).values() for d in dims if d in kernel.dims}
    axes = [a for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for a in s.axes]
    return {d: [a.name for a in axes if a.over == d] for d in sorted(held)}


def _whole(piece: Dist, size: int, blocks: int) -> Spread:
    """How a block's share of a dimension lies in registers whose pieces lie so."""
    assert isinstance(piece, Spread)
    return Spread(piece.groups * max(1, -(-size // (piece.points * blocks))), piece.run, piece.low, piece.bits)


def _of_panels(kernel: ir.Kernel, axes: Mapping[str, ir.Axis], threads: int) -> Layouts:
    """Rows and columns of the results of dots whose operands lie in shared memory."""
    dot = next(s for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot))
    rows, columns = reversed(dot.type.axes) if ir.note(dot.notes, "swap") else dot.type.axes
    height, width = (axes[a].step or 1 for a in (rows, columns))
    of: dict[str, Dist] = {}
    if ir.note(dot.notes, "atom") == "mma":
        down, across = warp_grid(height, width, threads // 32)
        of[rows] = AccRows(down, across, height // (16 * down))
        of[columns] = AccCols(down, across, width // (8 * across))
    else:
        bits = threads.bit_length() - 1
        low = min(bits // 2, (width - 1).bit_length())
        of[rows] = _of_fma(kernel, rows, height, low, bits - low)
        of[columns] = _of_fma(kernel, columns, width, 0, low)
    return Layouts(of)


def _of_fma(kernel: ir.Kernel, axis: str, points: int, low: int, bits: int) -> Spread:
    """Neighbours side by side where they are so in shared memory; else lanes on neighbouring rows of it."""
    down = any(isinstance(s, ir.Copy) and s.dst.index[-1] == axis for s in ir.walk(kernel.body))
    run = 4 if down and points >= 4 << bits else 1
    return Spread(max(1, points // run >> bits), run, low, bits)


def warp_grid(height: int, width: int, warps: int) -> tuple[int, int]:
    """Rows and columns of warps: fragments of 16 rows and 16 columns each, as square as may be.

    Raises IllegalDesign where a tile cannot be dealt to so many warps.
    """
    grids = [(w, warps // w) for w in range(1, warps + 1) if warps % w == 0]
    fitting = [(d, a) for d, a in grids if height % (16 * d) == 0 and width % (16 * a) == 0]
    if not fitting:
        raise IllegalDesign(f"a tile of {height} x {width} cannot be dealt to {warps} warps in fragments of 16 x 16")
    return min(fitting, key=lambda g: (height // g[0] + width // g[1], g))


def _runs(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout]) -> dict[str, int]:
    """Neighbours along each axis that one access moves: as noted, and no more than stores along it can take at once.

    Rows that are only read need not be aligned: the words that they lie in are. Where a store is narrower than what its
    thread holds, the threads of a warp write with gaps between them, in as many turns as there are narrow stores.
    """
    runs: dict[str, int] = {}
    most: dict[str, int] = {}
    same = pieces(kernel).values()
    for index, vec, fits, stores in _accesses(kernel, layouts):
        runs[index] = max(runs.get(index, 1), vec)
        if stores and fits < vec:
            for alike in next((group for group in same if index in group), [index]):
                most[alike] = min(most.get(alike, fits), fits)
    most |= dict.fromkeys(_by_element(kernel, layouts), 1)
    return {index: min(run, most.get(index, run)) for index, run in runs.items()}


def _by_element(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout]) -> set[str]:
    """Axes along which single elements are stored, or pairs: what has stride one is named by its number."""
    refs = [s.ref for s in ir.walk(kernel.body) if isinstance(s, ir.Store) and s.ref.buffer in layouts]
    single = [r for r in refs if any(isinstance(i, int) and s == 1 for i, s in _strides(r, layouts))]
    return {i for r in single for i in r.index if isinstance(i, str)}


def _strides(ref: ir.Ref, layouts: Mapping[str, TensorLayout]) -> list[tuple[ir.Index, int | None]]:
    return list(zip(ref.index, layouts[ref.buffer].strides, strict=True))


def _accesses(kernel: ir.Kernel, layouts: Mapping[str, TensorLayout]) -> Iterator[tuple[str, int, int, bool]]:
    """Each access of a tensor along an axis with stride one: that axis, the neighbours that are noted, those that the
    alignment of rows allows, and whether it stores."""
    params = {p.name: p for p in kernel.params}
    for stmt in ir.walk(kernel.body):
        match stmt:
            case ir.Store(ref, _, notes) | ir.Let(_, _, ir.Load(ref), notes) if ref.buffer in params:
                pass
            case _:
                continue
        layout = layouts[ref.buffer]
        fits = max(1, layout.align // params[ref.buffer].dtype.bytes)
        for index, stride in zip(ref.index, layout.strides, strict=True):
            if stride == 1 and isinstance(index, str):
                yield index, ir.number(notes, "vec", 1), fits, isinstance(stmt, ir.Store)


def _value_axes(kernel: ir.Kernel) -> list[str]:
    found: dict[str, None] = {}
    for stmt in ir.walk(kernel.body):
        if isinstance(stmt, ir.Let):
            found.update(dict.fromkeys(stmt.type.axes))
            if isinstance(stmt.expr, (ir.Reduce, ir.Dot)):
                found[stmt.expr.axis] = None
    return list(found)


__all__ = ["infer", "pieces", "registers", "warp_grid"]
