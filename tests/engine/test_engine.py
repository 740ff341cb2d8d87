"""The engine: continuous batching gives every request what it would get alone; failures leave it usable."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from engine_runs import PROMPTS, alone, run

from tilewright.engine.engine import Engine
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import ArgumentError, ContextError


@pytest.fixture(params=[0.0, 0.9])
def params(request):
    """Greedy and seeded, of different lengths so that requests leave at different times."""
    return [
        SamplingParams(temperature=request.param, seed=i, max_tokens=3 + 5 * (i % 3), ignore_eos=True)
        for i in range(len(PROMPTS))
    ]


def test_batched_equals_alone(llm, params):
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    requests = [llm.engine.add(ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted
    assert llm.engine.scheduler.idle


def test_late_arrivals(llm, params):
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    requests = []
    for ids, p in zip(PROMPTS, params, strict=True):
        requests.append(llm.engine.add(ids, p))
        llm.engine.step()
        llm.engine.step()
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted


def test_prompts_in_chunks(llm, params, monkeypatch):
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    monkeypatch.setattr(llm.engine.scheduler, "chunk", 4)
    requests = [llm.engine.add(ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    run(llm.engine, requests)
    assert [r.output_ids for r in requests] == wanted


def test_abort_leaves_the_others_alone(llm, params):
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    requests = [llm.engine.add(ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    for _ in range(3):
        llm.engine.step()
    for gone in (1, 5):
        llm.engine.abort(requests[gone])
        llm.engine.scheduler.check_integrity()
    run(llm.engine, requests)
    kept = [i for i in range(len(PROMPTS)) if i not in (1, 5)]
    assert [requests[i].output_ids for i in kept] == [wanted[i] for i in kept]
    assert requests[1].finish_reason == requests[5].finish_reason == "abort"


def test_abort_in_the_middle_of_a_step(llm, params, monkeypatch):
    """A stream that is dropped may be collected, and so closed, anywhere."""
    wanted = [alone(llm, ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    requests = [llm.engine.add(ids, p) for ids, p in zip(PROMPTS, params, strict=True)]
    llm.engine.step()
    decode = llm.decoder.decode

    def decode_and_collect(*args):
        for gone in (0, 3, 4):
            llm.engine.abort(requests[gone])
        return decode(*args)

    with monkeypatch.context() as patch:
        patch.setattr(llm.decoder, "decode", decode_and_collect)
        llm.engine.step()
    llm.engine.scheduler.check_integrity()
    run(llm.engine, requests)
    assert [requests[i].output_ids for i in (1, 2, 5)] == [wanted[i] for i in (1, 2, 5)]
    assert {requests[i].finish_reason for i in (0, 3, 4)} <= {"abort", "length"}


def test_finish_reasons(llm):
    greedy = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    tokens = alone(llm, PROMPTS[0], greedy)
    stopped = llm.engine.add(PROMPTS[0], SamplingParams(temperature=0, stop_token_ids=[tokens[2]], ignore_eos=True))
    run(llm.engine, [stopped])
    assert stopped.finish_reason == "stop"
    assert stopped.output_ids == tokens[: tokens.index(tokens[2]) + 1]
    full = llm.engine.add(PROMPTS[0], greedy)
    run(llm.engine, [full])
    assert (full.finish_reason, len(full.output_ids)) == ("length", 6)


def test_end_token(llm):
    tokens = alone(llm, PROMPTS[0], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    llm.engine.eos_ids = (tokens[1],)
    ended = llm.engine.add(PROMPTS[0], SamplingParams(temperature=0, max_tokens=6))
    ignoring = llm.engine.add(PROMPTS[0], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    run(llm.engine, [ended, ignoring])
    assert (ended.finish_reason, ended.output_ids) == ("stop", tokens[:2])
    assert ended.completion().text == llm.tokenizer.decode(tokens[:1])
    assert ignoring.output_ids == tokens


def test_end_tokens_are_those_of_the_model_and_of_its_tokenizer(llm):
    own = llm.decoder.config.eos_ids
    for tokenizer, wanted in ((SimpleNamespace(eos_id=7), (*own, 7)), (SimpleNamespace(eos_id=None), own), (None, own)):
        assert Engine(llm.decoder, tokenizer, 4, 256).eos_ids == wanted


def test_a_row_moves_once_where_several_requests_leave_together(llm, monkeypatch):
    moves, move = [], llm.engine._cache.move
    monkeypatch.setattr(llm.engine._cache, "move", lambda *rows: (moves.append(rows), move(*rows)))
    params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in (3, 8, 3)]
    run(llm.engine, [llm.engine.add(ids, p) for ids, p in zip(PROMPTS[:3], params, strict=True)])
    assert moves == [(1, 0)]


def test_context_ends_a_completion(llm):
    request = llm.engine.add([3] * 250, SamplingParams(temperature=0, max_tokens=None, ignore_eos=True))
    run(llm.engine, [request])
    assert (len(request.output_ids), request.finish_reason) == (6, "length")


def test_a_failed_step_ends_what_it_ran_and_nothing_else(llm, monkeypatch):
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    wanted = alone(llm, PROMPTS[0], params)
    broken = llm.engine.add(PROMPTS[0], params)
    with monkeypatch.context() as patch:
        patch.setattr(llm.decoder, "ready", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            llm.engine.step()
    assert broken.finish_reason == "abort"
    assert alone(llm, PROMPTS[0], params) == wanted


def test_threads_share_an_engine(llm):
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    wanted = [alone(llm, ids, params) for ids in PROMPTS]
    found = {}

    def work(i):
        found[i] = llm.generate([PROMPTS[i]], params)[0].token_ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(PROMPTS))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [found[i] for i in range(len(PROMPTS))] == wanted


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([], ContextError, "the prompt is empty; give at least one token"),
        ([1] * 256, ContextError, r"the prompt has 256 tokens and the context is 256, new tokens included; shorten"),
        ([258], ArgumentError, r"258 in the prompt is not a token id; ids are integers from 0 to 257"),
        ([-1], ArgumentError, r"-1 in the prompt is not a token id"),
        ([1.0], ArgumentError, r"1.0 in the prompt is not a token id"),
        ([True], ArgumentError, r"True in the prompt is not a token id"),
    ],
)
def test_bad_prompts(llm, ids, error, message):
    with pytest.raises(error, match=message):
        llm.engine.add(ids, SamplingParams())
    assert llm.engine.scheduler.idle
