"""What the integers in a program's operands may be: positions that they index, lengths that end a loop.

Derived from the program: each integer is followed from where it is loaded to the refs and the loops that it reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from tilewright.language import ir, structure

_PASSED_ON = frozenset({"add", "sub", "max", "min", "neg", "abs", "select", "cast"})
# For each integer operand that a value is made from: how many of its steps make one of the value's.
_Origins = dict[str, Fraction]


@dataclass
class Limit:
    """The largest value of an integer operand (None: any); whether it begins or ends a loop, or says where to write.

    Of an operand that says where to write no two elements may be the same.
    """

    most: int | None = None
    begins_loop: bool = False
    ends_loop: bool = False
    scatters: bool = False

    def at_most(self, value: int) -> None:
        """Lower the limit to `value`."""
        self.most = value if self.most is None else min(self.most, value)


def limits(kernel: ir.Kernel, sizes: Mapping[str, int]) -> dict[str, Limit]:
    """A limit for each integer operand, tensor or scalar, under these sizes; the least is always 0."""
    return _Follower(kernel, sizes).follow()


class _Follower:
    def __init__(self, kernel: ir.Kernel, sizes: Mapping[str, int]) -> None:
        self.kernel, self.sizes = kernel, sizes
        integers = [p for p in kernel.params if p.dtype.kind == "int"]
        self.found = {p.name: Limit() for p in integers}
        self.tensors = {p.name: p.dims for p in kernel.params if p.dims is not None}
        self.axes = structure.axes(kernel)
        self.origins: dict[str, _Origins] = {p.name: {p.name: Fraction(1)} for p in integers if p.dims is None}
        self.constants: dict[str, int] = {}

    def follow(self) -> dict[str, Limit]:
        for _ in range(2):  # twice: a value that a loop carries may be made from one further down
            for stmt in ir.walk(self.kernel.body):
                self._stmt(stmt)
        return self.found

    def _stmt(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Let(name, _, expr, _):
                if isinstance(expr, ir.Load):
                    self._indexed(expr.ref, writes=False)
                self.origins[name] = self._expr(name, expr)
            case ir.Assign(name, value):
                self.origins[name] = {**self.origins.get(name, {}), **self.origins.get(value, {})}
            case ir.Store(ref, _, _):
                self._indexed(ref, writes=True)
            case ir.Loop(axes, _, _, _):
                for axis in axes:
                    for limit in self._bound(axis.start, axis):
                        limit.begins_loop = True
                    for limit in self._bound(axis.stop, axis):
                        limit.ends_loop = True

    def _expr(self, name: str, expr: ir.Expr) -> _Origins:
        match expr:
            case ir.Load(ref) if ref.buffer in self.found:
                return {ref.buffer: Fraction(1)}
            case ir.Full(value) if isinstance(value, str):
                if value in self.sizes:
                    self.constants[name] = self.sizes[value]
                return self.origins.get(value, {})
            case ir.Full(value) if isinstance(value, int):
                self.constants[name] = value
            case ir.Permute(arg) | ir.Reduce("max" | "min", arg, _):
                return self.origins.get(arg, {})
            case ir.Map("cast", (arg,)) if arg in self.constants:
                self.constants[name] = self.constants[arg]
            case ir.Map("div" | "mul" as op, (a, b)) if self.constants.get(b, 0) > 0:
                by = Fraction(self.constants[b])
                return {p: at * by if op == "div" else at / by for p, at in self.origins.get(a, {}).items()}
            case ir.Map(op, args) if op in _PASSED_ON:
                return {p: at for a in args for p, at in self.origins.get(a, {}).items()}
        return {}

    def _indexed(self, ref: ir.Ref, writes: bool) -> None:
        for index, dim in zip(ref.index, self.tensors.get(ref.buffer, ()), strict=False):
            for param, steps in self.origins.get(str(index), {}).items():
                extent = dim if isinstance(dim, int) else self.sizes[dim]
                self.found[param].at_most(int(extent * steps) - 1)
                self.found[param].scatters |= writes

    def _bound(self, bound: str | int | None, axis: ir.Axis) -> Iterator[Limit]:
        """Limits of the operands that a bound of a loop is made from: it lies in the dimension, or at its end."""
        over = axis.over
        while over in self.axes:
            over = self.axes[over].over
        for param, steps in self.origins.get(str(bound), {}).items():
            if over in self.sizes:
                self.found[param].at_most(int(self.sizes[over] * steps))
                yield self.found[param]


__all__ = ["Limit", "limits"]
