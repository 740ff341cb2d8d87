"""Conversions of 16-bit floats: the same bits with the processor's instructions and without them."""

from __future__ import annotations

import numpy as np
import pytest
from cases import FLOATS, Case
from compiled import Guarded, Run, machines

from tilewright import operators


@pytest.mark.parametrize("kind", FLOATS, ids=str)
def test_rounding_to_sixteen_bits_is_the_same_with_and_without_the_instruction(kind):
    """Every finite f32 exponent, halfway cases, denormals, infinities and NaN, by each machine that runs here."""
    edge = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65519.99, 65520, 1e-8, 2**-24, 2**-25, 3 * 2**-26])
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 4096, dtype=np.uint64).astype(np.uint32)
    halfway = (bits & 0xFFFF0000) | 0x8000  # ties of bf16, and of f16 where its last bit is there
    values = np.concatenate([edge.astype(np.float32), bits.view(np.float32), halfway.view(np.float32)])
    values = np.where((np.abs(values) < 2**-120) & (values != 0), np.float32(1.5), values)  # f32 denormals may flush
    with np.errstate(all="ignore"):
        expected = values.astype(kind)
    for machine in machines().values():
        memory = Guarded(0, "rows")
        inputs = {"a": memory.laid_out(values[None]), "b": memory.laid_out(np.zeros_like(values)[None])}
        rounded = Run(copying(inputs, kind), memory, machine)
        actual = rounded.outputs(rounded.kernel())["c"][0]
        np.testing.assert_array_equal(actual.astype(np.float32), expected.astype(np.float32))
        inputs = {"a": memory.laid_out(expected[None]), "b": memory.laid_out(np.zeros_like(values)[None])}
        widened = Run(copying(inputs, np.float32), memory, machine)
        actual = widened.outputs(widened.kernel())["c"][0]
        np.testing.assert_array_equal(actual, expected.astype(np.float32))


def copying(inputs, kind):
    """1.0 * a + 0.0, stored as `kind`."""
    return Case(operators.scale_add, inputs, {"c": (inputs["a"].shape, kind)}, {"alpha": 1.0})
