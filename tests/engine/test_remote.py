"""Decoding out of the host's sight: steps queued ahead, guesses that were wrong, rows that nobody holds."""

from __future__ import annotations

import numpy as np
import pytest
from engine_runs import PROMPTS, alone, run
from far_memory import far_llm

from tilewright.engine.llm import LLM
from tilewright.engine.remote import bucket
from tilewright.engine.sampling import Sampler, SamplingParams
from tilewright.errors import ModelError


@pytest.fixture
def llm(folder, monkeypatch):
    """A model in memory of its own, four requests at once."""
    return far_llm(folder, monkeypatch)


def params(**more):
    return SamplingParams(**{"temperature": 0, "max_tokens": 12, "ignore_eos": True, **more})


def test_sizes_of_passes():
    assert [bucket(n, 12) for n in (1, 2, 3, 5, 8, 9, 12)] == [1, 2, 4, 8, 8, 12, 12]


@pytest.mark.parametrize("more", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_temperatures_that_no_f32_holds(llm, more):
    with np.errstate(all="raise"):
        assert alone(llm, PROMPTS[0], params(temperature=1e-300, seed=1, **more)) == alone(llm, PROMPTS[0], params())
        assert len(alone(llm, PROMPTS[0], params(temperature=1e300, seed=1, **more))) == 12


def test_a_step_is_queued_while_the_last_one_travels_and_none_is_wasted(llm):
    alone(llm, PROMPTS[0], params())
    assert llm.engine._remote.thrown_away == 0
    assert llm.engine._remote._flight is None  # the end was known beforehand


def test_a_wrong_guess_does_not_show(llm):
    wanted = alone(llm, PROMPTS[0], params())
    end = wanted[4]
    stopped = llm.engine.add(PROMPTS[0], params(stop_token_ids=[end]))
    other = llm.engine.add(PROMPTS[1], params())
    run(llm.engine, [stopped, other])
    assert llm.engine._remote.thrown_away > 0
    assert stopped.output_ids == wanted[: wanted.index(end) + 1]
    assert other.output_ids == alone(llm, PROMPTS[1], params())


def test_a_pass_is_recorded_once_for_each_size(llm):
    for _ in range(3):
        requests = [llm.engine.add(ids, params()) for ids in PROMPTS[:3]]
        run(llm.engine, requests)
    assert llm.decoder.memory.recorded == 1  # four rows, for three requests
    alone(llm, PROMPTS[0], params())
    assert llm.decoder.memory.recorded == 2


def test_a_cache_that_grows_is_bound_anew(llm):
    long = [int(i) for i in np.random.default_rng(0).integers(0, 256, 60)]
    found = alone(llm, long, params(max_tokens=40))  # past the 64 tokens that there was room for
    cache = llm.decoder.new_cache()
    token = int(np.argmax(llm.decoder.prefill(cache, 0, long)))
    for wanted in found[:-1]:
        assert token == wanted
        token = int(np.argmax(llm.decoder.decode(cache, [token])[0]))


PENALTIES = [
    {"repetition_penalty": 1.3}, {"repetition_penalty": 0.6}, {"frequency_penalty": 0.25, "presence_penalty": -0.5},
    {"repetition_penalty": 1.7, "frequency_penalty": -0.125, "presence_penalty": 1.0},
]  # fmt: skip


@pytest.fixture
def near(folder):
    """The same model where the host sees all logits, and chooses by itself."""
    return LLM(folder)


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_penalties_that_no_f32_holds(llm, near, penalty):
    with np.errstate(all="raise", under="ignore"):
        wanted = alone(near, PROMPTS[0], params(repetition_penalty=penalty))
        assert alone(llm, PROMPTS[0], params(repetition_penalty=penalty)) == wanted


@pytest.mark.parametrize("more", PENALTIES)
def test_penalised_tokens_are_those_that_the_host_chooses(llm, near, more):
    for ids in PROMPTS[:3]:
        wanted = alone(near, ids, params(max_tokens=24, **more))
        assert alone(llm, ids, params(max_tokens=24, **more)) == wanted != alone(near, ids, params(max_tokens=24))


def test_penalties_among_others_and_after_wrong_guesses(llm, near):
    """Rows move, steps are thrown away, and counts stay those of each request's own tokens."""
    ways = [{"stop_token_ids": [alone(near, PROMPTS[0], params())[3]]}, *PENALTIES[2:], {}, *PENALTIES[:2]]
    made = [params(max_tokens=12 + 3 * n, **way) for n, way in enumerate(ways)]
    prompts = [PROMPTS[n % len(PROMPTS)] for n in range(len(ways))]
    wanted = [alone(near, ids, p) for ids, p in zip(prompts, made, strict=True)]
    requests = [llm.engine.add(ids, p) for ids, p in zip(prompts, made, strict=True)]
    run(llm.engine, requests)
    assert llm.engine._remote.thrown_away > 0
    assert [r.output_ids for r in requests] == wanted


def test_penalised_draws_are_the_same_alone_and_among_others(llm):
    made = [params(temperature=0.8, seed=n, top_p=0.9, max_tokens=9 + n, **way) for n, way in enumerate(PENALTIES)]
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, made, strict=False)]
    requests = [llm.engine.add(ids, p) for ids, p in zip(PROMPTS, made, strict=False)]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted


@pytest.mark.parametrize("more", [{}, PENALTIES[3], {"temperature": 1.5, "seed": 4, "top_k": 40}])
@pytest.mark.parametrize("number", [0, 1, 5, 20])
def test_log_probabilities_are_those_that_the_host_computes(llm, near, number, more):
    request = llm.engine.add(PROMPTS[2], params(logprobs=number, **more))
    run(llm.engine, [request])
    assert llm.engine._remote.thrown_away == 0
    ids = [*PROMPTS[2], *request.output_ids]
    rows = near.decoder.logits([ids])[0][len(PROMPTS[2]) - 1 : -1]
    for row, token, found in zip(rows, request.output_ids, request.logprobs, strict=True):
        wanted = Sampler(SamplingParams(logprobs=number), [0], len(row)).logprobs(row, token)
        assert token in found and len(found) in {number, number + 1}
        assert list(found) == list(wanted)
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "more", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"top_k": 1, "top_p": 0.5, "min_p": 0.1}]
)
def test_filters_that_leave_one_token_take_the_likeliest(llm, more):
    request = llm.engine.add(PROMPTS[1], params(temperature=0.9, seed=1, **more))
    run(llm.engine, [request])
    assert request.output_ids == alone(llm, PROMPTS[1], params())


def test_filters_that_leave_all_tokens_change_no_draw(llm):
    wanted = alone(llm, PROMPTS[1], params(temperature=0.9, seed=1))
    assert alone(llm, PROMPTS[1], params(temperature=0.9, seed=1, min_p=1e-30)) == wanted
    assert alone(llm, PROMPTS[1], params(temperature=0.9, seed=1, top_k=255, top_p=0.999999)) == wanted


def test_requests_with_and_without_filters_share_a_step(llm):
    ways = [{"temperature": 0.9, "seed": 3}, {"temperature": 1.2, "seed": 4, "top_k": 3, "top_p": 0.9}, {}]
    wanted = [alone(llm, ids, params(**way)) for ids, way in zip(PROMPTS, ways, strict=False)]
    requests = [llm.engine.add(ids, params(**way)) for ids, way in zip(PROMPTS, ways, strict=False)]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted


def test_those_who_ask_for_log_probabilities_and_those_who_do_not_share_a_step(llm):
    ways = [{"temperature": 0.9, "seed": 3}, {"logprobs": 1}]
    wanted = [alone(llm, ids, params(**way)) for ids, way in zip(PROMPTS, ways, strict=False)]
    requests = [llm.engine.add(ids, params(**way)) for ids, way in zip(PROMPTS, ways, strict=False)]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted
    assert requests[0].logprobs == [] and len(requests[1].logprobs) == len(wanted[1])


def test_damaged_weights_are_named(folder, monkeypatch):
    llm = far_llm(folder, monkeypatch)
    llm.decoder.weights.final_norm.values[...] = np.nan
    request = llm.engine.add(PROMPTS[0], params())
    with pytest.raises(ModelError, match="its weights are damaged"):
        run(llm.engine, [request])


def test_rows_that_nobody_holds_have_no_length(llm):
    requests = [llm.engine.add(ids, params(max_tokens=3 + n)) for n, ids in enumerate(PROMPTS[:4])]
    run(llm.engine, requests)
    assert llm.engine._cache.lengths.tolist() == [0] * 4
