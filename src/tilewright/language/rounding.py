"""How far a correct kernel may be from the exact result of any program: the interpreter with a running error bound.

Beside every float64 value the interpreter keeps a bound on the error of the same value computed in the program's own
types, as in Higham, "Accuracy and Stability of Numerical Algorithms", section 3.3: each operation passes on the errors
of its operands, to first order, and adds its own rounding. Sums may be added in any order, so a sum of n terms gets
the bound of `runtime.tolerance`. A comparison that the errors could decide either way makes both answers possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.language import ir
from tilewright.language.dtypes import DType
from tilewright.language.interpreter import Array, Execution, aligned

Array64 = npt.NDArray[np.float64]

_F32 = 2.0**-24
_TINY = float(np.finfo(np.float32).tiny)  # smaller results may be flushed to zero
_FUNCTION = 16 * _F32  # a polynomial exp, tanh or erf: a few ulp, and an argument that was reduced first
_CONFIDENCE = 8  # see runtime.tolerance.bound


def run_bounded(
    kernel: ir.Kernel, tensors: Mapping[str, Array], scalars: Mapping[str, float], steps: int | Mapping[str, int] = 64
) -> dict[str, Array64]:
    """Execute `kernel` exactly, as `interpreter.run(exact=True)` does, into float64 (or integer) `tensors`.

    The result holds, for each tensor that is stored to, a bound on the error of each element before it is rounded to
    the type of the tensor. An element that is never written has the bound 0.
    """
    state = _Bounded.of(kernel, tensors, scalars, steps)
    state.block(kernel.body)
    names = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    return {n: state.wrong[n] for n in names if n in tensors}


class _Bounded(Execution):
    """An execution that keeps, for each value and each buffer that was written, the bound of its error."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.errors: dict[str, Array64] = {}
        self.wrong: dict[str, Array64] = {}
        self.adds = 1.0  # additions that one `add` of an accumulator may stand for: tiles may be as small as a point

    def stmt(self, stmt: ir.Stmt) -> None:
        match stmt:
            case ir.Alloc(name):
                self.wrong.pop(name, None)
            case ir.Store(ref, value, _):
                self._write(ref, self.values[value][0], self.errors[value])
            case ir.Copy(dst, src, _):
                axes = self.ref_axes(src)
                self._write(dst, axes, self._stored_error(src, axes))
        super().stmt(stmt)
        match stmt:
            case ir.Let(name, tile_type, expr, _):
                with np.errstate(all="ignore"):
                    error = self._error(expr, tile_type, self.values[name][1])
                known = np.nan_to_num(error, nan=math.inf, posinf=math.inf)
                # An infinity is one whatever is added to it, such as a mask's.
                self.errors[name] = np.where(np.isinf(self.values[name][1]), 0.0, known)
            case ir.Assign(name, value):
                self.errors[name] = self.errors[value]

    def loop(self, axes: tuple[ir.Axis, ...], body: tuple[ir.Stmt, ...], parallel: bool) -> None:
        before = self.adds
        if not parallel:
            self.adds *= math.prod(self.step(axis) for axis in axes)
        super().loop(axes, body, parallel)
        self.adds = before

    # ------------------------------------------------------------------------------------------ places
    def _write(self, ref: ir.Ref, axes: tuple[str, ...], error: Array64) -> None:
        buffer = self.buffers[ref.buffer]
        at, order = self.place(ref)
        found = self.wrong.setdefault(ref.buffer, np.zeros(buffer.shape))
        found[at] = aligned(error, axes, order)

    def _stored_error(self, ref: ir.Ref, axes: tuple[str, ...]) -> Array64:
        """Of what is loaded: none from an input; what was stored has been rounded to the type of the buffer."""
        if ref.buffer not in self.wrong:
            return np.zeros(())
        at, order = self.place(ref)
        error, value = (
            aligned(np.array(x[at]), order, axes) for x in (self.wrong[ref.buffer], self.buffers[ref.buffer])
        )
        kinds = {p.name: p.dtype for p in self.params}
        return np.asarray(error + _rounded(kinds.get(ref.buffer), np.abs(value.astype(np.float64))))

    # ------------------------------------------------------------------------------------- expressions
    def _error(self, expr: ir.Expr, tile_type: ir.TileType, result: Array) -> Array64:
        size = np.abs(result.astype(np.float64))
        match expr:
            case ir.Load(ref):
                return self._stored_error(ref, tile_type.axes)
            case ir.Full():
                return np.abs(result.astype(np.float32) - result) if tile_type.dtype.kind == "float" else 0.0 * size
            case ir.Permute(arg):
                return self._aligned_error(arg, tile_type.axes)
            case ir.Reduce(op, arg, axis):
                return self._reduced(op, arg, axis)
            case ir.Dot(a, b, axis, precision):
                return self._dot_error(a, b, axis, ir.PRECISIONS.get(precision, 0.0))
            case ir.Map(op, args):
                values = [np.asarray(self.aligned(a, tile_type.axes), np.float64) for a in args]
                errors = [self._aligned_error(a, tile_type.axes) for a in args]
                return self._map_error(op, values, errors, size, tile_type.dtype)
        return np.zeros_like(size)

    def _aligned_error(self, name: str, axes: tuple[str, ...]) -> Array64:
        return np.asarray(aligned(self.errors[name], self.values[name][0], axes))

    def _reduced(self, op: str, arg: str, axis: str) -> Array64:
        axes, value = self.values[arg]
        at, error = axes.index(axis), self.errors[arg]
        if op != "sum":
            return np.asarray(np.max(error, axis=at, initial=0.0))
        terms = np.abs(value.astype(np.float64)).sum(at)
        return np.asarray(error.sum(at) + _additions(value.shape[at]) * terms * self._unit(value))

    def _dot_error(self, a: str, b: str, axis: str, short: float) -> Array64:
        """Of a sum of products, each operand `short` of itself off before it is multiplied."""
        (a_axes, x), (b_axes, y) = self.values[a], self.values[b]
        over = [a_axes.index(axis)], [b_axes.index(axis)]
        x, y = np.abs(x.astype(np.float64)), np.abs(y.astype(np.float64))
        dx, dy = self.errors[a], self.errors[b]
        passed = np.tensordot(x, dy, over) + np.tensordot(dx, y + dy, over) if dx.any() or dy.any() else 0.0
        own = (_additions(x.shape[over[0][0]]) + 1) * _F32 + 2 * short + short**2
        return np.asarray(passed + own * np.tensordot(x, y, over))

    def _map_error(self, op: str, x: list[Array64], e: list[Array64], size: Array64, dtype: DType) -> Array64:
        whole = dtype.kind == "int"
        unit = 0.0 if whole else _F32
        match op:
            case "add" | "sub":
                return e[0] + e[1] + size * unit * _additions(self.adds)
            case "mul":
                return np.abs(x[0]) * e[1] + np.abs(x[1]) * e[0] + e[0] * e[1] + size * unit
            case "div" if not whole:
                return (e[0] + size * e[1]) / np.maximum(np.abs(x[1]) - e[1], 0.0) + 4 * unit * size + _TINY
            case "max" | "min":
                return np.maximum(e[0], e[1])
            case "neg" | "abs":
                return e[0]
            case "cast":
                return e[0] + _rounded(dtype, size)
            case "select":
                unsure = np.maximum(e[1], e[2]) + np.abs(x[1] - x[2])
                return np.where(e[0] > 0, unsure, np.where(x[0] != 0, e[1], e[2]))
            case "lt" | "le" | "gt" | "ge" | "eq" | "ne":
                gap = e[0] + e[1]
                return np.where((gap > 0) & (np.abs(x[0] - x[1]) <= gap), math.inf, 0.0)
            case "and" | "or" | "not":
                return np.asarray(np.maximum.reduce(np.broadcast_arrays(*e)))
        return _function_error(op, x[0], e[0], size) if not whole else np.zeros_like(size)

    @staticmethod
    def _unit(value: Array) -> float:
        return 0.0 if value.dtype.kind in "iub" else _F32


def _function_error(op: str, x: Array64, e: Array64, size: Array64) -> Array64:
    """Of a function of one operand: its steepest slope within the error of the operand, and its own few ulp."""
    match op:
        case "exp" | "exp2":
            highest = np.exp(x + e) if op == "exp" else np.exp2(x + e)
            own = (_FUNCTION + np.minimum(np.abs(x), 1e4) * _F32) * size + np.where(np.isinf(x), 0.0, _TINY)
            return np.asarray(highest - size + own)
        case "log":
            return e / np.maximum(np.abs(x) - e, 0.0) + _FUNCTION * (size + 1)
        case "sqrt":
            return np.minimum(e / np.maximum(size, _TINY), np.sqrt(e)) + _FUNCTION * size
        case "rsqrt":
            return size * e / np.maximum(np.abs(x) - e, 0.0) + _FUNCTION * size
        case "sigmoid":
            return e / 4 + (_FUNCTION + np.abs(x) * _F32) * size + _TINY
        case "tanh" | "erf":
            return np.asarray(1.13 * e + _FUNCTION)
    return np.full_like(size, math.inf)


def _additions(n: float) -> float:
    return min(float(n), _CONFIDENCE * math.sqrt(n))


def _rounded(dtype: DType | None, size: Array64) -> Array64:
    """The error of values of this size when they are rounded to a type: half a gap, subnormal ones' included."""
    if dtype is None or dtype.kind != "float":
        return np.zeros_like(size)
    known = ml_dtypes.finfo(dtype.numpy)
    return np.where(size > 0, np.maximum(size * float(known.eps) / 2, float(known.smallest_subnormal) / 2), 0.0)


__all__ = ["run_bounded"]
