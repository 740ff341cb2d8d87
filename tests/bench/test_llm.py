"""What `tilewright bench llm` will do: its jobs, without a GPU."""

from __future__ import annotations

import json
import sys
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from tilewright.bench import llm_profile
from tilewright.bench.checkpoint import Shape
from tilewright.bench.llm import time_limit
from tilewright.bench.llm_cases import MODELS, LlmRequest, decode_name, llm_jobs, prefill_name, start_name
from tilewright.bench.llm_profile import Part, Profile
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


# ------------------------------------------------------------------------------------------------------- profiles
PART = Part("matmul", {"M": 1, "K": 2048, "N": 3072}, 16, 4.31, 4.94, 2921.0, 768, 48, 0, {"warps": 8})
SPREAD = Part("rope_cache", {"B": 1}, 16, 2.0, 2.02, None, 1, 72, 0, {"warps": 4})


def test_a_profile_is_told_kernel_by_kernel(monkeypatch):
    asked = []

    def profiled(model, batch):
        asked.append((model, batch))
        return Profile(model, batch, 133, 845.5, (PART, SPREAD))

    monkeypatch.setattr(llm_profile, "profiled", profiled)
    outcome = CliRunner().invoke(app, ["bench", "llm", "--profile", "--only", "1B, decode*"])
    assert outcome.exit_code == 0 and asked == [("1B", 1), ("1B", 16)]
    lines = outcome.stdout.splitlines()
    assert lines[0] == "1B, batch 1: 845.5 us a step of 133 launches"
    assert lines[1] == " 16x    4.31 us,    4.94 less without: matmul M=1 K=2048 N=3072, 2921 GB/s"
    assert lines[2].endswith("rope_cache B=1")
    outcome = CliRunner().invoke(app, ["bench", "llm", "--profile", "--only", "8B, decode, batch 1,*", "--json"])
    assert json.loads(outcome.stdout)["parts"][0]["gbs"] == 2921.0


def test_launches_are_gathered_by_kernel_and_sizes():
    def launch(program, **sizes):
        return SimpleNamespace(program=program, sizes=sizes)

    a, b, c = launch("matmul", M=1), launch("norm", M=1), launch("matmul", M=2)
    again = launch("matmul", M=1)
    assert list(llm_profile.kinds([a, b, c, again])) == [[a, again], [b], [c]]


def test_a_peer_that_fails_is_left_out_and_says_why(monkeypatch):
    from tilewright.bench import llm

    class Fails:
        def __init__(self, model):
            pass

        def prefill(self, prompts):
            raise RuntimeError("no compiler")

    monkeypatch.setitem(sys.modules, "tilewright.bench.llm_peers", SimpleNamespace(Compiled=Fails))
    assert llm._compiled(None, [[1]]) == ({}, "torch.compile, within 90 s: RuntimeError: no compiler")
