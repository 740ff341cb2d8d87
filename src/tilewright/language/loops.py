"""Loops over tiles: `for i, j in parallel("M", "N")`, `for k in tiles("K")`, `each`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewright.errors import LanguageError, ShapeError
from tilewright.language import ir
from tilewright.language.dtypes import i64
from tilewright.language.handles import Axis, Operand, as_tile, known_dim, shown
from tilewright.language.tracer import Trace, fail

Bound = Operand | int | None


@dataclass(frozen=True)
class each:
    """In `parallel` or `tiles`: visit single positions of `dim` instead of tiles."""

    dim: str


class TileLoop:
    """A loop that runs its body once, on axis handles that stand for every iteration."""

    def __init__(self, dims: tuple[str | each, ...], parallel: bool, start: Bound, stop: Bound) -> None:
        if not dims:
            fail(LanguageError, "a loop needs a dimension to run over, as in tiles('K')")
        if len(dims) > 1 and (start is not None or stop is not None):
            fail(ShapeError, "start= and stop= bound a loop over one dimension; nest the loops")
        self._dims = tuple(d if isinstance(d, each) else each(_dim_name(d)) for d in dims)
        self._each = tuple(isinstance(d, each) for d in dims)
        self._parallel = parallel
        self._start, self._stop = _bound(start), _bound(stop)
        self._used = False

    # Any: an Axis for one dimension, a tuple of them for several; authors unpack it.
    def __iter__(self) -> Iterator[Any]:
        if self._used:
            fail(LanguageError, "this loop was iterated already; call tiles() or parallel() again for a second loop")
        self._used = True
        trace = Trace.current()
        axes = tuple(self._axis(trace, d.dim, point) for d, point in zip(self._dims, self._each, strict=True))
        block = trace.open(axes, self._parallel)
        handles = tuple(Axis(axis.name, axis.over, block, axis.each) for axis in axes)
        yield handles if len(handles) > 1 else handles[0]
        trace.close(block)

    def _axis(self, trace: Trace, dim: str, point: bool) -> ir.Axis:
        # Bounds that are the ends of the dimension say nothing, and loops without bounds are cheaper.
        start = None if self._start == 0 else self._start
        stop = None if trace.sizes.get(str(self._stop)) == dim else self._stop
        return ir.Axis(trace.fresh_axis(known_dim(dim)), dim, None, start, stop, point)


def parallel(*dims: str | each, start: Bound = None, stop: Bound = None) -> TileLoop:
    """Independent tiles of `dims`, in any order or at once; yields one axis, or a tuple of them.

    `start` and `stop` (integers or integer scalars) bound a loop over a single dimension.
    """
    return TileLoop(dims, True, start, stop)


def tiles(*dims: str | each, start: Bound = None, stop: Bound = None) -> TileLoop:
    """Tiles of `dims` one after the other; carried tiles go from one to the next. Bounds as for `parallel`."""
    return TileLoop(dims, False, start, stop)


def _dim_name(dim: object) -> str:
    if not isinstance(dim, str):
        fail(ShapeError, f"a loop runs over a dimension by name, not over {dim!r}; write tiles('K') or each('B')")
    return dim


def _bound(bound: Bound) -> str | int | None:
    if bound is None or isinstance(bound, int):
        return bound
    tile = as_tile(bound, i64)
    if tile.axes or tile.dtype.kind != "int":
        at = f"{tile.dtype} tile with axes [{shown(tile.axes)}]"
        fail(
            ShapeError, f"start= and stop= take an integer or an integer scalar, not a {at}; reduce it with .max(axis)"
        )
    return tile.name
