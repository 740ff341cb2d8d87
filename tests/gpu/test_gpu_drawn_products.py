"""Products as users call them, of any size, layout, leading dimension, type and epilogue, by default designs.

Hypothesis draws the calls. Operands lie inside larger tensors, so that rows start anywhere; the results are poisoned,
and what lies around them has to stay as it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

import numpy as np
from gpu_programs import to_gpu, to_numpy
from product_kinds import KINDS

from tilewright import ops
from tilewright.language.dtypes import dtype
from tilewright.operators import matmul
from tilewright.runtime import tolerance
from tilewright.runtime.compiled import bind

TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
FUNCTIONS = {
    None: lambda x: x, "relu": lambda x: x.clamp(min=0), "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu, "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}  # fmt: skip
STEEPEST = 1.2  # of an activation, by which it may enlarge an error
sizes = st.one_of(st.integers(1, 40), st.sampled_from([64, 127, 128, 200, 256, 333, 512, 1000]))
gaps = st.sampled_from([0, 0, 1, 3, 8])  # elements between two rows, beside those that the rows have
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)


def placed(kind, rows, columns, gap, across, batch=()):
    """A matrix [rows, columns], stored by rows or by columns, each `gap` elements longer than it is."""
    shape = (*batch, columns, rows + gap) if across else (*batch, rows, columns + gap)
    x = torch.randn(shape, device="cuda").to(TYPES[kind])
    return x[..., :rows].mT if across else x[..., :columns]


def check(y, exact, magnitude, terms, kind):
    limit = tolerance.bound(dtype(kind), terms, magnitude.cpu().numpy(), value=exact.cpu().numpy())
    error = (y.double() - exact).abs().cpu().numpy()
    assert (error <= limit).all(), f"{(error / limit).max()} of the bound"


@EXAMPLES
@given(m=sizes, n=sizes, k=sizes, kind=st.sampled_from(list(TYPES)), across=st.tuples(st.booleans(), st.booleans()),
       gap=st.tuples(gaps, gaps, gaps), seed=st.integers(0, 99))  # fmt: skip
def test_any_layout_and_leading_dimension(m, n, k, kind, across, gap, seed):
    torch.manual_seed(seed)
    a, b = placed(kind, m, k, gap[0], across[0]), placed(kind, k, n, gap[1], across[1])
    room = torch.full((m, n + gap[2]), float("nan"), device="cuda", dtype=TYPES[kind])
    room[:, n:] = -7.0
    ops.matmul(a, b, out=room[:, :n])
    assert (room[:, n:] == -7.0).all()
    check(room[:, :n], a.double() @ b.double(), a.double().abs() @ b.double().abs(), k, kind)


@EXAMPLES
@given(
    m=sizes, n=sizes, k=sizes, kind=st.sampled_from(list(TYPES)), function=st.sampled_from(list(FUNCTIONS)),
    more=st.tuples(st.booleans(), st.booleans()), gap=st.tuples(gaps, gaps, gaps), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_epilogue(m, n, k, kind, function, more, gap, seed):
    torch.manual_seed(seed)
    x, w = placed(kind, m, k, gap[0], False), placed(kind, n, k, gap[1], False)
    bias = torch.randn(n, device="cuda").to(TYPES[kind]) if more[0] else None
    residual = placed(kind, m, n, gap[2], False) if more[1] else None
    y = torch.full((m, n), float("nan"), device="cuda", dtype=TYPES[kind])
    ops.linear(x, w, bias, residual=residual, activation=function, out=y)
    exact, magnitude = x.double() @ w.double().t(), x.double().abs() @ w.double().abs().t()
    if bias is not None:
        exact, magnitude = exact + bias.double(), magnitude + bias.double().abs()
    exact = FUNCTIONS[function](exact)
    magnitude = magnitude if function is None else magnitude * STEEPEST
    if residual is not None:
        exact, magnitude = exact + residual.double(), magnitude + residual.double().abs()
    check(y, exact, magnitude, k, kind)


@EXAMPLES
@given(b=st.integers(1, 5), m=sizes, n=sizes, k=sizes, kind=st.sampled_from(list(TYPES)),
       across=st.tuples(st.booleans(), st.booleans()), gap=st.tuples(gaps, gaps), seed=st.integers(0, 99))  # fmt: skip
def test_any_batch(b, m, n, k, kind, across, gap, seed):
    torch.manual_seed(seed)
    left, right = placed(kind, m, k, gap[0], across[0], (b,)), placed(kind, k, n, gap[1], across[1], (b,))
    y = torch.full((b, m, n), float("nan"), device="cuda", dtype=TYPES[kind])
    ops.matmul(left, right, out=y)
    check(y, left.double() @ right.double(), left.double().abs() @ right.double().abs(), k, kind)


def drawn(random, kind, rows, columns, gap, across):
    """(a matrix on the GPU that lies as `placed` ones do, its values)."""
    shape = (columns, rows + gap) if across else (rows, columns + gap)
    whole = random.integers(-128, 128, shape) if kind == np.int8 else random.standard_normal(shape, dtype=np.float32)
    x, there = whole.astype(kind), to_gpu(whole.astype(kind))
    return (there[:, :rows].mT, x[:, :rows].T) if across else (there[:, :columns], x[:, :columns])


@EXAMPLES
@given(m=sizes, n=sizes, k=sizes, kind=st.sampled_from(list(KINDS)), across=st.tuples(st.booleans(), st.booleans()),
       gap=st.tuples(gaps, gaps, gaps), scaled=st.tuples(st.booleans(), st.booleans()),
       seed=st.integers(0, 99))  # fmt: skip
def test_any_type_with_a_scale_of_each_row_and_column(m, n, k, kind, across, gap, scaled, seed):
    random, (element, result, precision) = np.random.default_rng(seed), KINDS[kind]
    a, of_a = drawn(random, element, m, k, gap[0], across[0])
    b, of_b = drawn(random, element, n, k, gap[1], across[1])
    scales = {}
    if result != np.int32:
        scales |= {"row_scale": random.uniform(0.001, 0.1, m).astype(np.float32)} if scaled[0] else {}
        scales |= {"column_scale": random.uniform(-0.01, 0.01, n).astype(np.float32)} if scaled[1] else {}
    if kind in ("i8", "f8"):  # else sums would be larger than what the result can hold
        scales.setdefault("row_scale", np.full(m, 2.0**-9, np.float32))
    room = to_gpu(np.full((m, n + gap[2]), -1 if result == np.int32 else np.nan, result))
    room[:, n:] = -7
    options = {"precision": precision} if precision else {}
    bind(matmul, a=a, b=b, c=room[:, :n], **{s: to_gpu(x) for s, x in scales.items()}, **options)()
    torch.cuda.synchronize()
    assert (room[:, n:] == -7).all()
    exact = matmul.reference(of_a, of_b, **scales, **options)["c"]
    tolerance.check("c", to_numpy(room[:, :n].contiguous(), result), exact)
