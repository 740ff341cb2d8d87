"""Every operator on the GPU, by its default design, in drawn sizes and types, against float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
sys.path.append(str(Path(__file__).parent))

from gpu_programs import run_call, to_gpu, to_numpy
from operator_cases import NAMES, draw

from tilewright.runtime import tolerance
from tilewright.runtime.compiled import bind


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), element=st.sampled_from(("bf16", "f32", "f16")))
def test_an_operator_is_within_its_bound(name, seed, element):
    call = draw(name, seed, element)
    outputs = {}
    for output, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        outputs[output] = to_gpu(call.inputs[output] if output in call.operator.updates else poison)
    inputs = {n: to_gpu(x) for n, x in call.inputs.items() if n not in call.outputs}
    bind(call.operator, **inputs, **outputs, **call.scalars, **call.options)()
    torch.cuda.synchronize()
    for output, exact in call.expected().items():
        tolerance.check(output, to_numpy(outputs[output], call.outputs[output][1]), exact)


@pytest.mark.parametrize("element", ["bf16", "f32"])
@pytest.mark.parametrize("name", NAMES)
def test_two_runs_give_the_same_bits(name, element):
    call = draw(name, 5, element)
    once, again = run_call(call), run_call(call)
    for output, (_, kind) in call.outputs.items():
        assert to_numpy(once[output], kind).tobytes() == to_numpy(again[output], kind).tobytes(), output
