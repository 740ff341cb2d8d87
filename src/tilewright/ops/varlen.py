"""Attention of sequences that lie packed, one after the other: cumulative lengths say where each begins."""

from __future__ import annotations

import functools
from typing import Any

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import i32
from tilewright.ops.attention import group_of, options_of, results_of, scale_of
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import INTEGERS, Operands
from tilewright.runtime.buffer import Buffer

_FEW = 4
"""Queries to a sequence, in the mean, up to which each is worth its own pass over just its keys."""


@op
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
) -> Bound[Any]:
    """`softmax(scale q k^T) v` of B packed sequences: q[N, Hq, D], k[T, Hkv, D], v[T, Hkv, E] -> [N, Hq, E].

    Sequence b has the queries from cu_seqlens_q[b] to cu_seqlens_q[b + 1] - 1, and the keys from cu_seqlens_k[b] on
    likewise (i32 or i64, [B + 1]); without cu_seqlens_k it has keys where it has queries, and T is N. The last query
    of a sequence sits at its last key: `causal` hides keys after a query's position, `window` those more than
    window - 1 before it. Queries that see no key, and those past the last sequence, give zeros. Hq is a multiple of
    Hkv: consecutive query heads share a head of keys. `scale` is 1 / sqrt(D) unless given; q, k and v have one dtype
    (f32, bf16 or f16), sums are f32.

    With `return_lse` the result is (o, lse), as `out` then is: lse[Hq, N] (f32) is the natural logarithm of the sum of
    exp(scale q k) over the keys that a query sees, -inf where it sees none.

    Cumulative lengths that do not begin at 0, fall, or pass the end are refused where they lie on the cpu; on a GPU
    a range ends with the keys. Sequences beside one another may be read by one tile, and masked: values have to be
    finite, and where a sequence lies in the batch may change the last bits of its result.
    """
    given = Operands("varlen_attention")
    query = given.expect("q", q, ("N", "Hq", "D"))
    rows, query_heads, d = query.shape
    keys = given.expect("k", k, ("T", "Hkv", d), why="D is that of q")
    total, heads, _ = keys.shape
    values = given.expect("v", v, (total, heads, "E"), why="T and Hkv are those of k")
    starts = _starts(given, query, keys, cu_seqlens_q, cu_seqlens_k)
    given.same_dtype("k", keys, "q", query)
    given.same_dtype("v", values, "q", query)
    group = group_of(given, query, query_heads, heads)
    check = functools.partial(_sequences_fit, *starts, rows, total, cu_seqlens_k is not None)
    result, o, lse = results_of(given, q, query, (rows, query_heads), (query_heads, rows), values, out, return_lse)
    chosen = options_of(given.name, causal, window)
    if 0 in o.shape:
        return Bound((), result, check)
    operands = {
        "q": query.split(1, group).permute((1, 2, 0, 3)),
        "k": keys.permute((1, 0, 2)),
        "v": values.permute((1, 0, 2)),
        "o": o.split(1, group).permute((1, 2, 0, 3)),
    } | ({} if lse is None else {"lse": lse.split(0, group)})
    ranges = {name: given.made(q, (rows,), i32) for name in ("first", "past")}
    few = {"single": rows <= _FEW * (starts[0].shape[0] - 1)}
    launches = (
        bind(operators.key_ranges, {**_sides(*starts), **ranges}, options=chosen),
        bind(operators.packed_attention, {**operands, **ranges}, scale_of(scale, d), few),
    )
    return Bound(launches, result, check)


def _starts(
    given: Operands, query: Buffer, keys: Buffer, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor | None
) -> tuple[Buffer, Buffer]:
    """Where sequences begin among the queries, and among the keys: there too, unless that is given."""
    starts_q = given.expect("cu_seqlens_q", cu_seqlens_q, ("B + 1",), INTEGERS)
    if cu_seqlens_k is None and keys.shape[0] != query.shape[0]:
        given.refuse("k", keys, f"has {keys.shape[0]} tokens and q {query.shape[0]}; give cu_seqlens_k")
    if not starts_q.shape[0]:
        given.refuse("cu_seqlens_q", starts_q, "says nothing; it holds 0 and where each sequence ends")
    if cu_seqlens_k is None:
        return starts_q, starts_q
    return starts_q, given.expect("cu_seqlens_k", cu_seqlens_k, starts_q.shape, INTEGERS, "as cu_seqlens_q")


def _sides(starts_q: Buffer, starts_k: Buffer) -> dict[str, Buffer]:
    """Where each sequence begins and ends, as `key_ranges` takes it."""
    count = starts_q.shape[0] - 1
    return {
        "q_from": starts_q.narrow(0, 0, count), "q_to": starts_q.narrow(0, 1, count),
        "k_from": starts_k.narrow(0, 0, count), "k_to": starts_k.narrow(0, 1, count),
    }  # fmt: skip


def _sequences_fit(starts_q: Buffer, starts_k: Buffer, rows: int, keys: int, both: bool) -> None:
    """ArgumentError unless cumulative lengths begin at 0, never fall, and end within the tokens that there are."""
    sides = (("cu_seqlens_q", starts_q, rows, "q"), ("cu_seqlens_k", starts_k, keys, "k"))
    for name, starts, most, of in sides[: 2 if both else 1]:
        if starts.device != "cpu":
            continue
        found = starts.numpy()
        if found[0] != 0 or found[-1] > most or (found[1:] < found[:-1]).any():
            raise ArgumentError(
                f"varlen_attention: {name} holds {found.tolist()[:8]}; it begins at 0, never falls, and ends at {most} "
                f"or before, the tokens of {of}: give torch.cumsum of the lengths, with 0 before it"
            )


__all__ = ["varlen_attention"]
