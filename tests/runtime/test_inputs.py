"""Operands drawn for programs: inside what the program does with them, hard where asked, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import Scalar, Tensor, i64, kernel, operators, parallel, size
from tilewright.errors import ArgumentError
from tilewright.language import each
from tilewright.language.dtypes import f32
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.index_limits import limits
from tilewright.runtime.inputs import Drawn, draw


def traced(operator, element="f32", present=()):
    return operator.kernel.trace(dtypes_of(operator.kernel, element, present))


def test_limits_follow_integers_to_what_they_index():
    sizes = {"T": 5, "Q": 4, "R": 8, "H": 2, "D": 16, "P": 12, "N": 6, "L": 4}
    found = limits(traced(operators.paged_rope_cache), sizes)
    assert (found["positions"].most, found["positions"].scatters) == (11, False)
    assert (found["slots"].most, found["slots"].scatters) == (23, True)  # slots // L < N
    sizes = {"B": 2, "H": 2, "G": 1, "S": 3, "D": 8, "T": 9, "E": 8}
    found = limits(traced(operators.attention, present=["lengths"]), sizes)
    assert (found["lengths"].most, found["lengths"].ends_loop) == (9, True)


@kernel
def third(x: Tensor["M"], y: Tensor["N"], where: Tensor["N"].of("i32"), shift: Scalar["i64"]):
    for n in parallel(each("N")):
        y[n] = x[where[n].to(i64) * 3 + (shift - shift)]


def test_limits_count_steps_of_several_elements():
    found = limits(third.trace("f32"), {"M": 10, "N": 4})
    assert found["where"].most == 2  # 3 * 2 < 10, and 3 * 3 is not below it less the steps between


@kernel
def folded(x: Tensor["M"], y: Tensor["N"], where: Tensor["N"].of("i32")):
    for n in parallel(each("N")):
        y[n] = x[where[n].to(i64) % size("M")]


def test_what_is_taken_modulo_is_free():
    assert limits(folded.trace("f32"), {"M": 10, "N": 4})["where"].most is None


def test_lengths_are_full_where_they_are_to_be_timed():
    sizes = {"B": 4, "H": 1, "G": 1, "S": 1, "D": 8, "T": 9, "E": 8}
    program = traced(operators.attention, present=["lengths"])
    assert list(draw(program, sizes, seed=0).tensors["lengths"]) == [9] * 4
    drawn = {int(n) for seed in range(40) for n in draw(program, sizes, seed=seed, kind="hard").tensors["lengths"]}
    assert {0, 9} <= drawn <= set(range(10))


def test_places_to_write_to_differ():
    sizes = {"B": 3, "S": 4, "Q": 1, "H": 1, "R": 4, "D": 8, "P": 5, "T": 5}
    program = traced(operators.rope_cache)
    for seed in range(5):
        positions = draw(program, sizes, seed=seed, updates=("k_cache", "v_cache")).tensors["positions"]
        assert all(len(set(row)) == 4 for row in positions.tolist())
    with pytest.raises(ArgumentError, match="positions names 4 places to write to, of 3"):
        draw(program, {**sizes, "T": 3}, seed=0)


def test_hard_operands_hold_ties_zeros_of_both_signs_and_large_values():
    drawn = draw(traced(operators.softmax), {"M": 40, "D": 50}, seed=2, kind="hard").tensors["x"]
    zeros = drawn[drawn == 0]
    assert np.signbit(zeros).any() and not np.signbit(zeros).all()
    assert np.unique(drawn).size < 0.8 * drawn.size
    assert np.abs(drawn).max() > 50


@pytest.mark.parametrize("element", ["f32", "bf16", "f16"])
def test_outputs_are_poisoned_and_updates_are_not(element):
    sizes = {"B": 1, "S": 2, "Q": 1, "H": 1, "R": 4, "D": 8, "P": 5, "T": 5}
    drawn = draw(traced(operators.rope_cache, element), sizes, seed=0, updates=("k_cache", "v_cache")).tensors
    assert np.isnan(drawn["q_out"].astype(np.float64)).all()
    assert np.isfinite(drawn["k_cache"].astype(np.float64)).all()
    assert (draw(traced(operators.argmax), {"M": 3, "D": 4}, seed=0).tensors["index"] < 0).all()


def test_the_same_seed_draws_the_same():
    program, sizes = traced(operators.matmul, "bf16"), {"M": 3, "N": 4, "K": 5}
    one, two, other = (draw(program, sizes, seed=s).tensors["a"] for s in (1, 1, 2))
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_a_dimension_that_is_not_the_last_may_have_stride_one():
    drawn = draw(traced(operators.matmul), {"M": 3, "N": 4, "K": 5}, seed=0, unit={"b": 0}).tensors
    assert drawn["b"].strides == (4, 16)
    assert drawn["a"].strides == (20, 4)


def test_nothing_to_index_is_refused():
    with pytest.raises(ArgumentError, match="ids has elements but nothing to index"):
        draw(traced(operators.embedding), {"N": 3, "V": 0, "D": 4}, seed=0)


def test_long_tensors_repeat_their_numbers_and_no_row_is_like_another():
    """A kernel that reads another row is seen, although not every element is drawn anew."""
    table = draw(traced(operators.embedding, "bf16"), {"N": 2, "V": 5000, "D": 2048}, seed=0).tensors["table"]
    assert len({row.tobytes() for row in table[:, :8]}) == 5000
    assert len({column.tobytes() for column in table[:64].T}) == 2048
    assert abs(table[-500:].astype(np.float32).std() - 1.0) < 0.01


def test_weights_are_drawn_once_for_all_numbers_of_rows():
    """What one operand holds does not depend on the sizes of others; kept ones are bounded by their bytes."""
    program, kept = traced(operators.matmul, "f32"), Drawn(limit=3 * 4 * 5 * 4)
    first = draw(program, {"M": 3, "N": 4, "K": 5}, seed=1, kept=kept).tensors
    more = draw(program, {"M": 7, "N": 4, "K": 5}, seed=1).tensors
    assert first["b"].tobytes() == more["b"].tobytes() != first["a"].tobytes()
    assert sum(x.nbytes for x in kept._kept.values()) <= 3 * 4 * 5 * 4
    again = kept.floats((1, 1), (4, 5), f32, "random")
    assert again is kept.floats((1, 1), (4, 5), f32, "random")
    first["b"][:] = 0  # operands are copies
    assert again.tobytes() == more["b"].tobytes()
    assert not Drawn(0)._kept
