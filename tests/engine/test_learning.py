"""`LLM(mode=...)`: what learns is started, told how busy the engine is, and its phases are told."""

from __future__ import annotations

import json
import os

import pytest

from tilewright.engine.llm import LLM
from tilewright.engine.sampling import SamplingParams
from tilewright.errors import ArgumentError
from tilewright.runtime import learner

GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


@pytest.fixture(autouse=True)
def mode(monkeypatch, tmp_path):
    """The mode and the cache folder are put back, and no learner stays."""
    monkeypatch.setenv("TILEWRIGHT_MODE", "learn")
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    yield
    learner.stop()


def test_nothing_learns_unless_asked(folder):
    assert LLM(folder).engine.learner is None
    assert learner.current() is None


def test_learning_starts_with_the_model_and_ends_where_another_mode_is_asked_for(folder):
    llm = LLM(folder, mode="learn")
    assert llm.engine.learner is learner.current() is not None
    plain = LLM(folder).generate("def f", GREEDY)[0].token_ids
    assert llm.generate("def f", GREEDY)[0].token_ids == plain
    assert LLM(folder, mode="frozen").engine.learner is None
    assert (os.environ["TILEWRIGHT_MODE"], learner.current()) == ("frozen", None)


def test_an_unknown_mode_is_refused_before_anything_is_loaded():
    with pytest.raises(ArgumentError, match=r"mode='fast'.*learn, frozen, generic"):
        LLM("there is no such folder", mode="fast")


class Pressure:
    """Stands for a learner, and remembers what it is told."""

    def __init__(self, p99=None):
        self.budget = type("Budget", (), {"p99": p99})()
        self.told = []

    def pressure(self, queue, p99):
        self.told.append((queue, p99))


def test_the_engine_says_how_many_wait_and_its_slowest_steps_where_they_are_bounded(folder):
    llm = LLM(folder, max_batch=1)
    for bound in (None, 1.0):
        llm.engine.learner = at_work = Pressure(bound)
        llm.generate(["a", "b", "c"], GREEDY)
        assert at_work.told[0][0] == 2
        assert at_work.told[-1][0] == 0
        assert all((p99 is None) == (bound is None) for _, p99 in at_work.told)


def test_phases_are_seconds_and_json(folder):
    llm = LLM(folder)
    assert llm.phases().first_token is None
    (done,) = llm.generate("def f", GREEDY)
    told = json.loads(json.dumps(llm.phases().to_dict()))
    assert set(told) == {"load", "compile", "search", "capture", "first_token"}
    assert told["first_token"] == pytest.approx(done.timings.first_token, abs=1e-5)
    assert told["load"] > 0
    assert told["capture"] > 0
    assert told["search"] == 0
