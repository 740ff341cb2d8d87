"""Decoding out of the host's sight: steps queued ahead, guesses that were wrong, rows that nobody holds."""

from __future__ import annotations

import numpy as np
import pytest
from engine_runs import PROMPTS, alone, run
from far_memory import far_llm

from tilewright.engine.remote import bucket
from tilewright.engine.sampling import SamplingParams
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


@pytest.mark.parametrize("more", [{"logprobs": 2}, {"repetition_penalty": 1.3}])
def test_what_needs_logits_is_chosen_on_the_host(llm, folder, more, monkeypatch):
    request = llm.engine.add(PROMPTS[2], params(**more))
    assert request.needs_logits
    run(llm.engine, [request])
    monkeypatch.undo()
    from tilewright.engine.llm import LLM

    near = LLM(folder)
    assert request.output_ids == alone(near, PROMPTS[2], params(**more))


@pytest.mark.parametrize(
    "more", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"top_k": 1, "top_p": 0.5, "min_p": 0.1}]
)
def test_filters_that_leave_one_token_take_the_likeliest(llm, more):
    request = llm.engine.add(PROMPTS[1], params(temperature=0.9, seed=1, **more))
    assert not request.needs_logits
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


def test_those_who_need_logits_and_those_who_do_not_share_a_step(llm):
    wanted = [alone(llm, PROMPTS[0], params(temperature=0.9, seed=3)), alone(llm, PROMPTS[1], params(logprobs=1))]
    requests = [
        llm.engine.add(PROMPTS[0], params(temperature=0.9, seed=3)),
        llm.engine.add(PROMPTS[1], params(logprobs=1)),
    ]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted


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
