"""What `tilewright bench llm` will do: its jobs, without a GPU."""

from __future__ import annotations

import time

import pytest
from typer.testing import CliRunner

from tilewright.bench.checkpoint import Shape
from tilewright.bench.llm import time_limit
from tilewright.bench.llm_cases import MODELS, LlmRequest, decode_name, llm_jobs, prefill_name, start_name
from tilewright.cli import app
from tilewright.errors import ArgumentError


def steps(**request):
    return [s.name for job in llm_jobs(LlmRequest(**request)) for s in job.steps]


def test_everything():
    models = [n for m in MODELS for n in (prefill_name(m), decode_name(m, 1), decode_name(m, 16))]
    assert sorted(steps()) == sorted([*models, start_name("1B")])


def test_a_part():
    assert steps(only="1B, decode, batch 16*") == [decode_name("1B", 16)]
    jobs = llm_jobs(LlmRequest(only="8B*", compiled=False))
    assert [(job.options["model"], job.options["batch"]) for job in jobs] == [("8B", 1), ("8B", 16)]
    assert [job.options["parts"] for job in jobs] == [["llm_prefill", "llm_decode"], ["llm_decode"]]
    assert jobs[0].options["compiled"] is False
    with pytest.raises(ArgumentError, match="no case fits '70B'; the families are llm_prefill, llm_decode, llm_start"):
        llm_jobs(LlmRequest(only="70B"))


def test_every_job_ends():
    assert all(job.limit for job in llm_jobs(LlmRequest()))


def test_a_time_limit():
    with time_limit(600.0):
        pass
    with pytest.raises(TimeoutError, match=r"more than 0\.05 s"), time_limit(0.05):
        time.sleep(600)
    time.sleep(0.06)  # it is off again


def test_sizes_of_the_shapes():
    assert 2.4e9 < MODELS["1B"].weight_bytes < 2.6e9
    assert 1.45e10 < MODELS["8B"].weight_bytes < 1.55e10
    assert MODELS["1B"] == Shape()


def test_other_devices_are_refused():
    outcome = CliRunner().invoke(app, ["bench", "llm", "--device", "cpu"])
    assert isinstance(outcome.exception, ArgumentError)
    assert "bench cpu" in str(outcome.exception)
