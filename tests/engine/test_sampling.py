"""Sampling parameters and the choice of a token: ranges, distributions, penalties, seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.engine.sampling import Sampler, SamplingParams
from tilewright.errors import ModelError, SamplingError


def choose(logits, count=1, prompt=(), **params):
    """`count` choices from the same logits."""
    logits = np.asarray(logits, np.float32)
    sampler = Sampler(SamplingParams(**params), list(prompt), len(logits))
    return [sampler.choose(logits) for _ in range(count)]


def frequencies(logits, count=4000, **params):
    return np.bincount(choose(logits, count, seed=5, **params), minlength=len(logits)) / count


# ------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": 2}, r"n is 2; it must be 1"),
        ({"temperature": -0.1}, r"temperature is -0.1; it must be a number of at least 0"),
        ({"temperature": math.nan}, r"temperature is nan"),
        ({"temperature": math.inf}, r"temperature is inf"),
        ({"temperature": "hot"}, r"temperature is 'hot'"),
        ({"top_p": 0}, r"top_p is 0; it must be a number in \(0, 1\]"),
        ({"top_p": 1.01}, r"top_p is 1.01"),
        ({"top_k": -2}, r"top_k is -2; it must be an integer of at least -1"),
        ({"top_k": 2.0}, r"top_k is 2.0"),
        ({"min_p": 1.5}, r"min_p is 1.5; it must be a number in \[0, 1\]"),
        ({"repetition_penalty": 0}, r"repetition_penalty is 0; it must be a number above 0"),
        ({"presence_penalty": 2.5}, r"presence_penalty is 2.5; it must be a number in \[-2, 2\]"),
        ({"frequency_penalty": -3}, r"frequency_penalty is -3"),
        ({"seed": -1}, r"seed is -1; it must be an integer of at least 0 or None"),
        ({"max_tokens": 0}, r"max_tokens is 0; it must be an integer of at least 1 or None"),
        ({"max_tokens": True}, r"max_tokens is True"),
        ({"logprobs": 21}, r"logprobs is 21; it must be an integer in \[0, 20\] or None"),
        ({"ignore_eos": 1}, r"ignore_eos is 1; it must be True or False"),
        ({"stop": ["a", ""]}, r"stop is \['a', ''\]; it must be a string or a list of strings, none empty"),
        ({"stop": [3]}, r"stop is \[3\]"),
        ({"stop": ""}, r"stop is ''"),
        ({"stop": 3}, r"stop is 3; it must be a string or a list of strings"),
        ({"stop": {"a": "b"}}, r"stop is \{'a': 'b'\}"),
        ({"stop_token_ids": [-1]}, r"stop_token_ids is \[-1\]; it must be a list of token ids"),
        ({"stop_token_ids": 3}, r"stop_token_ids is 3; it must be a list of token ids"),
        ({"stop_token_ids": "3"}, r"stop_token_ids is '3'; it must be a list of token ids"),
        ({"temperature": 10**400}, r"temperature is 1000"),
        ({"temperature": np.float32("nan")}, r"temperature is np.float32\(nan\)"),
        ({"max_tokens": np.float64(3)}, r"max_tokens is np.float64\(3.0\)"),
        ({"max_tokens": np.True_}, r"max_tokens is np.True_"),
    ],
)
def test_out_of_range(params, message):
    with pytest.raises(SamplingError, match=message):
        SamplingParams(**params)


def test_numbers_of_numpy_are_numbers():
    drawn = SamplingParams(
        temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint8(7), stop_token_ids=np.arange(2)
    )
    assert (drawn.temperature, drawn.top_k, drawn.seed) == (0.5, 3, 7)
    assert (type(drawn.temperature), type(drawn.top_k), type(drawn.seed)) == (float, int, int)


def test_stop_is_one_or_many():
    assert SamplingParams(stop="ab").stops == ("ab",)
    assert SamplingParams(stop=["a", "b"]).stops == ("a", "b")
    assert SamplingParams().stops == ()


# --------------------------------------------------------------------------------------------- choices


def test_greedy_takes_the_lowest_of_equals():
    assert choose([1, 3, 3, 2], temperature=0) == [1]


def test_temperature_scales_logits():
    logits = np.log([0.5, 0.3, 0.2])
    for temperature in (0.5, 1.0, 2.0):
        wanted = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        # 4000 draws: five standard deviations of a frequency are at most 0.04.
        np.testing.assert_allclose(frequencies(logits, temperature=temperature), wanted, atol=0.04)


def test_a_temperature_near_zero_is_greedy():
    with np.errstate(all="raise"):
        for temperature in (1e-6, 5e-324):
            assert set(choose([0, 1, 0.5], 50, temperature=temperature, seed=0)) == {1}


def test_top_k():
    assert set(choose([1, 4, 3, 2], 300, top_k=2, seed=1)) == {1, 2}
    assert set(choose([1, 4, 3, 2], 3000, top_k=-1, seed=1)) == {0, 1, 2, 3}
    assert set(choose([1, 2], 300, top_k=9, seed=1)) == {0, 1}
    assert choose([0, 5, 1], top_k=1) == [1]
    assert set(choose([4, 3, 3, 1], 500, top_k=2, seed=1)) == {0, 1, 2}  # those tied with the last stay


def test_top_p_keeps_the_fewest():
    logits = np.log([0.1, 0.5, 0.15, 0.25])
    assert set(choose(logits, 300, top_p=0.5, seed=2)) == {1}
    assert set(choose(logits, 300, top_p=0.51, seed=2)) == {1, 3}
    assert set(choose(logits, 2000, top_p=0.9, seed=2)) == {1, 2, 3}
    np.testing.assert_allclose(frequencies(logits, top_p=0.7), [0, 2 / 3, 0, 1 / 3], atol=0.04)
    assert set(choose([0, 0, 0, 0], 300, top_p=0.5, seed=2)) == {0, 1}  # which sum to just as much


def test_min_p():
    logits = np.log([0.1, 0.6, 0.25, 0.05])
    assert set(choose(logits, 1000, min_p=0.4, seed=3)) == {1, 2}
    assert set(choose(logits, 300, min_p=1.0, seed=3)) == {1}


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
)
def test_nucleus_is_what_sorting_everything_gives(values, top_p):
    from tilewright.engine.sampling import _nucleus

    weights = np.exp(np.asarray(values, np.float64))
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    size = int(np.searchsorted(sums, top_p * weights.sum(), side="left")) + 1
    assert _nucleus(weights, top_p).tolist() == sorted(order[:size].tolist())


def test_seed_repeats_and_seeds_differ():
    logits = np.zeros(50)
    assert choose(logits, 20, seed=4) == choose(logits, 20, seed=4)
    assert choose(logits, 20, seed=4) != choose(logits, 20, seed=5)
    assert choose(logits, 20) != choose(logits, 20)


def test_repetition_penalty_on_prompt_and_output():
    assert choose([2.0, 1.9, -1], prompt=[0], temperature=0, repetition_penalty=1.5) == [1]
    assert choose([2.0, 1.9, -1], 3, temperature=0, repetition_penalty=1.5) == [0, 1, 0]
    assert choose([-1.0, -1.2], prompt=[0], temperature=0, repetition_penalty=1.5) == [1]


def test_presence_penalty_counts_once_and_only_output():
    logits = [1.0, 0.5, -5]
    assert choose(logits, 4, prompt=[0], temperature=0, presence_penalty=0.7) == [0, 1, 0, 0]


def test_frequency_penalty_counts_each_time():
    assert choose([1.0, 0.5], 5, temperature=0, frequency_penalty=0.4) == [0, 0, 1, 0, 1]


def test_logits_are_left_alone():
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    sampler = Sampler(SamplingParams(frequency_penalty=1.0, top_p=0.5, top_k=2, seed=0), [0, 1], 3)
    sampler.choose(logits)
    assert logits.tolist() == [1, 2, 3]


def test_logprobs():
    logits = np.log(np.array([0.2, 0.5, 0.05, 0.25], np.float32))
    sampler = Sampler(SamplingParams(logprobs=2), [], 4)
    found = sampler.logprobs(logits, 2)
    assert list(found) == [1, 3, 2]
    np.testing.assert_allclose(np.exp(list(found.values())), [0.5, 0.25, 0.05], rtol=1e-6)
    assert Sampler(SamplingParams(), [], 4).logprobs(logits, 2) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers(bad, temperature):
    with pytest.raises(ModelError, match=r"the model gave logit (nan|inf) for token 1; its weights are damaged"):
        choose([0, bad, 1], temperature=temperature)


def test_hidden_tokens_are_never_chosen():
    assert set(choose([-np.inf, 0, 0], 200, seed=1)) == {1, 2}
