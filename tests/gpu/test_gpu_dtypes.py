"""Products of other types than 16-bit floats: f32 as tf32, whole numbers and floats of 8 bits, with scales."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

import ml_dtypes
from gpu_programs import facts_of, run_call, to_gpu, to_numpy
from operator_cases import Call

from tilewright.design.default import default_design
from tilewright.design.gpu.mma import staged_product
from tilewright.design.gpu.product import product
from tilewright.design.legality import legal
from tilewright.operators import matmul
from tilewright.runtime import tolerance

SIZES = ((512, 768, 1024), (130, 208, 384), (64, 4096, 4096), (2048, 1024, 2048))
KINDS = {  # of the operands, of the result, whether each row and each column has a scale
    "tf32": (np.float32, np.float32, False),
    "i8": (np.int8, np.int32, False),
    "i8, scaled": (np.int8, ml_dtypes.bfloat16, True),
    "f8e4m3, scaled": (ml_dtypes.float8_e4m3fn, np.float16, True),
    "bf16, scaled": (ml_dtypes.bfloat16, ml_dtypes.bfloat16, True),
}


def drawn(kind, sizes, seed):
    """A call whose operands have large and small values, and signs that cancel."""
    random, (m, n, k) = np.random.default_rng(seed), sizes
    element, result, scaled = KINDS[kind]

    def values(*shape):
        if element == np.int8:
            return random.integers(-128, 128, shape).astype(np.int8)
        return random.standard_normal(shape, dtype=np.float32).astype(element)

    inputs = {"a": values(m, k), "b": values(n, k)}
    if scaled:
        inputs["row_scale"] = random.uniform(0.001, 0.1, m).astype(np.float32)
        inputs["column_scale"] = random.uniform(0.01, 1.0, n).astype(np.float32)
    options = {"precision": "tf32"} if kind == "tf32" else {}
    return Call(matmul, inputs, {"c": ((m, n), np.dtype(result))}, options=options)


def designs(call):
    """The default design, and the one through shared memory for mma.sync."""
    tensors = {n: to_gpu(x) for n, x in call.inputs.items()}
    tensors |= {n: to_gpu(np.zeros(shape, kind)) for n, (shape, kind) in call.outputs.items()}
    kernel, facts, _ = facts_of(call, tensors)
    found = {"default": default_design(kernel, facts)}
    staged = staged_product(product(kernel), facts, extra=True)
    if staged is not None:
        found["mma"] = found["default"].of(staged)
        assert legal(kernel, found["mma"], facts) == []
    return found


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_products_of_other_types_are_within_their_bounds(kind, sizes):
    call = drawn(kind, sizes, seed=sum(sizes))
    expected = call.expected()
    for name, design in designs(call).items():
        outputs = run_call(call, design)
        for output, exact in expected.items():
            share = tolerance.check(f"{output} by {name}", to_numpy(outputs[output], call.outputs[output][1]), exact)
            print(f"{kind} {sizes} {name}: {share:.3f} of the bound")
