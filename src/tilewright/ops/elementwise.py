"""Elementwise ops: silu, gelu, swiglu, geglu, scale_add; gradients of the gated ones; embedding, which copies rows."""

from __future__ import annotations

import functools

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.operators import Operator
from tilewright.ops.backend import Launch, Options, Scalars, bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import INTEGERS, Operands, fold_rows, in_range, name_some
from tilewright.runtime.buffer import Buffer


@op
def silu(x: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`x * sigmoid(x)`: x[...] of f32, bf16 or f16 -> the same shape and dtype; `out` may be x itself."""
    return _elementwise(operators.silu, {"x": x}, "y", out)


@op
def gelu(x: Tensor, *, approximate: str = "none", out: Tensor | None = None) -> Bound[Tensor]:
    """`x * Phi(x)`, or its tanh approximation with approximate="tanh" (torch's names): x[...] -> the same shape."""
    return _elementwise(operators.gelu, {"x": x}, "y", out, options=_gelu_options("gelu", approximate))


@op
def swiglu(gate: Tensor, up: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`silu(gate) * up`: gate[...] and up[...] of one shape; `out` may be either of them."""
    return _elementwise(operators.swiglu, {"gate": gate, "up": up}, "y", out)


@op
def geglu(gate: Tensor, up: Tensor, *, approximate: str = "none", out: Tensor | None = None) -> Bound[Tensor]:
    """`gelu(gate) * up`, by the tanh approximation with approximate="tanh": gate[...] and up[...] of one shape."""
    options = _gelu_options("geglu", approximate)
    return _elementwise(operators.geglu, {"gate": gate, "up": up}, "y", out, options=options)


def _gelu_options(name: str, approximate: str) -> Options:
    activations = {"none": "gelu", "tanh": "gelu_tanh"}
    if approximate not in activations:
        raise ArgumentError(f"{name}: approximate={approximate!r} is unknown; choose 'none' or 'tanh'")
    return {"activation": activations[approximate]}


@op
def swiglu_backward(
    gate: Tensor, up: Tensor, dy: Tensor, *, out: tuple[Tensor, Tensor] | None = None
) -> Bound[tuple[Tensor, Tensor]]:
    """`(dgate, dup)` of `swiglu(gate, up)` for dy, the gradient of its result; all of one shape."""
    return _gradients(operators.swiglu_backward, gate, up, dy, out)


@op
def geglu_backward(
    gate: Tensor, up: Tensor, dy: Tensor, *, approximate: str = "none", out: tuple[Tensor, Tensor] | None = None
) -> Bound[tuple[Tensor, Tensor]]:
    """`(dgate, dup)` of `geglu(gate, up)` for dy, the gradient of its result; all of one shape."""
    options = _gelu_options("geglu_backward", approximate)
    return _gradients(operators.geglu_backward, gate, up, dy, out, options)


def _gradients(
    operator: Operator,
    gate: Tensor,
    up: Tensor,
    dy: Tensor,
    out: tuple[Tensor, Tensor] | None,
    options: Options | None = None,
) -> Bound[tuple[Tensor, Tensor]]:
    """Both gradients of a gated activation, by its backward operator."""
    given = Operands(operator.name)
    a = given.take("gate", gate)
    b, slope = (given.expect(n, x, a.shape, why="the shape of gate") for n, x in (("up", up), ("dy", dy)))
    first, second = out or (None, None)
    first, dgate = given.output(first, gate, a.shape, a.dtype, name="out[0]")
    second, dup = given.output(second, up, a.shape, b.dtype, name="out[1]")
    if 0 in a.shape:
        return Bound((), (first, second))
    buffers = {"gate": a, "up": b, "dy": slope, "dgate": dgate, "dup": dup}
    return Bound(_launches(operator, buffers, options=options), (first, second))


@op
def scale_add(a: Tensor, alpha: float, b: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`alpha * a + b` in one pass: a[...] and b[...] of one shape; `out` may be either of them."""
    return _elementwise(operators.scale_add, {"a": a, "b": b}, "c", out, {"alpha": alpha})


@op
def embedding(ids: Tensor, table: Tensor, *, out: Tensor | None = None) -> Bound[Tensor]:
    """`table[ids]`: ids[...] (i32 or i64), table[V, D] -> [..., D].

    Raises ArgumentError for an id outside [0, V) on the cpu; on a GPU, where nobody looks at ids, it names the nearest
    row.
    """
    given = Operands("embedding")
    rows, weights = given.take("ids", ids, INTEGERS), given.expect("table", table, ("V", "D"))
    out, y = given.output(out, table, (*rows.shape, weights.shape[1]), weights.dtype)
    check = functools.partial(in_range, "embedding", "ids", rows, 0, weights.shape[0], "the rows of table")
    if 0 in y.shape:
        return Bound((), out, check)
    name_some(given, "ids", rows, weights.shape[0], "the rows of table")
    parts = fold_rows({"ids": rows, "y": y}, len(rows.shape))
    return Bound([bind(operators.embedding, {**part, "table": weights}) for part in parts], out, check)


def _elementwise(
    operator: Operator,
    operands: dict[str, Tensor],
    result: str,
    out: Tensor | None,
    scalars: Scalars | None = None,
    options: Options | None = None,
) -> Bound[Tensor]:
    """`operator` over operands of one shape, whose names are those of its parameters."""
    given = Operands(operator.name)
    first, *others = operands
    buffers: dict[str, Buffer] = {first: given.take(first, operands[first])}
    shape = buffers[first].shape
    for name in others:
        buffers[name] = given.expect(name, operands[name], shape, why=f"the shape of {first}")
    out, y = given.output(out, operands[first], shape, buffers[first].dtype, in_place=tuple(operands))
    if 0 in shape:
        return Bound((), out)
    return Bound(_launches(operator, {**buffers, result: y}, scalars, options), out)


def _launches(
    operator: Operator, buffers: dict[str, Buffer], scalars: Scalars | None = None, options: Options | None = None
) -> list[Launch]:
    """`operator` over buffers of one shape, as few launches as their strides allow."""
    rank = len(next(iter(buffers.values())).shape)
    if not rank:
        buffers = {name: b.expand(0, 1) for name, b in buffers.items()}
    return [bind(operator, part, scalars, options) for part in fold_rows(buffers, max(rank - 1, 0))]
