"""Rotary position embedding, alone and with the write to the KV cache."""

from __future__ import annotations

import functools
from typing import Any

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import INTEGERS, Operands, in_range, name_some
from tilewright.runtime.buffer import Buffer


@op
def rope(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    positions: Tensor | None = None,
    inverse: bool = False,
    out: Tensor | None = None,
) -> Bound[Tensor]:
    """Heads turned by their position: x[B, S, H, D], cos[P, R], sin[P, R] -> [B, S, H, D].

    Token (b, s) uses row positions[b, s] of cos and sin; positions is [B, S] or [S] (i32 or i64), and without
    it token s uses row s. A position that has no row is refused on the cpu; on a GPU, where nobody looks at positions,
    it is the nearest that has one. With R < D only the first R elements of a head turn and the rest is copied. Column d
    of cos and sin belongs to element d of a head: `y[d] = x[d] cos[d] + pair(x)[d] sin[d]`, where the pairs
    are (d, d + R/2) (NeoX, Llama) or, `interleaved`, (2d, 2d + 1) (GPT-J). `out` may be x itself.

    `inverse` turns back by the same angles: the same program with the sine negated, which is also the gradient.
    Under torch's autograd the call is recorded, in place too; cos and sin have no gradient.
    """
    given = Operands("rope")
    heads = given.expect("x", x, ("B", "S", "H", "D"))
    b, s, _, d = heads.shape
    turned, tables = _tables(given, cos, sin, interleaved, d)
    rows = tables["cos"].shape[0]
    if positions is None and rows < s:
        given.refuse("cos", Buffer.of(cos), f"has {rows} rows for {s} positions of x; pass one row for each")
    where = _positions(given, positions, b, s)
    check = (
        functools.partial(in_range, "rope", "positions", where["positions"], 0, rows, "rows of cos") if where else None
    )
    out, y = given.output(out, x, heads.shape, heads.dtype, in_place=("x",))
    if 0 in y.shape:
        return Bound((), out, check)
    for name, buffer in where.items():
        name_some(given, name, buffer, rows, "the rows of cos")
    operands = {
        "x": _halves(heads.narrow(3, 0, turned), interleaved),
        "y": _halves(y.narrow(3, 0, turned), interleaved),
    }
    if turned < d and not y.same_place(heads):
        operands["rest"] = heads.narrow(3, turned, d - turned)
        operands["rest_y"] = y.narrow(3, turned, d - turned)
    return Bound((bind(operators.rope, {**operands, **tables, **where}, options={"inverse": inverse}),), out, check)


@op
def rope_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
    out: Tensor | None = None,
) -> Bound[Tensor]:
    """The step between the QKV projection and attention: returns the turned q, and fills the cache in place.

    q[B, S, Hq, D], k[B, S, Hkv, D] and v[B, S, Hkv, E] are views of the projection's output. q and k are
    RMS-normalised per head with q_norm[D] and k_norm[D] where given (Qwen3), turned as in `rope` (the whole
    head, R = D), and k and v go to k_cache[B, Hkv, T, D] and v_cache[B, Hkv, T, E] at positions[B, S]. Caches of
    f8e4m3 take them divided by k_scale[Hkv] and v_scale[Hkv] (f32), no larger than 448. Positions that do not exist are
    as in `rope`: refused on the cpu, the nearest on a GPU.
    `out`[B, S, Hq, D] may be q itself, or a transposed view of [B, Hq, S, D].
    """
    given = Operands("rope_cache")
    query = given.expect("q", q, ("B", "S", "Hq", "D"))
    b, s, _, d = query.shape
    keys = given.expect("k", k, (b, s, "Hkv", d), why="B, S and D are those of q")
    heads = keys.shape[2]
    values = given.expect("v", v, (b, s, heads, "E"), why="B, S and Hkv are those of k")
    where = given.expect("positions", positions, (b, s), INTEGERS, "B and S are those of q")
    shared, rows = _shared(given, cos, sin, q_norm, k_norm, interleaved, d)
    cached = given.cache("k_cache", k_cache, (b, heads, "T", d))
    cached_v = given.cache("v_cache", v_cache, (b, heads, cached.shape[2], values.shape[3]))
    shared |= given.scales(heads, cached, cached_v, k_scale, v_scale)
    out, y = given.output(out, q, query.shape, query.dtype, in_place=("q",))
    limit = min(rows, cached.shape[2])
    check = functools.partial(in_range, "rope_cache", "positions", where, 0, limit, "the rows of cos and the cache")
    if 0 in where.shape:
        return Bound((), out, check)
    name_some(given, "positions", where, limit, "the rows of cos and the cache")
    operands = {
        "q": _halves(query, interleaved), "q_out": _halves(y, interleaved), "k": _halves(keys, interleaved),
        "v": values, "k_cache": _halves(cached, interleaved), "v_cache": cached_v, "positions": where, **shared,
    }  # fmt: skip
    return Bound((bind(operators.rope_cache, operands, {"eps": eps}),), out, check)


@op
def paged_rope_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    slots: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    eps: float = 1e-6,
    interleaved: bool = False,
    out: Tensor | None = None,
) -> Bound[Tensor]:
    """As `rope_cache`, for a list of tokens and pages: q[T, Hq, D], k[T, Hkv, D], v[T, Hkv, E].

    Token n has position positions[n] and goes to place slots[n] % P of page slots[n] // P of
    k_pages[N, Hkv, P, D] and v_pages[N, Hkv, P, E]; no two tokens may share a slot. Positions and slots that do not
    exist are refused on the cpu; on a GPU a position is the nearest that exists, and so is the page of a slot.
    """
    given = Operands("paged_rope_cache")
    query = given.expect("q", q, ("T", "Hq", "D"))
    tokens, _, d = query.shape
    keys = given.expect("k", k, (tokens, "Hkv", d), why="T and D are those of q")
    heads = keys.shape[1]
    values = given.expect("v", v, (tokens, heads, "E"), why="T and Hkv are those of k")
    where = given.expect("positions", positions, (tokens,), INTEGERS, "T is that of q")
    places = given.expect("slots", slots, (tokens,), INTEGERS, "T is that of q")
    shared, rows = _shared(given, cos, sin, q_norm, k_norm, interleaved, d)
    pages = given.cache("k_pages", k_pages, ("N", heads, "P", d))
    pages_v = given.cache("v_pages", v_pages, (*pages.shape[:3], values.shape[2]))
    shared |= given.scales(heads, pages, pages_v, k_scale, v_scale)
    out, y = given.output(out, q, query.shape, query.dtype, in_place=("q",))

    def check() -> None:
        in_range("paged_rope_cache", "positions", where, 0, rows, "the rows of cos")
        in_range("paged_rope_cache", "slots", places, 0, pages.shape[0] * pages.shape[2], "the slots that exist")

    if not tokens:
        return Bound((), out, check)
    name_some(given, "positions", where, rows, "the rows of cos")
    name_some(given, "slots", places, pages.shape[0] * pages.shape[2], "the slots that exist")
    operands = {
        "q": _halves(query, interleaved), "q_out": _halves(y, interleaved), "k": _halves(keys, interleaved),
        "v": values, "k_pages": _halves(pages, interleaved), "v_pages": pages_v, "positions": where, "slots": places,
        **shared,
    }  # fmt: skip
    return Bound((bind(operators.paged_rope_cache, operands, {"eps": eps}),), out, check)


def _halves(x: Buffer, interleaved: bool) -> Buffer:
    """`[..., R]` seen as `[..., 2, R / 2]`, the first and the second elements of the pairs; no copy either way."""
    half = x.shape[-1] // 2
    return x.split(-1, (half, 2)).swap(-1, -2) if interleaved else x.split(-1, (2, half))


def _tables(given: Operands, cos: Any, sin: Any, interleaved: bool, head: int) -> tuple[int, dict[str, Buffer]]:
    """How many elements of a head turn, and cos and sin seen in halves."""
    c = given.expect("cos", cos, ("P", "R"))
    turned = c.shape[1]
    if turned % 2 or turned > head:
        given.refuse("cos", c, f"turns {turned} elements of heads of {head}; give an even number, at most {head}")
    table = given.expect("sin", sin, c.shape, why="the shape of cos")
    return turned, {"cos": _halves(c, interleaved), "sin": _halves(table, interleaved)}


def _positions(given: Operands, positions: Any, b: int, s: int) -> dict[str, Buffer]:
    """positions as [B, S] where given; [S] serves every sequence."""
    if positions is None:
        return {}
    where = given.take("positions", positions, INTEGERS, rank=1)
    if len(where.shape) == 1:
        where = where.expand(0, b)
    given.fit("positions", where, (b, s), "B and S are those of x")
    return {"positions": where}


def _shared(
    given: Operands, cos: Any, sin: Any, q_norm: Any, k_norm: Any, interleaved: bool, head: int
) -> tuple[dict[str, Buffer], int]:
    """What all tokens share (tables and norm weights, seen in halves), and the number of rows of the tables."""
    turned, tables = _tables(given, cos, sin, interleaved, head)
    if turned != head:
        raise ArgumentError(f"{given.name}: cos turns {turned} of {head} elements; it must turn the whole head here")
    norms = {
        **given.maybe("q_norm", q_norm, (head,), why="D is that of q"),
        **given.maybe("k_norm", k_norm, (head,), why="D is that of q"),
    }
    return {**tables, **{n: _halves(w, interleaved) for n, w in norms.items()}}, tables["cos"].shape[0]
