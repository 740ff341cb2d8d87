"""All layers of a Llama decoder for a token of each sequence, as a tile program; a chip has a share of heads and rows.

The new tokens' queries, keys and values go to `qn`, `kn` and `vn`, not to the cache: the cache is read only, so its
loads may run ahead. A head is two halves of E, which is how rotary positions pair its elements. All sequences (B) are
as long as each other, and share each tile of weights.
"""

from __future__ import annotations

from functools import cache

from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.simulate.decoder import Decoder

_TEXT = """
kernel decoder(
  x: bf16[B, C], n1: bf16[L, C], n2: bf16[L, C], cos: f32[E], sin: f32[E],
  wq1: bf16[L, H, G, E, C], wq2: bf16[L, H, G, E, C], wk1: bf16[L, H, E, C], wk2: bf16[L, H, E, C],
  wv: bf16[L, H, D, C], kc1: bf16[L, B, H, T, E], kc2: bf16[L, B, H, T, E], vc: bf16[L, B, H, T, D],
  wo: bf16[L, C, H, G, D], w1: bf16[L, F, C], w3: bf16[L, F, C], w2: bf16[L, C, F],
  qn1: bf16[L, B, H, G, E], qn2: bf16[L, B, H, G, E], kn1: bf16[L, B, H, E], kn2: bf16[L, B, H, E],
  vn: bf16[L, B, H, D], on: f32[L, B, H, G, D], eps: f32, scale: f32, y: bf16[B, C]
) {
  x0 = load x[B, C] : bf16[B, C]
  h = cast x0 : f32[B, C]
  for each l in L {
NORM1
    c = load cos[E] : f32[E]
    s = load sin[E] : f32[E]
ROTARYq
ROTARYk
    wvt = load wv[l, H, D, C] : bf16[H, D, C]
    v = dot a wvt over C : f32[B, H, D]
    store vn[l, B, H, D] = v
    for each r in B, each i in H {
      q1 = load qn1[l, r, i, G, E] : bf16[G, E]
      q2 = load qn2[l, r, i, G, E] : bf16[G, E]
      k1 = load kn1[l, r, i, E] : bf16[E]
      k2 = load kn2[l, r, i, E] : bf16[E]
      vi = load vn[l, r, i, D] : bf16[D]
      keys1 = load kc1[l, r, i, T, E] : bf16[T, E]
      keys2 = load kc2[l, r, i, T, E] : bf16[T, E]
      values = load vc[l, r, i, T, D] : bf16[T, D]
      qk1 = dot q1 keys1 over E : f32[G, T]
      qk2 = dot q2 keys2 over E : f32[G, T]
      own1 = dot q1 k1 over E : f32[G]
      own2 = dot q2 k2 over E : f32[G]
      qk = add qk1 qk2 : f32[G, T]
      own = add own1 own2 : f32[G]
      factor = full scale : f32[]
      old = mul qk factor : f32[G, T]
      new = mul own factor : f32[G]
      oldtop = reduce max old over T : f32[G]
      top = max oldtop new : f32[G]
      oldlow = sub old top : f32[G, T]
      newlow = sub new top : f32[G]
      p = exp oldlow : f32[G, T]
      pn = exp newlow : f32[G]
      sum = reduce sum p over T : f32[G]
      total = add sum pn : f32[G]
      pb = cast p : bf16[G, T]
      pv = dot pb values over T : f32[G, D]
      vf = cast vi : f32[D]
      pnv = mul vf pn : f32[G, D]
      both = add pv pnv : f32[G, D]
      o = div both total : f32[G, D]
      store on[l, r, i, G, D] = o
    }
    ol = load on[l, B, H, G, D] : f32[B, H, G, D]
    wot = load wo[l, C, H, G, D] : bf16[C, H, G, D]
    wof = cast wot : f32[C, H, G, D]
    ow = mul wof ol : f32[B, C, H, G, D]
    owg = reduce sum ow over D : f32[B, C, H, G]
    owh = reduce sum owg over G : f32[B, C, H]
    attn = reduce sum owh over H : f32[B, C]
    mid = add h attn : f32[B, C]
NORM2
    t1 = load w1[l, F, C] : bf16[F, C]
    t3 = load w3[l, F, C] : bf16[F, C]
    gate = dot m t1 over C : f32[B, F]
    up = dot m t3 over C : f32[B, F]
    sig = sigmoid gate : f32[B, F]
    act = mul gate sig : f32[B, F]
    u = mul act up : f32[B, F]
    ub = cast u : bf16[B, F]
    t2 = load w2[l, C, F] : bf16[C, F]
    down = dot ub t2 over F : f32[B, C]
    h1 = add mid down : f32[B, C]
    h := h1
  }
  store y[B, C] = h
}
"""

_ROTARY = """
    w{n}1t = load w{n}1[l, {axes}, C] : bf16[{axes}, C]
    w{n}2t = load w{n}2[l, {axes}, C] : bf16[{axes}, C]
    {n}1 = dot a w{n}1t over C : f32[B, {axes}]
    {n}2 = dot a w{n}2t over C : f32[B, {axes}]
    {n}1c = mul {n}1 c : f32[B, {axes}]
    {n}2s = mul {n}2 s : f32[B, {axes}]
    {n}r1 = sub {n}1c {n}2s : f32[B, {axes}]
    {n}2c = mul {n}2 c : f32[B, {axes}]
    {n}1s = mul {n}1 s : f32[B, {axes}]
    {n}r2 = add {n}2c {n}1s : f32[B, {axes}]
    store {n}n1[l, B, {axes}] = {n}r1
    store {n}n2[l, B, {axes}] = {n}r2
"""

_NORM = """
    sq{n} = mul {x} {x} : f32[B, C]
    ss{n} = reduce sum sq{n} over C : f32[B]
    size{n} = full C : i64[]
    count{n} = cast size{n} : f32[]
    mean{n} = div ss{n} count{n} : f32[B]
    e{n} = full eps : f32[]
    safe{n} = add mean{n} e{n} : f32[B]
    r{n} = rsqrt safe{n} : f32[B]
    xr{n} = mul {x} r{n} : f32[B, C]
    g{n} = load n{n}[l, C] : bf16[C]
    gf{n} = cast g{n} : f32[C]
    {y}f = mul xr{n} gf{n} : f32[B, C]
    {y} = cast {y}f : bf16[B, C]
"""

REDUCED = ("attn", "down")
"""Values that are sums over all chips: where the two all-reduces of a layer stand."""


@cache
def decoder_program() -> ir.Kernel:
    """The program of all layers, without embedding and head."""
    text = _TEXT.replace("NORM1", _NORM.format(n=1, x="h", y="a")).replace("NORM2", _NORM.format(n=2, x="mid", y="m"))
    for letter, axes in (("q", "H, G, E"), ("k", "H, E")):
        rotary = _ROTARY.format(n=letter, axes=axes)
        text = text.replace(
            f"ROTARY{letter}", rotary.replace(f"{letter}1 ", f"{letter}h1 ").replace(f"{letter}2 ", f"{letter}h2 ")
        )
    return parse(text)


def sizes(model: Decoder, chips: int, context: int, layers: int | None = None, batch: int = 1) -> dict[str, int]:
    """Sizes of one chip's share of `batch` sequences: heads first, then the query heads that share one; MLP rows."""
    share = model.share(chips)
    return {
        "L": model.layers if layers is None else layers, "B": batch, "C": model.hidden, "F": share.intermediate,
        "H": share.kv_heads, "G": share.heads // share.kv_heads, "D": model.head_dim, "E": model.head_dim // 2,
        "T": context,
    }  # fmt: skip
