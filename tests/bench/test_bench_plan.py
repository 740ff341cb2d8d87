"""Plans: what is owed, by whom, and about how long it takes."""

from __future__ import annotations

import pytest

from tilewright.bench import plan as plans
from tilewright.bench.cases import FAMILIES, cpu_cases
from tilewright.bench.checkpoint import Shape
from tilewright.bench.cpu import run_jobs
from tilewright.bench.plan import QUICK_SHAPE, Request, budget, estimate, plan
from tilewright.bench.worker import JOBS
from tilewright.errors import MissingPackage


def test_a_full_run_owes_every_family_and_fits_a_quarter_of_an_hour():
    jobs = plan(Request((1, 2)))
    assert {step.family for job in jobs for step in job.steps} == set(FAMILIES)
    assert {job.kind for job in jobs} <= {*JOBS, "startup"}
    # The operators that this host's caches make longer are not the plan's to bound, so the bound is a loose one.
    assert 120 < estimate(jobs) < 3600
    keys = [(step.family, step.name, step.threads) for job in jobs for step in job.steps]
    assert len(set(keys)) == len(keys)


def test_quick_is_much_shorter_and_keeps_one_decode():
    jobs = plan(Request((1, 2), quick=True))
    assert estimate(jobs) < estimate(plan(Request((1, 2)))) / 2
    (decoder,) = [job for job in jobs if job.kind == "decoder"]
    assert [step.name for step in decoder.steps] == ["decode, after 512 tokens, 4 layers"]
    assert decoder.shape == QUICK_SHAPE and QUICK_SHAPE.weight_bytes < Shape().weight_bytes / 3


def test_the_model_and_the_start_use_their_own_thread_counts():
    (memory,) = plan(Request((1, 2), "memory"))
    assert (memory.threads, memory.options["shape"]["layers"]) == (2, 16)
    assert [job.threads for job in plan(Request((1, 2), "softmax*"))] == [1, 2]


def test_streams_get_more_time():
    budgets = {case.family: budget(case, quick=False) for case in cpu_cases()}
    assert budgets["rows"] == budgets["decode_linear"] > budgets["matmul_f32"] > budget(cpu_cases()[0], quick=True)


@pytest.mark.parametrize(
    ("only", "absent", "says"),
    [
        (None, {"torch", "transformers"}, 'compares with torch and transformers, not installed; pip install "tilewrig'),
        ("rows", {"torch"}, "compares with torch, not"),
        ("decoder", {"transformers"}, "compares with transformers, not"),
    ],
)
def test_what_is_compared_with_is_missed_before_anything_runs(monkeypatch, only, absent, says):
    monkeypatch.setattr(plans, "find_spec", lambda name: None if name in absent else name)
    with pytest.raises(MissingPackage, match=says):
        run_jobs(plan(Request((1,), only=only)))
    assert run_jobs(plan(Request((1,), only="compile")))
