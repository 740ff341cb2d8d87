"""Conversions of narrow floats: the same bits with the processor's instructions and without them."""

from __future__ import annotations

import ml_dtypes
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


def test_eight_bits_are_rounded_to_and_read_back_as_ml_dtypes_does():
    """All 256 numbers, all their halfway cases and the floats beside those, denormals, what is too large, NaN."""
    kind = ml_dtypes.float8_e4m3fn
    codes = np.arange(256, dtype=np.uint8).view(kind)
    finite = np.unique(codes.astype(np.float32)[np.isfinite(codes.astype(np.float32))])
    middle = (finite[1:] + finite[:-1]) / 2
    edge = np.array(
        [464.0, -464.0, 464.01, 479.9, 480.0, 1e38, np.inf, -np.inf, np.nan, 2.0**-10, 2.0**-11], np.float32
    )
    beside = [np.nextafter(x, np.float32(s)) for x in (middle, finite, edge[:3]) for s in (-np.inf, np.inf)]
    values = np.concatenate([finite, middle, edge, *beside, np.array([0.0, -0.0], np.float32)])
    values = np.where(np.abs(values) < 2.0**-120, np.copysign(np.float32(0), values), values)  # f32 denormals may flush
    with np.errstate(all="ignore"):
        expected = values.astype(kind)
    zero = np.zeros_like(values)[None]
    for machine in machines().values():
        memory = Guarded(0, "rows")
        rounded = Run(copying({"a": memory.laid_out(values[None]), "b": memory.laid_out(zero)}, kind), memory, machine)
        actual = rounded.outputs(rounded.kernel())["c"][0]
        same = (actual.view(np.uint8) == expected.view(np.uint8)) | (values == 0)  # 1.0 * -0.0 + 0.0 is 0.0
        assert (same | (np.isnan(actual.astype(np.float32)) & np.isnan(expected.astype(np.float32)))).all()
        read = {"a": memory.laid_out(codes[None]), "b": memory.laid_out(np.zeros((1, 256), np.float32))}
        widened = Run(copying(read, np.float32), memory, machine)
        np.testing.assert_array_equal(widened.outputs(widened.kernel())["c"][0], codes.astype(np.float32))


def copying(inputs, kind):
    """1.0 * a + 0.0, stored as `kind`."""
    return Case(operators.scale_add, inputs, {"c": (inputs["a"].shape, kind)}, {"alpha": 1.0})
