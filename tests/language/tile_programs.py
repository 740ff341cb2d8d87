"""Tile programs that the tests of the language share, and a strategy for random ones."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from tilewright.language import (
    Scalar,
    Tensor,
    coord,
    dot,
    each,
    exp,
    f32,
    full,
    i64,
    kernel,
    maximum,
    minimum,
    parallel,
    rsqrt,
    sigmoid,
    size,
    tanh,
    tiles,
    where,
    zeros,
)


@kernel
def matmul(
    a: Tensor["M", "K"],
    b: Tensor["N", "K"],
    c: Tensor["M", "N"],
    bias: Tensor["N"] = None,
    alpha: Scalar["f32"] = None,
    *,
    activation=None,
):
    """c = activation(alpha a b^T + bias)."""
    for i, j in parallel("M", "N"):
        acc = zeros(i, j, dtype=f32)
        for k in tiles("K"):
            acc += dot(a[i, k], b[j, k].T)
        value = acc if alpha is None else alpha * acc
        if bias is not None:
            value = value + bias[j]
        c[i, j] = value * sigmoid(value) if activation == "silu" else value


@kernel
def rmsnorm(x: Tensor["M", "D"], weight: Tensor["D"], y: Tensor["M", "D"], eps: Scalar["f32"]):
    for i in parallel("M"):
        squares = zeros(i)
        for d in tiles("D"):
            v = x[i, d].to(f32)
            squares += (v * v).sum(d)
        scale = rsqrt(squares / size("D").to(f32) + eps)
        for d in tiles("D"):
            y[i, d] = x[i, d] * scale * weight[d]


@kernel
def attention(
    q: Tensor["B", "Hq", "S", "D"],
    k: Tensor["B", "H", "T", "D"],
    v: Tensor["B", "H", "T", "D"],
    o: Tensor["B", "Hq", "S", "D"],
    lengths: Tensor["B"].of("i32"),
    scale: Scalar["f32"],
):
    """Causal, grouped heads, ragged lengths; the last query is the last key."""
    for b, h, s in parallel(each("B"), each("Hq"), "S"):
        group = h // (size("Hq") // size("H"))
        top, total, acc = full(s, value=-1e30), zeros(s), zeros(s, "D")
        length = lengths[b].to(i64)
        last = coord(s) + (length - size("S"))
        for t in tiles("T", stop=minimum(length, last.max(s) + 1)):
            scores = where(coord(t) <= last, dot(q[b, h, s, :], k[b, group, t, :].T) * scale, -math.inf)
            new = maximum(top, scores.max(t))
            p, decay = exp(scores - new), exp(top - new)
            total.update(total * decay + p.sum(t))
            acc.update(acc * decay + dot(p.to(v.dtype), v[b, group, t, :]))
            top.update(new)
        o[b, h, s, :] = acc / total


@kernel
def paged_gather(pages: Tensor["N", "P", "D"], table: Tensor["L"].of("i32"), y: Tensor["T", "D"]):
    """y[t] = pages[table[t // P], t % P]."""
    for t in parallel("T"):
        page = table[coord(t) // size("P")]
        y[t, :] = pages[page, coord(t) % size("P"), :]


@kernel
def scatter(x: Tensor["M", "D"], slots: Tensor["M"].of("i64"), y: Tensor["R", "D"]):
    """y[slots[m]] = x[m]."""
    for m, d in parallel("M", "D"):
        y[slots[m], d] = x[m, d]


@kernel
def transpose(x: Tensor["M", "N"], y: Tensor["N", "M"]):
    for i, j in parallel("M", "N"):
        y[j, i] = x[i, j]


# Steps of a random program: each maps an f32 tile over (i, j), its operands and its position to such a tile.
_STEPS = (
    lambda t, x, v, i, j: t + x[i, j],
    lambda t, x, v, i, j: v[j] * t,
    lambda t, x, v, i, j: tanh(t) - 0.5,
    lambda t, x, v, i, j: maximum(t, -x[i, j]),
    lambda t, x, v, i, j: where(coord(i) < coord(j), t, v[j]),
    lambda t, x, v, i, j: t + (coord(j) % 3).to(f32),
    lambda t, x, v, i, j: sigmoid(t) * abs(t),
    lambda t, x, v, i, j: t / (1.0 + x[i, j] * x[i, j]),
    lambda t, x, v, i, j: where((t > 0.0) & ~(v[j] > t), minimum(t, 2), t.T),
)


@kernel
def _random(
    a: Tensor["M", "K"], b: Tensor["N", "K"], x: Tensor["M", "N"], v: Tensor["N"], y: Tensor["M", "N"],
    row: Tensor["M"], *, steps=(), how="dot", carried="sum",
):  # fmt: skip
    for i, j in parallel("M", "N"):
        acc = zeros(i, j)
        for k in tiles("K"):
            if how == "dot":
                acc += dot(a[i, k], b[j, k].T)
            elif how == "sum":
                acc += (a[i, k] * b[j, k]).sum(k)
            else:
                acc.update(maximum(acc, (a[i, k] + b[j, k]).max(k)))
        for step in steps:
            acc = _STEPS[step](acc, x, v, i, j)
        y[i, j] = acc
    for i in parallel("M"):
        top = full(i, value=-math.inf)
        for j in tiles("N", start=1):
            t = x[i, j] * v[j]
            if carried == "sum":
                top.update(where(top > -1e30, top, 0.0) + t.sum(j))
            else:
                top.update(maximum(top, t.max(j)))
        row[i] = top


@st.composite
def random_programs(draw, dtype="f32"):
    """A traced program over M, N, K that reduces over K and then applies random elementwise steps."""
    steps = tuple(draw(st.lists(st.integers(0, len(_STEPS) - 1), max_size=6)))
    how, carried = draw(st.sampled_from(("dot", "sum", "max"))), draw(st.sampled_from(("sum", "max")))
    return _random.trace(dtype, options={"steps": steps, "how": how, "carried": carried})


EXAMPLES = {
    "matmul": matmul.trace("bf16"),
    "matmul_epilogue": matmul.trace("f32", present={"bias", "alpha"}, options={"activation": "silu"}),
    "rmsnorm": rmsnorm.trace("bf16"),
    "attention": attention.trace("f32"),
    "paged_gather": paged_gather.trace("f16"),
    "scatter": scatter.trace("f32"),
    "transpose": transpose.trace("f8e4m3"),
}

# A packed matmul as a machine runs it: split axes, buffers addressed by axes of outer loops, an accumulator
# that the inner loop over k carries in a buffer, conditions, roles and a barrier.
SCHEDULED = """
kernel packed(a: f32[M, K], b: f32[N, K], c: f32[M, N]) @machine=x86 @threads=2 {
  for j0 in N step 12 parallel @bind=thread {
    for k0 in K step 8 {
      alloc bp: f32[j0, k0] @layout=panel @place=panel
      role producer @warps=1 {
        copy bp[j0, k0] <- b[j0, k0] @engine=plain
        sync filled arrive
      }
      sync filled wait
      for i0 in M step 5 {
        alloc partial: f32[i0, j0] @place=register
        for i1 in i0 step 2, j1 in j0 step 4 {
          acc = full 0.0 : f32[i1, j1]
          for each k1 in k0 @unroll=4 {
            x = load a[i1, k1] : f32[i1]
            w = load bp[j1, k1] : f32[j1]
            xw = mul x w : f32[i1, j1] @lanes=j1
            next = add acc xw : f32[i1, j1]
            acc := next
          }
          store partial[i1, j1] = acc
        }
        when first(k0) {
          p = load partial[i0, j0] : f32[i0, j0]
          store c[i0, j0] = p
        }
        when not_first(k0) {
          q = load partial[i0, j0] : f32[i0, j0]
          before = load c[i0, j0] : f32[i0, j0]
          sum = add before q : f32[i0, j0]
          store c[i0, j0] = sum @nontemporal=true
        }
      }
    }
  }
}
"""
