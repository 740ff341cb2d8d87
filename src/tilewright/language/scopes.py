"""What each statement of a program can see: values, axes, buffers, and the loops around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from tilewright.language import ir
from tilewright.language.dtypes import DType


@dataclass(frozen=True)
class Value:
    """A value in scope: its type, the loops around its definition, and the axes that it depends on."""

    type: ir.TileType
    depth: int
    deps: frozenset[str]


@dataclass(frozen=True)
class Buffer:
    """A tensor, or an allocated buffer, in scope; `depth` loops are around its definition."""

    dtype: DType
    dims: tuple[ir.Dim, ...]
    depth: int


@dataclass
class Scope:
    """The names that a statement sees. It grows while its block is walked: look at once, do not keep."""

    kernel: ir.Kernel
    values: dict[str, Value] = field(default_factory=dict)
    axes: dict[str, ir.Axis] = field(default_factory=dict)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    loops: tuple[ir.Loop, ...] = ()
    # Axes of which only one iteration executes this block (`when first(i)`).
    once: frozenset[str] = frozenset()

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the symbolic sizes."""
        return self.kernel.dims

    def scalar_dtype(self, name: str) -> DType | None:
        """The dtype of the scalar parameter `name`; None if there is none."""
        return next((p.dtype for p in self.kernel.params if p.name == name and p.dims is None), None)

    def lineage(self, axis: str) -> tuple[str, ...]:
        """`axis`, the axis that it splits, and so on to the dimension."""
        chain = [axis]
        while (parent := self.axes.get(chain[-1])) is not None and parent.over not in chain:
            chain.append(parent.over)
        return tuple(chain)

    def is_point(self, axis: str) -> bool:
        """Whether `axis` visits single positions."""
        return axis in self.axes and self.axes[axis].each

    def ref_axes(self, ref: ir.Ref) -> tuple[str, ...]:
        """The axes of the tile at `ref`: the union over its indices, in order of appearance."""
        axes: dict[str, None] = {}
        for index in ref.index:
            if index in self.values:
                axes.update(dict.fromkeys(self.values[str(index)].type.axes))
            elif isinstance(index, str) and not self.is_point(index):
                axes[index] = None
        return tuple(axes)

    def deps(self, names: tuple[str | int, ...]) -> frozenset[str]:
        """The loop axes on which values, axes and indices called `names` depend."""
        found: set[str] = set()
        for name in names:
            if name in self.values:
                found |= self.values[str(name)].deps
            elif name in self.axes:
                found |= set(self.lineage(str(name)))
        return frozenset(found)

    def loop_axes(self, depth: int) -> frozenset[str]:
        """Axes of the loops more than `depth` loops deep."""
        return frozenset(axis.name for loop in self.loops[depth:] for axis in loop.axes)


def scopes(kernel: ir.Kernel) -> Iterator[tuple[ir.Stmt, Scope]]:
    """Every statement, outer before inner, with what it sees just before it runs."""
    buffers = {p.name: Buffer(p.dtype, p.dims, 0) for p in kernel.params if p.dims is not None}
    yield from _block(kernel.body, Scope(kernel, buffers=buffers))


def _block(body: tuple[ir.Stmt, ...], scope: Scope) -> Iterator[tuple[ir.Stmt, Scope]]:
    for stmt in body:
        yield stmt, scope
        depth = len(scope.loops)
        match stmt:
            case ir.Let(name, tile_type, expr, _):
                deps = scope.deps((*ir.operands(expr), *tile_type.axes))
                if isinstance(expr, (ir.Coord)):
                    deps |= scope.deps((expr.axis,))
                scope.values[name] = Value(tile_type, depth, deps)
            case ir.Assign(name, value) if name in scope.values:
                old = scope.values[name]
                deps = old.deps | scope.deps((value,)) | scope.loop_axes(old.depth)
                scope.values[name] = replace(old, deps=deps)
            case ir.Alloc(name, dtype, dims, _):
                scope.buffers[name] = Buffer(dtype, dims, depth)
            case ir.Loop(axes, inner, _, _):
                within = {**scope.axes, **{axis.name: axis for axis in axes}}
                yield from _block(inner, _inside(scope, axes=within, loops=(*scope.loops, stmt)))
            case ir.When(cond, axis, inner):
                once = scope.once | {axis} if cond in ("first", "last") else scope.once
                yield from _block(inner, _inside(scope, once=once))
            case ir.Role(_, inner, _):
                yield from _block(inner, _inside(scope))


def _inside(
    scope: Scope,
    *,
    axes: dict[str, ir.Axis] | None = None,
    loops: tuple[ir.Loop, ...] | None = None,
    once: frozenset[str] | None = None,
) -> Scope:
    """The scope of a block inside `scope`."""
    return Scope(
        scope.kernel,
        dict(scope.values),
        scope.axes if axes is None else axes,
        dict(scope.buffers),
        scope.loops if loops is None else loops,
        scope.once if once is None else once,
    )
