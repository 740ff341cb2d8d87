"""A program's shapes recorded, and replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import tilewright as tw
from tilewright.cli import app
from tilewright.errors import ArgumentError, TraceError
from tilewright.observe.place import Place
from tilewright.observe.record import Recorder, record_program
from tilewright.observe.replay import replay
from tilewright.observe.trace import Call, Trace

PROGRAM = """
import sys
import numpy as np
import tilewright as tw
x = np.full((3, 16), 12345.0, np.float32)
for _ in range(int(sys.argv[1])):
    tw.ops.linear(x, np.ones((8, 16), np.float32), activation="silu")
tw.ops.softmax(x)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(PROGRAM)
    return path


def test_launches_are_counted_by_shape(script):
    trace = record_program([str(script), "4"])
    assert [(c.operator, dict(c.sizes), c.count) for c in trace.calls] == [
        ("matmul", {"M": 3, "K": 16, "N": 8}, 4),
        ("softmax", {"M": 3, "D": 16}, 1),
    ]
    assert dict(trace.calls[0].options) == {"activation": "silu"}


def test_nothing_of_the_data_is_in_it(script):
    assert "12345" not in record_program([str(script), "1"]).to_json()


def test_nothing_is_recorded_outside_the_block():
    recorder, x = Recorder(), np.ones((2, 4), np.float32)
    with recorder.recording():
        tw.ops.softmax(x)
    tw.ops.softmax(x)
    assert [c.count for c in recorder.trace().calls] == [1]


def test_a_recorded_trace_is_replayed(script):
    found = list(replay(record_program([str(script), "4"]), most=2))
    assert [(r.call.operator, r.runs) for r in found] == [("matmul", 2), ("softmax", 1)]
    assert all(r.first_seconds > 0 and r.seconds > 0 for r in found)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call("nothing", (), ()), "no operator is called 'nothing'"),
        (Call("softmax", (("M", 3),), (("x", "f32"), ("y", "f32"))), "softmax: this version"),
        (Call("softmax", (("M", 3), ("D", 2)), (("x", "f99"), ("y", "f32"))), "softmax: this version"),
        (
            Call("softmax", (("M", 3), ("D", 2)), (("x", "f32"), ("y", "f32")), device="cuda:99"),
            "cuda:99, which is not",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_runs(call, reason):
    with pytest.raises(TraceError, match=reason):
        list(replay(Trace((call,))))


def test_programs_that_are_none_or_fail(tmp_path):
    with pytest.raises(ArgumentError, match="give the program"):
        record_program([str(tmp_path / "none.py")])
    (tmp_path / "ends.py").write_text("raise SystemExit(3)")
    with pytest.raises(TraceError, match="ended with 3"):
        record_program([str(tmp_path / "ends.py")])


def test_the_commands(tmp_path, script):
    run = CliRunner()
    out = tmp_path / "t.json"
    assert run.invoke(app, ["trace", "record", str(out), str(script), "2"]).exit_code == 0
    replayed = run.invoke(app, ["trace", "replay", str(out), "--json"])
    assert [json.loads(line)["runs"] for line in replayed.stdout.splitlines()] == [2, 1]
    assert run.invoke(app, ["trace", "served", str(out), "--requests", "7"]).exit_code == 0
    assert len(Trace.load(out).requests) == 7
    (tmp_path / "empty.py").write_text("")
    empty = run.invoke(app, ["trace", "record", str(out), str(tmp_path / "empty.py")])
    assert "0 launches of 0 shapes; only operators of tilewright.ops" in empty.stderr


class HostAsGpu:
    """A GPU whose memory is the host's, and which runs what is queued when somebody waits."""

    machine = None

    def __init__(self):
        self.queued, self.held, self.waits = [], 0, 0

    def holding(self, values):
        self.held += 1
        return values.copy()

    def run(self, launches):
        self.queued += launches

    def wait(self):
        self.waits += 1
        while self.queued:
            self.queued.pop(0)()


def test_a_call_that_was_recorded_on_a_gpu_is_replayed_on_one(monkeypatch):
    gpu = HostAsGpu()
    asked = []
    monkeypatch.setattr("tilewright.observe.replay.place", lambda device: asked.append(device) or Place(gpu))
    call = Call("softmax", (("M", 3), ("D", 2)), (("x", "f32"), ("y", "f32")), device="cuda:1", count=4)
    (found,) = replay(Trace((call,)), most=3)
    assert (found.runs, gpu.held, gpu.waits, gpu.queued) == (3, 2, 3, [])
    assert set(asked) == {"cuda:1"}
    assert found.first_seconds > 0 and found.seconds > 0
