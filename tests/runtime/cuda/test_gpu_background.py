"""The background's way on a GPU, with a device that is none: processes that stay, designs for a range of lengths."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import worker_trials

import tilewright as tw
from tilewright.design.book.record import Record
from tilewright.design.default import default_design
from tilewright.knobs import knobs
from tilewright.language.dtypes import bf16
from tilewright.machines import nvidia
from tilewright.runtime import dispatch, modes, trial
from tilewright.runtime.background import Gate
from tilewright.runtime.background_worker import Worker
from tilewright.runtime.buffer import Buffer
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
