"""Products of matrices: linear, gate_up and matmul."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright import operators
from tilewright.errors import ArgumentError, DTypeError
from tilewright.language.ir import PRECISIONS
from tilewright.operators.activation import ACTIVATIONS
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import Operands, broadcast, fold_rows
from tilewright.runtime.buffer import Buffer, Shape


@op
def linear(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    activation: str | None = None,
    precision: str | None = None,
    out: Tensor | None = None,
) -> Bound[Tensor]:
    """`activation(x w^T + bias) + residual`: x[..., K], w[N, K], bias[N], residual[..., N] -> [..., N].

    `activation` is "silu", "gelu" (exact), "gelu_tanh", "relu" or None. x and w have one dtype (f32, bf16 or
    f16), sums are f32, the result has the dtype of x or of `out`; `out` may be `residual` itself. `precision` "tf32"
    lets a machine take f32 with ten bits of mantissa, so that each term of a sum may be 2^-9 of itself off.
    Raises ArgumentError or DTypeError naming the operand.
    """
    given = Operands("linear")
    a, b = given.take("x", x, rank=1), given.take("w", w, rank=2)
    lead, k = a.shape[:-1], a.shape[-1]
    given.fit("w", b, ("N", k), "K is the last dimension of x")
    given.same_dtype("w", b, "x", a)
    if activation is not None and activation not in ACTIVATIONS:
        raise ArgumentError(f"linear: unknown activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    n = b.shape[0]
    fixed = {"b": b, **given.maybe("bias", bias, (n,), why="N is the first dimension of w")}
    rows = {"a": a, **given.maybe("residual", residual, (*lead, n), why="the shape of the result")}
    out, rows["c"] = given.output(out, x, (*lead, n), a.dtype, in_place=("residual",))
    if 0 in rows["c"].shape:
        return Bound((), out)
    options = {"activation": activation, **_precision(given, a, precision)}
    folded = fold_rows(rows, len(lead))
    return Bound([bind(operators.matmul, {**part, **fixed}, {}, options) for part in folded], out)


@op
def gate_up(x: Tensor, w_gate: Tensor, w_up: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`silu(x w_gate^T) * (x w_up^T)` in one pass over x: x[..., K], w_gate[N, K], w_up[N, K] -> [..., N].

    All three have one dtype (f32, bf16 or f16); sums are f32, the result has the dtype of x or of `out`.
    """
    given = Operands("gate_up")
    a, gate = given.take("x", x, rank=1), given.take("w_gate", w_gate, rank=2)
    lead, k = a.shape[:-1], a.shape[-1]
    given.fit("w_gate", gate, ("N", k), "K is the last dimension of x")
    up = given.expect("w_up", w_up, gate.shape, why="the shape of w_gate")
    given.same_dtype("w_gate", gate, "x", a)
    given.same_dtype("w_up", up, "x", a)
    out, y = given.output(out, x, (*lead, gate.shape[0]), a.dtype)
    if 0 in y.shape:
        return Bound((), out)
    fixed = {"gate": gate, "up": up}
    return Bound([bind(operators.gate_up, {**part, **fixed}) for part in fold_rows({"x": a, "y": y}, len(lead))], out)


@op
def matmul(a: Tensor, b: Tensor, *, precision: str | None = None, out: Tensor | None = None) -> Bound[Tensor]:
    """`a b`: a[..., M, K], b[..., K, N] -> [..., M, N]; leading dimensions broadcast as torch.matmul's do.

    Both have one dtype (f32, bf16 or f16) and any strides; sums are f32, the result has the dtype of a or of `out`.
    `precision` is that of `linear`.
    """
    given = Operands("matmul")
    left, right = given.take("a", a, rank=2), given.take("b", b, rank=2)
    (m, k), n = left.shape[-2:], right.shape[-1]
    if right.shape[-2] != k:
        given.refuse("b", right, f"does not fit [..., {k}, N] (K is the last dimension of a); transpose or slice it")
    given.same_dtype("b", right, "a", left)
    try:
        lead: Shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        given.refuse("b", right, f"has leading dimensions that do not broadcast with those of a, {list(left.shape)}")
    out, result = given.output(out, a, (*lead, m, n), left.dtype)
    if 0 in result.shape:
        return Bound((), out)
    options = _precision(given, left, precision)
    if math.prod(right.shape[:-2]) == 1:
        # One matrix for all rows of a: a single, larger product.
        one = right.reshape(right.shape[-2:]).swap(0, 1)
        wide_left = broadcast(left, lead, 2)
        parts = fold_rows({"a": wide_left, "c": result}, len(lead) + 1)
        return Bound([bind(operators.matmul, {**part, "b": one}, {}, options) for part in parts], out)
    batch = {"a": broadcast(left, lead, 2), "b": broadcast(right, lead, 2).swap(-2, -1), "c": result}
    return Bound([bind(operators.batched_matmul, part, {}, options) for part in fold_rows(batch, len(lead))], out)


def _precision(given: Operands, x: Buffer, precision: str | None) -> dict[str, Any]:
    """The option of a product whose operands may be taken with fewer bits; none where that is not asked for."""
    if precision is None:
        return {}
    if precision not in PRECISIONS:
        raise ArgumentError(
            f"{given.name}: unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)} or None"
        )
    if x.dtype.name != "f32":
        raise DTypeError(f"{given.name}: precision {precision} is for f32, and x is {x.dtype}; leave it away")
    return {"precision": precision}
