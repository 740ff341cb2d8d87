"""Normalisations, softmax, argmax and top-k of the last dimension."""

from __future__ import annotations

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import f32, i64
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import INTEGERS, Operands, fold_rows


@op
def rmsnorm(x: Tensor, weight: Tensor, eps: float = 1e-6, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension: x[..., D], weight[D] -> [..., D].

    f32, bf16 or f16 each, computed in f32; `out` may be x itself.
    """
    given = Operands("rmsnorm")
    a = given.take("x", x, rank=1)
    fixed = {"weight": given.expect("weight", weight, a.shape[-1:], why="D is the last dimension of x")}
    out, y = given.output(out, x, a.shape, a.dtype, in_place=("x",))
    if 0 in y.shape:
        return Bound((), out)
    parts = fold_rows({"x": a, "y": y}, len(a.shape) - 1)
    return Bound([bind(operators.rmsnorm, {**part, **fixed}, {"eps": eps}) for part in parts], out)


@op
def rmsnorm_backward(
    x: Tensor, weight: Tensor, dy: Tensor, eps: float = 1e-6, *, out: tuple[Tensor, Tensor] | None = None
) -> Bound[tuple[Tensor, Tensor]]:
    """`(dx, dweight)` of `rmsnorm(x, weight, eps)` for dy[..., D], the gradient of its result.

    Rows of x and dy must fold to one dimension by strides (contiguous ones do): dweight[D] sums over all of them.
    """
    given = Operands("rmsnorm_backward")
    a = given.take("x", x, rank=1)
    slope = given.expect("dy", dy, a.shape, why="the shape of x")
    w = given.expect("weight", weight, a.shape[-1:], why="D is the last dimension of x")
    first, second = out or (None, None)
    first, dx = given.output(first, x, a.shape, a.dtype, name="out[0]")
    second, dweight = given.output(second, weight, w.shape, w.dtype, name="out[1]")
    lead = len(a.shape) - 1
    parts = list(fold_rows({"x": a, "dy": slope, "dx": dx}, lead))
    if len(parts) > 1:
        given.refuse("x", a, "has rows that do not fold to one dimension; pass x.contiguous(), dy too")
    _, scale = given.output(None, x, (parts[0]["x"].shape[0],), f32)
    rows, tables = parts[0], {"scale": scale}
    launches = [
        bind(operators.rmsnorm_backward, {**rows, **tables, "weight": w}, {"eps": eps}),
        bind(operators.rmsnorm_weight_backward, {"x": rows["x"], "dy": rows["dy"], **tables, "dweight": dweight}),
    ]
    return Bound(launches, (first, second))


@op
def softmax_backward(y: Tensor, dy: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """dx of `y = softmax(x)` for dy[..., D], the gradient of y: y (dy - sum(y dy)). `out` may be dy itself."""
    given = Operands("softmax_backward")
    a = given.take("y", y, rank=1)
    slope = given.expect("dy", dy, a.shape, why="the shape of y")
    out, dx = given.output(out, y, a.shape, a.dtype, in_place=("dy",))
    if 0 in dx.shape:
        return Bound((), out)
    parts = fold_rows({"y": a, "dy": slope, "dx": dx}, len(a.shape) - 1)
    return Bound([bind(operators.softmax_backward, part) for part in parts], out)


@op
def add_rmsnorm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float = 1e-6,
    *,
    out: tuple[Tensor, Tensor] | None = None,
) -> Bound[tuple[Tensor, Tensor]]:
    """`(normed, sum)` with sum = x + residual and normed = rmsnorm(sum): x[..., D], residual[..., D], weight[D].

    The norm is of the sum before it is rounded to its element type. `out` is (normed, sum); each may be x or
    residual itself.
    """
    given = Operands("add_rmsnorm")
    a = given.take("x", x, rank=1)
    b = given.expect("residual", residual, a.shape, why="the shape of x")
    fixed = {"weight": given.expect("weight", weight, a.shape[-1:], why="D is the last dimension of x")}
    y, total = out or (None, None)
    y, normed = given.output(y, x, a.shape, a.dtype, name="out[0]", in_place=("x", "residual"))
    total, summed = given.output(total, residual, a.shape, b.dtype, name="out[1]", in_place=("x", "residual"))
    if 0 in a.shape:
        return Bound((), (y, total))
    parts = fold_rows({"x": a, "residual": b, "total": summed, "y": normed}, len(a.shape) - 1)
    launches = [bind(operators.add_rmsnorm, {**part, **fixed}, {"eps": eps}) for part in parts]
    return Bound(launches, (y, total))


@op
def layernorm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5, *, out: Tensor | None = None
) -> Bound[Tensor]:
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension: x[..., D], weight[D], bias[D].

    f32, bf16 or f16 each, computed in f32; `out` may be x itself.
    """
    given = Operands("layernorm")
    a = given.take("x", x, rank=1)
    why = "D is the last dimension of x"
    fixed = {"weight": given.expect("weight", weight, a.shape[-1:], why=why)}
    fixed.update(given.maybe("bias", bias, a.shape[-1:], why=why))
    out, y = given.output(out, x, a.shape, a.dtype, in_place=("x",))
    if 0 in y.shape:
        return Bound((), out)
    parts = fold_rows({"x": a, "y": y}, len(a.shape) - 1)
    return Bound([bind(operators.layernorm, {**part, **fixed}, {"eps": eps}) for part in parts], out)


@op
def softmax(x: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """Softmax over the last dimension: x[..., D] -> [..., D]; NaN where a row is all -inf, as torch gives.

    f32, bf16 or f16, computed in f32; `out` may be x itself.
    """
    given = Operands("softmax")
    a = given.take("x", x, rank=1)
    out, y = given.output(out, x, a.shape, a.dtype, in_place=("x",))
    if 0 in y.shape:
        return Bound((), out)
    parts = fold_rows({"x": a, "y": y}, len(a.shape) - 1)
    return Bound([bind(operators.softmax, part) for part in parts], out)


@op
def argmax(x: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """The position of the largest element of the last dimension: x[..., D] -> i64 [...]; the first of equal ones.

    NaN counts as +inf. `out` may be i32 or i64. Raises ArgumentError where D is 0.
    """
    given = Operands("argmax")
    a = given.take("x", x, rank=1)
    if a.shape[-1] == 0:
        raise ArgumentError(f"argmax: x of shape {list(a.shape)} has no elements to choose from in its last dimension")
    out, index = given.output(out, x, a.shape[:-1], i64, dtypes=INTEGERS)
    if 0 in a.shape:
        return Bound((), out)
    parts = fold_rows({"x": a, "index": index}, len(a.shape) - 1)
    return Bound([bind(operators.argmax, part) for part in parts], out)


@op
def topk(x: Tensor, k: int, *, out: tuple[Tensor, Tensor] | None = None) -> Bound[tuple[Tensor, Tensor]]:
    """`(values, index)` of the k largest elements of the last dimension, largest first: x[..., D] -> [..., k] each.

    Of equal elements the first comes first; NaN counts as +inf. `index` is i64 (i32 in `out` too). It takes k passes
    over a row: meant for small k. Raises ArgumentError unless 1 <= k <= D.
    """
    given = Operands("topk")
    a = given.take("x", x, rank=1)
    if not 1 <= k <= a.shape[-1]:
        raise ArgumentError(f"topk: k={k} of {a.shape[-1]} elements in x's last dimension; take 1 to {a.shape[-1]}")
    shape = (*a.shape[:-1], k)
    first, second = out or (None, None)
    first, values = given.output(first, x, shape, a.dtype, name="out[0]")
    second, index = given.output(second, x, shape, i64, name="out[1]", dtypes=INTEGERS)
    if 0 in a.shape:
        return Bound((), (first, second))
    parts = fold_rows({"x": a, "values": values, "index": index}, len(a.shape) - 1)
    return Bound([bind(operators.topk, part, {}, {"k": k}) for part in parts], (first, second))
