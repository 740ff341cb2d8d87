"""The running error bound: compiled kernels lie inside it, whatever the operator, and a small mistake does not."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright import Scalar, Tensor, f32
from tilewright.errors import VerificationError
from tilewright.language.rounding import run_bounded
from tilewright.operators import OPERATORS, Exact
from tilewright.runtime import dispatch, tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.inputs import Operands, draw

SIZES = {"B": 2, "H": 2, "G": 3, "P": 60, "L": 4}


def drawn(operator, element, kind):
    kernel = operator.kernel.trace(dtypes_of(operator.kernel, element))
    sizes = {d: SIZES.get(d, 33 + n) for n, d in enumerate(kernel.dims)}
    if operator.name == "paged_rope_cache":
        sizes["L"] = 45
    if operator.name == "paged_attention":
        sizes["P"] = 9
    if "k" in dict(operator.kernel.signature.options):
        sizes["K"] = 1  # as the option of `topk` and its like says
    operands = draw(kernel, sizes, seed=1, kind=kind, updates=operator.updates)
    if operator.name == "key_ranges":  # sequences that lie one after the other
        for name, ends in (("q", (20, sizes["N"])), ("k", (7, 50))):
            operands.tensors[f"{name}_from"][:], operands.tensors[f"{name}_to"][:] = (0, ends[0]), ends
    return kernel, operands


def bounded(kernel, operands: Operands, steps=64) -> dict[str, Exact]:
    """As an operator's reference gives it, with the bound for all of its error."""
    wide = {n: x.astype(np.float64) if x.dtype.kind not in "iub" else x.copy() for n, x in operands.tensors.items()}
    bounds = run_bounded(kernel, wide, operands.scalars, steps)
    return {n: Exact(wide[n], np.zeros(wide[n].shape), 0, bounds[n]) for n in bounds}


def launch(operator, operands):
    options = dict(operator.kernel.signature.options)
    buffers = {n: Buffer.of(x) for n, x in operands.tensors.items()}
    dispatch.bind(operator, buffers, operands.scalars, options)()


@pytest.mark.parametrize("kind", ["random", "hard"])
@pytest.mark.parametrize("element", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_stays_inside_it(name, element, kind):
    operator = OPERATORS[name]
    kernel, operands = drawn(operator, element, kind)
    expected = bounded(kernel, operands)
    assert set(expected) == set(operator.outputs) & set(operands.tensors)
    launch(operator, operands)
    for output, exact in expected.items():
        assert np.all(np.isfinite(exact.narrowing))
        tolerance.check(output, operands.tensors[output], exact)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_value_is_that_of_the_reference(name):
    operator = OPERATORS[name]
    kernel, operands = drawn(operator, "f32", "random")
    inputs = {n: x for n, x in operands.tensors.items() if n not in operator.outputs or n in operator.updates}
    options = dict(operator.kernel.signature.options)
    copies = {n: x.copy() for n, x in inputs.items()}
    reference = operator.reference(**copies, **operands.scalars, **options)
    for output, exact in bounded(kernel, operands).items():
        np.testing.assert_allclose(exact.value, reference[output].value, rtol=1e-9, atol=1e-9)


def test_a_term_left_out_of_a_long_sum_is_outside_it():
    kernel = tw.operators.matmul.kernel.trace("f32")
    operands = draw(kernel, {"M": 3, "N": 5, "K": 4096}, seed=0)
    exact = bounded(kernel, operands)["c"]
    a, b = operands.tensors["a"].astype(np.float64), operands.tensors["b"].astype(np.float64)
    tolerance.check("c", (a @ b.T).astype(np.float32), exact)
    with pytest.raises(VerificationError, match="times the bound"):
        tolerance.check("c", (a[:, 1:] @ b[:, 1:].T).astype(np.float32), exact)


@tw.kernel
def shifted(x: Tensor["M"], y: Tensor["M"], big: Scalar["f32"]):
    for i in tw.parallel("M"):
        y[i] = (x[i] + big) - big


@tw.kernel
def steps_at(x: Tensor["M"], y: Tensor["M"], edge: Scalar["f32"]):
    for i in tw.parallel("M"):
        y[i] = tw.where(x[i] * 3.0 > edge, 1.0, 0.0)


def test_cancellation_widens_it():
    x = np.linspace(0.1, 1, 9)
    for big in (0.0, 1e4):
        error = run_bounded(shifted.trace("f32"), {"x": x, "y": np.zeros(9)}, {"big": big})["y"]
        assert np.all(error <= (2e-7 if not big else 2e-3))
        assert np.all(error >= (0.0 if not big else 5e-4))


def test_a_comparison_that_rounding_decides_makes_both_answers_possible():
    x = np.array([0.1, 1 / 3, 0.9])
    y = np.zeros(3)
    error = run_bounded(steps_at.trace("f32"), {"x": x, "y": y}, {"edge": 1.0})["y"]
    assert list(y) == [0.0, 0.0, 1.0]
    assert list(error) == [0.0, 1.0, 0.0]


@tw.kernel
def twice_stored(x: Tensor["M"], t: Tensor["M"], y: Tensor["M"]):
    for i in tw.parallel("M"):
        t[i] = x[i].to(f32) * 3.0
    for j in tw.parallel("M"):
        y[j] = t[j].to(f32) * 1.0


def test_what_is_stored_in_between_is_rounded_to_its_type():
    x = np.array([1 / 3, 1.1])
    kernel = twice_stored.trace({"x": "f32", "t": "bf16", "y": "f32"})
    error = run_bounded(kernel, {"x": x, "t": np.zeros(2), "y": np.zeros(2)}, {})["y"]
    assert np.all(error > 3 * x * 2**-9 * 0.99)
