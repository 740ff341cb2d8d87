"""Operators by name: each by its own, and by the call of `tilewright.ops` that runs it."""

from __future__ import annotations

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError
from tilewright.operators import OPERATORS
from tilewright.operators.names import CALLS, operator_name, operator_of

NO_OPERATORS = {"Launch", "using"}
"""What `tilewright.ops` has beside calls."""


def test_every_call_names_an_operator():
    assert {operator_name(call) for call in tw.ops.__all__ if call not in NO_OPERATORS} <= set(OPERATORS)
    assert not set(CALLS) & set(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_found_by_its_own_name(name):
    assert operator_of(name) is OPERATORS[name]


def test_linear_is_what_the_call_binds():
    bound = []

    def watched(operator, *_):
        bound.append(operator)
        return lambda: None

    with tw.ops.using(watched):
        tw.ops.linear(np.ones((3, 8), np.float32), np.ones((5, 8), np.float32))
    assert bound == [operator_of("linear")]


@pytest.mark.parametrize(
    ("name", "near"), [("rms_norm", "rmsnorm"), ("RMSNorm", "rmsnorm"), ("paged-attention", "paged_attention")]
)
def test_a_name_that_is_none_says_the_nearest(name, near):
    with pytest.raises(ArgumentError, match=rf"no operator is called '{name}'; did you mean {near}\? For"):
        operator_of(name)


def test_a_name_like_no_other_says_which_there_are():
    with pytest.raises(ArgumentError, match="no operator is called 'xyzzy'; there are matmul, gate_up, "):
        operator_of("xyzzy")
