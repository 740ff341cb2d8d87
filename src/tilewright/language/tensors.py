"""Tensor handles: `a[i, k]` loads a tile, `c[i, j] = value` stores one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from tilewright.errors import DTypeError, RaceError, ShapeError
from tilewright.language import ir
from tilewright.language.dtypes import DType
from tilewright.language.handles import (
    Axis,
    Operable,
    Operand,
    Tile,
    as_tile,
    axis_handle,
    constant,
    emit,
    loop_deps,
    names,
    ordered,
    shown,
)
from tilewright.language.printer import show_ref
from tilewright.language.tracer import Trace, fail


@dataclass(eq=False)
class TensorParam(Operand):
    """A tensor parameter: `dtype` and `dims`."""

    name: str
    dtype: DType
    dims: tuple[ir.Dim, ...]

    def as_tile(self) -> NoReturn:
        fail(ShapeError, f"{self.name} is a tensor; load a tile of it first, as in {self.name}[{self._example()}]")

    def __getitem__(self, key: object) -> Tile:
        place = self._place(key)
        return emit(ir.Load(place.ref), self.dtype, place.axes, self.name, deps=place.deps)

    def __setitem__(self, key: object, value: Operable) -> None:
        place = self._place(key)
        tile = self._value(place, value)
        _check_races(place)
        trace = Trace.current()
        trace.stores.append(place.ref)
        trace.emit(ir.Store(place.ref, ordered(tile, place.axes).name))

    def _value(self, place: Place, value: Operable) -> Tile:
        """`value` checked against the place it goes to; a number fills the place."""
        if isinstance(value, (int, float)):
            return emit(ir.Full(constant(value, self.dtype)), self.dtype, place.axes, "c")
        tile = as_tile(value, self.dtype)
        if tile.dtype.kind != self.dtype.kind:
            fail(
                DTypeError, f"{self.name} holds {self.dtype}, the value {tile.dtype}; convert it with .to({self.dtype})"
            )
        if set(names(tile.axes)) != set(names(place.axes)):
            have, want = shown(tile.axes), shown(place.axes)
            fix = "reduce or index the value, or add zeros(...) to spread it, until the axes agree"
            fail(ShapeError, f"{show_ref(place.ref)} takes axes [{want}] but the value has [{have}]; {fix}")
        return tile

    def _place(self, key: object) -> Place:
        indices = key if isinstance(key, tuple) else (key,)
        if len(indices) != len(self.dims):
            message = f"{self.name} has dimensions [{', '.join(map(str, self.dims))}] but {len(indices)} indices"
            fail(ShapeError, f"{message}; index every dimension, with : for the whole of one")
        parts = [self._index(index, dim) for index, dim in zip(indices, self.dims, strict=True)]
        self._check_distinct(parts)
        axes = {axis.name: axis for part in parts for axis in part.axes}
        deps = frozenset[str]().union(*(part.deps for part in parts))
        return Place(ir.Ref(self.name, tuple(part.index for part in parts)), tuple(axes.values()), deps)

    def _index(self, index: object, dim: ir.Dim) -> Indexed:
        """One index of a place: an axis, the whole of a dim, a position, or an integer value."""
        if isinstance(index, slice):
            index = self._whole(index, dim)
        if isinstance(index, str):
            index = axis_handle(index)
        if isinstance(index, Axis):
            return self._axis_index(axis_handle(index), dim)
        if isinstance(index, int) and not isinstance(index, bool):
            if index < 0 or (isinstance(dim, int) and index >= dim):
                fail(ShapeError, f"position {index} is outside dimension {dim} of {self.name}; count from 0")
            return Indexed(index)
        if not isinstance(index, Operand):
            fail(ShapeError, f"{index!r} cannot index {self.name}; use an axis, :, a position or an integer tile")
        tile = index.as_tile()
        if tile.dtype.kind != "int":
            fail(DTypeError, f"an index of {self.name} is {tile.dtype}; indices are integers, convert with .to(i64)")
        return Indexed(tile.name, tile.axes, tile.deps)

    def _whole(self, index: slice, dim: ir.Dim) -> Axis:
        if index != slice(None) or isinstance(dim, int):
            fail(ShapeError, f"a slice of {self.name} is `:` on a named dimension; bound a loop with start= and stop=")
        return axis_handle(dim)

    def _axis_index(self, axis: Axis, dim: ir.Dim) -> Indexed:
        if axis.dim != dim:
            message = f"axis {axis.name} runs over {axis.dim} but indexes dimension {dim} of {self.name}"
            fail(ShapeError, f"{message}; use an axis over {dim}, or coord({axis.name}) if its position is meant")
        return Indexed(axis.name, () if axis.each else (axis,), loop_deps([axis]))

    def _check_distinct(self, parts: list[Indexed]) -> None:
        direct = [part.index for part in parts if len(part.axes) == 1 and part.index == part.axes[0].name]
        for name in direct:
            if direct.count(name) > 1:
                fail(
                    ShapeError, f"axis {name} indexes {self.name} twice; use two axes, or coord({name}) for a diagonal"
                )

    def _example(self) -> str:
        return ", ".join("0" if isinstance(dim, int) else dim[0].lower() for dim in self.dims)


@dataclass(frozen=True)
class Indexed:
    """One index of a place, the axes that it contributes, and the loop axes that it depends on."""

    index: ir.Index
    axes: tuple[Axis, ...] = ()
    deps: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """What a tensor is indexed with: the ref, the axes of the tile there, the loop axes it depends on."""

    ref: ir.Ref
    axes: tuple[Axis, ...]
    deps: frozenset[str]


def _check_races(place: Place) -> None:
    """No two iterations, and no two statements, may store to the same place."""
    trace, written = Trace.current(), show_ref(place.ref)
    for block in trace.blocks:
        for axis in block.axes:
            if axis.name in place.deps:
                continue
            if block.parallel:
                fix = f"index with {axis.name}, or sum over it with tiles({axis.over!r})"
                fail(RaceError, f"every iteration of parallel axis {axis.name} stores to {written}; {fix}")
            fix = f"carry the tile and store it after the loop, or index with {axis.name}"
            fail(RaceError, f"every iteration over {axis.name} overwrites {written}; {fix}")
    for earlier in trace.stores:
        if earlier.buffer == place.ref.buffer and _overlap(trace, earlier, place.ref):
            fail(RaceError, f"{written} was stored already as {show_ref(earlier)}; store each place once")


def _overlap(trace: Trace, a: ir.Ref, b: ir.Ref) -> bool:
    """Whether both refs surely name a common place."""
    return all(_meets(trace, x, y) for x, y in zip(a.index, b.index, strict=True))


def _meets(trace: Trace, x: ir.Index, y: ir.Index) -> bool:
    if x == y:
        return True
    first, second = trace.axes.get(str(x)), trace.axes.get(str(y))
    is_axis = [axis is not None or index in trace.dims for axis, index in ((first, x), (second, y))]
    if first is not None and second is not None:
        apart = [(first.stop, second.start), (second.stop, first.start)]
        return not any(stop is not None and stop == start for stop, start in apart)
    # An axis or a whole dim covers any position; integer values and unequal positions may differ.
    return all(is_axis) or (any(is_axis) and (isinstance(x, int) or isinstance(y, int)))
