"""Attention over contiguous and over paged keys and values."""

from __future__ import annotations

import functools
import math
from numbers import Integral
from typing import Any

from tilewright import operators
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import f8e4m3, f32
from tilewright.operators.attention import FAR
from tilewright.ops.backend import bind
from tilewright.ops.op import Bound, Tensor, op
from tilewright.ops.operands import CACHED, INTEGERS, Operands, in_range, name_some
from tilewright.runtime.buffer import Buffer


@op
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    scale: float | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    return_lse: bool = False,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
) -> Bound[Any]:
    """`softmax(scale q k^T) v`: q[B, Hq, S, D], k[B, Hkv, T, D], v[B, Hkv, T, E] -> [B, Hq, S, E].

    Hq is a multiple of Hkv: consecutive query heads share a head of keys (grouped-query attention).
    lengths[B] (i32 or i64, default T): how many keys of each sequence exist; later ones are never read. Query s
    sits at position length - S + s, so the last query is at the last key. `causal` hides keys after that
    position, `window` those more than window - 1 before it. A query that sees no key gives zeros. `scale` is
    1 / sqrt(D) unless given. q, k and v have one dtype (f32, bf16 or f16), sums are f32; or k and v are f8e4m3
    (torch.float8_e4m3fn) and stand for k_scale[Hkv] and v_scale[Hkv] (f32) times what they hold.


    With `return_lse` the result is (o, lse), as `out` then is: lse[B, Hq, S] (f32) is the natural logarithm of the
    sum of exp(scale q k) over the keys that a query sees, -inf where it sees none. Attention over several ranges
    of keys is joined by it.
    """
    given = Operands("attention")
    query = given.expect("q", q, ("B", "Hq", "S", "D"))
    keys = given.expect("k", k, ("B", "Hkv", "T", "D"), CACHED)
    (b, _, _, d), (_, heads, t, _) = query.shape, keys.shape
    given.fit("k", keys, (b, "Hkv", "T", d), "B and D are those of q")
    values = given.expect("v", v, (b, heads, t, "E"), CACHED, "B, Hkv and T are those of k")
    scales = given.scales(heads, keys, values, k_scale, v_scale)
    ragged = given.maybe("lengths", lengths, (b,), INTEGERS, "B is that of q")
    check = functools.partial(_lengths_fit, ragged["lengths"], t) if ragged else None
    result, bound = _results(given, q, query, keys, values, out, return_lse)
    if 0 in bound["o"].shape:
        return Bound((), result, check)
    operands = {**bound, "k": keys, "v": values, **ragged, **scales}
    launch = bind(operators.attention, operands, scale_of(scale, d), options_of("attention", causal, window))
    return Bound((launch,), result, check)


def _outs(op: str, out: Tensor | tuple[Tensor, Tensor] | None, both: bool) -> tuple[Tensor | None, Tensor | None]:
    """Where the result and the logarithms of sums go."""
    if both and out is not None and not (isinstance(out, (tuple, list)) and len(out) == 2):
        raise ArgumentError(f"{op}: with return_lse=True out is a pair; give out=(o, lse), or leave it out")
    if not both:
        return out, None
    return (None, None) if out is None else (out[0], out[1])


@op
def paged_attention(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    return_lse: bool = False,
    out: Tensor | tuple[Tensor, Tensor] | None = None,
) -> Bound[Any]:
    """As `attention`, with keys and values in pages: k_pages[N, Hkv, P, D], v_pages[N, Hkv, P, E].

    Key t of sequence b is at place t % P of page page_table[b, t // P]; page_table[B, L] and lengths[B] are i32
    or i64. Entries of the table past the last key of a sequence are never read. Lengths and pages that do not exist
    are refused where they lie on the cpu; on a GPU a length ends with the table, and a page is one of those that
    exist. Pages laid out as
    [N, P, Hkv, D] are passed as a transposed view.
    """
    given = Operands("paged_attention")
    query = given.expect("q", q, ("B", "Hq", "S", "D"))
    keys = given.expect("k_pages", k_pages, ("N", "Hkv", "P", query.shape[3]), CACHED, "D is that of q")
    values = given.expect("v_pages", v_pages, (*keys.shape[:3], "E"), CACHED, "N, Hkv and P are those of k_pages")
    scales = given.scales(keys.shape[1], keys, values, k_scale, v_scale)
    batch = query.shape[0]
    table = given.expect("page_table", page_table, (batch, "L"), INTEGERS, "B is that of q")
    ragged = given.expect("lengths", lengths, (batch,), INTEGERS, "B is that of q")
    check = functools.partial(_pages_exist, ragged, table, keys.shape[0], keys.shape[2])
    result, bound = _results(given, q, query, keys, values, out, return_lse, "k_pages", "v_pages")
    if 0 in bound["o"].shape:
        return Bound((), result, check)
    name_some(given, "page_table", table, keys.shape[0], "the pages")
    operands = {**bound, "k_pages": keys, "v_pages": values, "page_table": table, "lengths": ragged, **scales}
    options = options_of("paged_attention", causal, window)
    launch = bind(operators.paged_attention, operands, scale_of(scale, query.shape[3]), options)
    return Bound((launch,), result, check)


def _results(
    given: Operands, q: Tensor, query: Buffer, keys: Buffer, values: Buffer,
    out: Tensor | tuple[Tensor, Tensor] | None, return_lse: bool, k_name: str = "k", v_name: str = "v",
) -> tuple[Any, dict[str, Buffer]]:  # fmt: skip
    """The result, or that and the logarithms of sums; and q, o and lse as the program takes them."""
    if keys.dtype != f8e4m3:
        given.same_dtype(k_name, keys, "q", query)
        given.same_dtype(v_name, values, "q", query)
    rows = query.shape[:3]
    group = group_of(given, query, rows[1], keys.shape[1], k_name)
    result, o, lse = results_of(given, q, query, rows, rows, values, out, return_lse, v_name)
    bound = {"q": query.split(1, group), "o": o.split(1, group)}
    return result, bound if lse is None else bound | {"lse": lse.split(1, group)}


def group_of(given: Operands, query: Buffer, query_heads: int, heads: int, k_name: str = "k") -> tuple[int, int]:
    """The heads of q as heads of keys and those that share one; ArgumentError where they do not divide."""
    if (query_heads % heads if heads else query_heads) != 0:
        given.refuse("q", query, f"has {query_heads} heads, not a multiple of the {heads} heads of {k_name}")
    return heads, query_heads // heads if heads else 1


def results_of(
    given: Operands, q: Tensor, query: Buffer, rows: tuple[int, ...], sums_shape: tuple[int, ...], values: Buffer,
    out: Tensor | tuple[Tensor, Tensor] | None, return_lse: bool, v_name: str = "v",
) -> tuple[Any, Buffer, Buffer | None]:  # fmt: skip
    """The result, of as many columns as values have, or (o, lse); then o, and lse or None, as buffers.

    `rows` and `sums_shape` are the leading dimensions of o, and those of lse.
    """
    first, sums = _outs(given.name, out, return_lse)
    shape = (*rows, values.shape[-1])
    first, o = given.output(first, q, shape, query.dtype, name="out[0]" if return_lse else "out")
    if not return_lse:
        return first, o, None
    sums, lse = given.output(sums, q, sums_shape, f32, name="out[1]", dtypes=(f32,))
    if not values.shape[-1]:
        given.refuse(v_name, values, "has no columns, which return_lse=True needs; leave it out")
    return (first, sums), o, lse


def options_of(op: str, causal: bool, window: int | None) -> dict[str, object]:
    """The options of attention that say which keys a query sees; ArgumentError for a window without any."""
    if window is not None and not _is_count(window):
        raise ArgumentError(f"{op}: window={window!r} is no number of keys; give a whole number, or None for no window")
    if window is not None and window < 1:
        raise ArgumentError(f"{op}: window={window} sees no key at all; give 1 or more, or None for no window")
    return {"causal": bool(causal), "window": None if window is None else min(int(window), FAR)}


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def scale_of(scale: float | None, head_size: int) -> dict[str, float]:
    """The scale of scores that was given, or the usual one."""
    return {"scale": 1 / math.sqrt(max(head_size, 1)) if scale is None else scale}


def _lengths_fit(lengths: Buffer, keys: int) -> None:
    in_range("attention", "lengths", lengths, 0, keys + 1, f"k has {keys} positions")


def _pages_exist(lengths: Buffer, table: Buffer, pages: int, page_size: int) -> None:
    """ArgumentError unless each sequence fits its row of the table and the entries it uses name pages."""
    in_range("paged_attention", "lengths", lengths, 0, table.shape[1] * page_size + 1, "the room in page_table")
    if table.device != "cpu":
        return
    for b, length in enumerate(lengths.numpy()):
        used = table.select(0, b).narrow(0, 0, -(-int(length) // page_size) if page_size else 0)
        in_range("paged_attention", f"page_table[{b}]", used, 0, pages, "the pages that exist")
