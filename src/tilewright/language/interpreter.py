"""The meaning of every program, in NumPy: what `run` computes is what each machine must compute.

Tiles are visited one by one with their true ragged ranges, statements in program order, parallel iterations
in any order. Notes and syncs change nothing. Positions are global: a tile of axis i is a range of its
dimension (of neighbours, or of positions that lie apart), and tensors and buffers are addressed by those positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError
from tilewright.language import ir
from tilewright.language.dtypes import DType

Array = npt.NDArray[Any]
Range = range
# For each loop axis of one iteration: its range, whether it is the first tile, whether it is the last.
Iteration = dict[str, tuple[Range, bool, bool]]

_erf = np.vectorize(math.erf, otypes=[np.float64])

_MAPS: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum, "min": np.minimum, "mod": np.mod,
    "neg": np.negative, "abs": np.abs, "exp": np.exp, "exp2": np.exp2, "log": np.log, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "erf": _erf,
    "div": lambda x, y: np.floor_divide(x, y) if x.dtype.kind == "i" else np.divide(x, y),
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not,
    "select": np.where, "cast": lambda x: x,
}  # fmt: skip


def run(
    kernel: ir.Kernel,
    tensors: Mapping[str, Array],
    scalars: Mapping[str, float] | None = None,
    *,
    steps: int | Mapping[str, int] = 16,
    seed: int | None = None,
    exact: bool = False,
) -> None:
    """Execute `kernel` on `tensors` (parameter -> array of its dtype and shape), writing its results into them.

    `steps` is the tile size of axes that have none: one for all, or by axis or dimension (16 elsewhere). With
    a `seed`, parallel iterations run in a shuffled order. `exact` computes and keeps every float in float64 and
    takes float arrays of any type: the reference. Raises ArgumentError for operands that do not fit the kernel
    and for an integer index outside its dimension.
    """
    state = Execution.of(kernel, tensors, scalars or {}, steps, exact=exact)
    state.random = None if seed is None else np.random.default_rng(seed)
    state.block(kernel.body)


class Execution:
    """The state of one execution: sizes, buffers, values, and the range of each axis now."""

    def __init__(self, kernel: ir.Kernel, exact: bool, sizes: dict[str, int]) -> None:
        self.params = kernel.params
        self.exact = exact
        self.sizes = sizes
        self.steps: dict[str, int] = {}
        self.random: np.random.Generator | None = None
        self.scalars: dict[str, float] = {}
        self.buffers: dict[str, Array] = {}
        self.dims: dict[str, tuple[ir.Dim, ...]] = {}
        self.axes = {axis.name: axis for s in ir.walk(kernel.body) if isinstance(s, ir.Loop) for axis in s.axes}
        self.now: Iteration = {}
        self.values: dict[str, tuple[tuple[str, ...], Array]] = {}

    @classmethod
    def of(
        cls,
        kernel: ir.Kernel,
        tensors: Mapping[str, Array],
        scalars: Mapping[str, float],
        steps: int | Mapping[str, int],
        *,
        exact: bool = True,
    ) -> Self:
        """The state before the first statement; the arguments are those of `run`."""
        state = cls(kernel, exact, bind_sizes(kernel, tensors, exact))
        state.steps = {"": steps} if isinstance(steps, int) else dict(steps)
        for param in kernel.params:
            if param.dims is None:
                state.scalars[param.name] = _operand(scalars, param.name)
            else:
                state.buffers[param.name], state.dims[param.name] = tensors[param.name], param.dims
        return state

    # ----------------------------------------------------------------------------------- statements

    def block(self, body: tuple[ir.Stmt, ...]) -> None:
        for stmt in body:
            self.stmt(stmt)

    def stmt(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Let(name, tile_type, expr, _):
                with np.errstate(all="ignore"):
                    value = self.expr(expr, tile_type)
                self.values[name] = (tile_type.axes, value.astype(self.dtype(tile_type.dtype), copy=False))
            case ir.Assign(name, value_name):
                self.values[name] = self.values[value_name]
            case ir.Store(ref, value_name, _):
                self.write(ref, *self.values[value_name])
            case ir.Copy(dst, src, _):
                axes = self.ref_axes(src)
                self.write(dst, axes, self.read(src, axes))
            case ir.Alloc(name, dtype, dims, _):
                # What nobody has written yet is NaN, so that reading it shows.
                poison = math.nan if dtype.kind == "float" else 0
                self.buffers[name] = np.full([self.extent(d) for d in dims], poison, self.dtype(dtype))
                self.dims[name] = dims
            case ir.Loop(axes, body, parallel, _):
                self.loop(axes, body, parallel)
            case ir.When(cond, axis, body):
                _, first, last = self.now[axis]
                if {"first": first, "last": last, "not_first": not first, "not_last": not last}[cond]:
                    self.block(body)
            case ir.Role(_, body, _):
                self.block(body)
            case ir.Sync():
                pass

    def loop(self, axes: tuple[ir.Axis, ...], body: tuple[ir.Stmt, ...], parallel: bool) -> None:
        iterations = list(self.iterations(axes))
        if parallel and self.random is not None:
            self.random.shuffle(iterations)
        outside = self.now
        for iteration in iterations:
            self.now = iteration
            self.block(body)
        self.now = outside

    def iterations(self, axes: tuple[ir.Axis, ...]) -> Iterator[Iteration]:
        """Every combination of tiles of `axes`, the last axis fastest; a later axis may split an earlier one."""
        if not axes:
            yield self.now
            return
        axis, outside = axes[0], self.now
        lo, hi = self.range(axis.over).start, self.range(axis.over).stop
        lo = max(lo, lo if axis.start is None else int(self.scalar(axis.start)))
        hi = min(hi, hi if axis.stop is None else int(self.scalar(axis.stop)))
        tiles = list(self.tiles(axis, lo, hi))
        for n, tile in enumerate(tiles):
            self.now = {**outside, axis.name: (tile, n == 0, n == len(tiles) - 1)}
            yield from self.iterations(axes[1:])
        self.now = outside

    def tiles(self, axis: ir.Axis, lo: int, hi: int) -> Iterator[Range]:
        """The tiles between `lo` and `hi`: blocks of as many runs as a tile has positions, one from each."""
        size = self.step(axis) * axis.apart
        for block in range(lo, hi, size):
            end = min(block + size, hi)
            for at in range(block, min(block + axis.apart, end)):
                yield range(at, end, axis.apart)

    # ---------------------------------------------------------------------------------- expressions

    def expr(self, expr: ir.Expr, tile_type: ir.TileType) -> Array:
        match expr:
            case ir.Full(value):
                return np.full(
                    [self.extent(a) for a in tile_type.axes], self.scalar(value), self.dtype(tile_type.dtype)
                )
            case ir.Coord(axis):
                tile = self.range(axis)
                return _numbers(tile) if tile_type.axes else np.asarray(tile.start)
            case ir.Load(ref):
                return self.read(ref, tile_type.axes)
            case ir.Map(op, args):
                return np.asarray(_MAPS[op](*(self.aligned(name, tile_type.axes) for name in args)))
            case ir.Reduce(op, arg, axis):
                return self.reduce(op, *self.values[arg], axis)
            case ir.Dot(a, b, axis):
                return self.dot(self.values[a], self.values[b], axis, self.dtype(tile_type.dtype))
            case ir.Permute(arg):
                return self.aligned(arg, tile_type.axes)

    @staticmethod
    def reduce(op: str, axes: tuple[str, ...], value: Array, axis: str) -> Array:
        at = axes.index(axis)
        if op == "sum":
            return np.asarray(value.sum(at, dtype=value.dtype))
        worst = -math.inf if op == "max" else math.inf
        if value.dtype.kind == "i":
            info = np.iinfo(value.dtype)
            worst = info.min if op == "max" else info.max
        return np.asarray({"max": np.max, "min": np.min}[op](value, axis=at, initial=worst))

    @staticmethod
    def dot(a: tuple[tuple[str, ...], Array], b: tuple[tuple[str, ...], Array], axis: str, dtype: Any) -> Array:
        (a_axes, x), (b_axes, y) = a, b
        return np.tensordot(x.astype(dtype), y.astype(dtype), ([a_axes.index(axis)], [b_axes.index(axis)]))

    # --------------------------------------------------------------------------------------- places

    def read(self, ref: ir.Ref, axes: tuple[str, ...]) -> Array:
        at, order = self.place(ref)
        # A copy: later stores to the tensor must not change a tile that was loaded before.
        value = np.array(self.buffers[ref.buffer][at])
        if self.exact and value.dtype.kind not in "iub":
            value = value.astype(np.float64)
        return aligned(value, order, axes)

    def write(self, ref: ir.Ref, axes: tuple[str, ...], value: Array) -> None:
        at, order = self.place(ref)
        buffer = self.buffers[ref.buffer]
        buffer[at] = aligned(value, axes, order).astype(buffer.dtype)

    def place(self, ref: ir.Ref) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        """What to index the buffer's array with, and the axes of the tile that this selects, in order."""
        axes, array = self.ref_axes(ref), self.buffers[ref.buffer]
        gathers = any(index in self.values for index in ref.index)
        at: list[Any] = []
        for index, dim, extent in zip(ref.index, self.dims[ref.buffer], array.shape, strict=True):
            positions = self.positions(index, axes) - (self.range(dim).start if isinstance(dim, str) else 0)
            lo, hi = (int(positions.min()), int(positions.max())) if positions.size else (0, -1)
            if lo < 0 or hi >= extent:
                outside = f"{lo if lo < 0 else hi}, outside dimension {dim} of size {extent}"
                raise ArgumentError(f"index {index} of {ref.buffer} is {outside}; check the integers in its operands")
            # Plain ranges become slices; where any index gathers, all are arrays that broadcast to the tile.
            at.append(positions if gathers else slice(lo, hi + 1, self.range(index).step) if index in axes else lo)
        return tuple(at), axes

    def positions(self, index: ir.Index, axes: tuple[str, ...]) -> Array:
        """The global positions that `index` names, aligned with `axes`."""
        if isinstance(index, int):
            return np.asarray(index)
        if index in self.values:
            return self.aligned(index, axes)
        tile = self.range(index)
        return np.asarray(tile.start) if self.is_point(index) else aligned(_numbers(tile), (index,), axes)

    def ref_axes(self, ref: ir.Ref) -> tuple[str, ...]:
        """The axes of the tile at `ref`: the union over its indices, in order of appearance."""
        axes: dict[str, None] = {}
        for index in ref.index:
            if index in self.values:
                axes.update(dict.fromkeys(self.values[str(index)][0]))
            elif isinstance(index, str) and not self.is_point(index):
                axes[index] = None
        return tuple(axes)

    # -------------------------------------------------------------------------------- sizes and names

    def range(self, name: str) -> Range:
        """The positions that an axis covers now, or a whole dimension covers always."""
        return self.now[name][0] if name in self.now else range(self.sizes[name])

    def extent(self, dim: ir.Dim) -> int:
        """Elements of a dimension of a buffer: of the range of an axis, or of a whole tile of an inner loop's axis."""
        if isinstance(dim, int):
            return dim
        if dim in self.now or dim in self.sizes:
            return len(self.range(dim))
        return self.step(self.axes[dim])

    def step(self, axis: ir.Axis) -> int:
        if axis.each:
            return 1
        return axis.step or self.steps.get(axis.name) or self.steps.get(axis.over) or self.steps.get("", 16)

    def is_point(self, axis: str) -> bool:
        return axis in self.axes and self.axes[axis].each

    def scalar(self, atom: ir.Atom) -> Any:
        if not isinstance(atom, str):
            return atom
        if atom in self.values:
            return self.values[atom][1]
        return self.scalars[atom] if atom in self.scalars else self.sizes[atom]

    def aligned(self, name: str, axes: tuple[str, ...]) -> Array:
        own, value = self.values[name]
        return aligned(value, own, axes)

    def dtype(self, dtype: DType) -> np.dtype[Any]:
        return np.dtype(np.float64) if self.exact and dtype.kind == "float" else dtype.numpy


def _numbers(tile: Range) -> Array:
    return np.arange(tile.start, tile.stop, tile.step)


def aligned(value: Array, own: tuple[str, ...], axes: tuple[str, ...]) -> Array:
    """`value` with its axes in the order of `axes`, and size 1 along those that it lacks."""
    ordered = value.transpose([own.index(a) for a in axes if a in own])
    return ordered[tuple(slice(None) if a in own else None for a in axes)]


def bind_sizes(kernel: ir.Kernel, tensors: Mapping[str, Array], exact: bool = False) -> dict[str, int]:
    """The size of each dimension, from the shapes of `tensors`; ArgumentError where they do not fit the kernel."""
    sizes: dict[str, int] = {}
    for param in kernel.params:
        if param.dims is None:
            continue
        array = _operand(tensors, param.name)
        if array.dtype != param.dtype.numpy and not (exact and param.dtype.kind == "float"):
            raise ArgumentError(f"{param.name} is {array.dtype}, but {kernel.name} was traced for {param.dtype}")
        if array.ndim != len(param.dims):
            raise ArgumentError(f"{param.name} has shape {array.shape}, but {kernel.name} takes {list(param.dims)}")
        for dim, size in zip(param.dims, array.shape, strict=True):
            known = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
            if known != size:
                raise ArgumentError(f"{param.name} has shape {array.shape}, but dimension {dim} is {known} elsewhere")
    return sizes


def _operand(given: Mapping[str, Any], name: str) -> Any:
    if name not in given:
        raise ArgumentError(f"no operand {name!r} was given; pass one for every parameter of the kernel")
    return given[name]
