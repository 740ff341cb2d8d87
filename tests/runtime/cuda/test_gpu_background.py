"""The background's way on a GPU, with a device that is none: processes that stay, designs for a range of lengths."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import worker_trials

import tilewright as tw
from tilewright.design.book.record import Record
from tilewright.design.default import default_design
from tilewright.design.pinned import differs
from tilewright.design.space import random_step
from tilewright.knobs import knobs
from tilewright.language.dtypes import bf16
from tilewright.machines import nvidia
from tilewright.runtime import dispatch, modes, trial
from tilewright.runtime.background import Gate
from tilewright.runtime.background_worker import Worker, subject_of
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.chosen import open_book
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.cuda.origin import GpuOrigin
from tilewright.runtime.learner import job_of
from tilewright.runtime.subject import Subject
from tilewright.runtime.table import Table

H200 = tw.Machine.named("h200")


@pytest.fixture(autouse=True)
def worker(monkeypatch, tmp_path):
    monkeypatch.setattr(nvidia, "detect", lambda device=0: H200)
    folder = Path(__file__).parent
    return worker_trials.Worker(monkeypatch, tmp_path / "cache", folder, "fake_gpu_worker", "FAKE_GPU")


def test_a_crew_is_kept_from_one_search_to_the_next():
    """The same processes, set up anew; one that died in between is started again."""
    crew, pids = trial.Crew(), []
    try:
        for rows in (5, 6, 7):
            subject = Subject.of(tw.operators.softmax, {"M": rows, "D": 64}, "f32", machine=H200)
            with trial.TrialRunner(subject, crew=crew) as runner:
                (outcome,) = runner.evaluate([default_design(subject.kernel, subject.facts)])
            assert outcome.status == "ok", outcome
            pids.append(crew[0].pid)
            if rows == 6:
                os.kill(pids[-1], 9)
                os.waitid(os.P_PID, pids[-1], os.WEXITED | os.WNOWAIT)
        assert pids[0] == pids[1] != pids[2]
    finally:
        crew.close()


def slot(rows):
    """A slot of a product on a GPU that nobody has, as it is met by a program in which a learner is at work."""
    buffers = {
        n: Buffer(1 << 20, shape, (shape[1], 1), bf16, "cuda:0") for n, shape in
        (("a", (rows, 64)), ("b", (32, 64)), ("c", (rows, 32)))
    }  # fmt: skip
    program, sizes = dispatch.described(tw.operators.matmul, buffers, {"activation": None})
    layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
    origin = GpuOrigin(program, layouts, tw.operators.matmul, (("activation", None),), 0)
    found = dispatch.slot_of(origin, sizes, knobs())
    found.tally(tuple(sizes.items())).add()
    return found


def test_the_background_designs_for_a_range_and_says_what_the_generic_kernel_takes(monkeypatch):
    """One design for all lengths of a slot, other sizes constants; beside the generic design of any length."""
    monkeypatch.setattr(gpu, "machine", lambda _device: H200)
    monkeypatch.setattr(modes, "_learned", True)
    monkeypatch.setattr(dispatch, "TABLE", Table())
    met = slot(20)
    job = json.loads(json.dumps({"job": "design", **job_of(met), "trials": 3, "seconds": 60.0, "seed": 0}))
    assert job["constant"] == ["K", "N"]
    worker = Worker()
    worker._gate = Gate(Path("/nonexistent/gate"))
    try:
        answer = worker.answer(job)
        assert answer["status"] == "found", answer
        again = worker.answer(job)  # what the book knows is put beside the generic kernel too
    finally:
        worker._crew.close()
    record = Record.from_dict(answer["record"])
    assert record.design == Record.from_dict(again["record"]).design
    generic = met.origin.generic_design(dict(met.common))
    expected = {d: 1e-6 * (1 + int(d.hash[:4], 16)) for d in (generic, record.design)}
    assert record.default_seconds == pytest.approx(expected[generic])
    assert record.seconds == pytest.approx(expected[record.design])


@pytest.fixture
def asked(monkeypatch):
    """A job about a slot of a program in which a learner is at work, and what answers it."""
    monkeypatch.setattr(gpu, "machine", lambda _device: H200)
    monkeypatch.setattr(modes, "_learned", True)
    monkeypatch.setattr(dispatch, "TABLE", Table())
    worker = Worker()
    worker._gate = Gate(Path("/nonexistent/gate"))
    job = {"job": "design", **job_of(slot(20)), "trials": 1, "seconds": 60.0, "seed": 0}
    yield json.loads(json.dumps(job)), worker
    worker._crew.close()


def test_a_first_look_tries_the_default_design_and_a_deeper_search_goes_on_from_it(asked):
    job, worker = asked
    subject = subject_of(job)
    default = default_design(subject.kernel, subject.facts)
    steps = (random_step(subject.kernel, default, subject.facts, random.Random(n)) for n in range(99))
    other = next(step[1] for step in steps if step is not None and step[1] != default)
    look = worker.answer({**job, "look": True, "beside": other.to_json()})
    assert (look["status"], look["trials"]) == ("found", 2)  # the generic one is tried too
    record = Record.from_dict(look["record"])
    assert record.design == default
    assert record.default_seconds == pytest.approx(1e-6 * (1 + int(other.hash[:4], 16)))
    answer = worker.answer({**job, "deeper": True, "trials": 3, "beside": other.to_json()})
    assert answer["status"] == "found"
    found = open_book().measurements(subject.key())
    tried = [m.trial.design for m in found]
    assert tried[0] == default
    assert len({m.run for m in found}) == 1
    assert len(tried) == len(set(tried)) == 3
    again = {**job, "deeper": True, "trials": 3, "beside": other.to_json()}
    assert worker.answer(again)["status"] == "searched"
    assert worker.answer({**again, "trials": 4})["status"] == "found"


def test_where_the_default_design_is_the_generic_one_there_is_nothing_to_see(asked):
    job, worker = asked
    subject = subject_of(job)
    default = default_design(subject.kernel, subject.facts)
    assert worker.answer({**job, "look": True, "beside": default.to_json()})["status"] == "same"
    summed = default.with_(**{"warps.k": 2})  # what is the default one may not take its place
    assert differs(subject.kernel, default, summed)
    answer = worker.answer({**job, "look": True, "numerics": "pinned", "beside": summed.to_json()})
    assert answer["status"] == "same"
    assert not worker._crew
