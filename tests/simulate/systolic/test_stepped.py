"""Cells stepped with values: exact results, and the cycles of the closed form, whatever stands still and overlaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.errors import AccumulatorOverflow
from tilewright.simulate.systolic.closed import closed_form
from tilewright.simulate.systolic.judge import planned, verified
from tilewright.simulate.systolic.stepped import run_stepped

from .arrays import on

SIZES = st.integers(1, 23)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["ws", "is", "os"]), st.sampled_from(["i8", "bf16"]), st.integers(1, 6), st.integers(1, 6),
    st.sampled_from(["", ":buffers=2", ":buffers=2:fifo=3:bandwidth=7", ":bandwidth=3"]), SIZES, SIZES, SIZES,
    st.integers(1, 9),
)  # fmt: skip
def test_values_and_cycles_of_any_product(flow, dtype, rows, columns, more, m, n, k, streamed):
    subject, design = on(f"systolic:{rows}x{columns}:{flow}{more}", m, n, k, dtype)
    axis = {"ws": "m", "is": "n", "os": "k"}[flow]
    design = design.with_(**{f"tile__{axis}": min(streamed, design.number(f"tile.{axis}"))})
    assert verified(subject, design) == closed_form(planned(subject, design)[1])


def test_every_integer_is_what_numpy_multiplies():
    subject, design = on("systolic:16x8:ws", 33, 20, 50)
    scheduled, plan = planned(subject, design)
    random = np.random.default_rng(3)
    a, b = random.integers(-128, 128, (33, 50), np.int8), random.integers(-128, 128, (20, 50), np.int8)
    c = np.zeros((33, 20), np.int32)
    run_stepped(scheduled, plan, {"a": a, "b": b, "c": c}, {})
    assert (c == a.astype(np.int32) @ b.T.astype(np.int32)).all()


@pytest.mark.parametrize("flow", ["ws", "is", "os"])
def test_a_sum_beyond_the_accumulator_is_an_error(flow):
    """4 x 127 x 127 needs 17 bits; 16 hold up to 32767."""
    for bits, fits in ((16, False), (17, True)):
        subject, design = on(f"systolic:2x2:{flow}:accumulator={bits}", 2, 2, 4)
        scheduled, plan = planned(subject, design)
        full = np.full((2, 4), 127, np.int8)
        operands = {"a": full, "b": full, "c": np.zeros((2, 2), np.int32)}
        if fits:
            run_stepped(scheduled, plan, operands, {})
            assert (operands["c"] == 4 * 127 * 127).all()
        else:
            with pytest.raises(AccumulatorOverflow, match=r"a sum reaches .* and an accumulator has 16 bits"):
                run_stepped(scheduled, plan, operands, {})


def test_32_bits_overflow_where_they_must():
    """131,072 products of -128 and -128 make 2 to the 31."""
    subject, design = on("systolic:1024x1:ws", 1, 1, 131_072)
    scheduled, plan = planned(subject, design)
    full = np.full((1, 131_072), -128, np.int8)
    with pytest.raises(AccumulatorOverflow, match="2147483648"):
        run_stepped(scheduled, plan, {"a": full, "b": full, "c": np.zeros((1, 1), np.int32)}, {})
