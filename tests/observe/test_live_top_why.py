"""What a running program shows: its state, the live table, metrics, and why a kernel runs."""

from __future__ import annotations

import io
import json
import sys
import time
from contextlib import nullcontext

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import tilewright as tw
from tilewright.build import nvrtc
from tilewright.cli import app
from tilewright.errors import ArgumentError, MissingPackage, TraceError
from tilewright.language.dtypes import dtype
from tilewright.machines.machine import Machine
from tilewright.observe import live
from tilewright.observe.metrics import metrics_text
from tilewright.observe.place import place
from tilewright.observe.top import cells, rendered
from tilewright.observe.why import why
from tilewright.runtime import dispatch
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.arrays import DeviceArray

OWN = """
from tilewright.language import Tensor, kernel, parallel
from tilewright.operators.operator import Exact, operator, wide

@kernel
def bare(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = x[i, d] + x[i, d]

@operator(lambda x: {"y": Exact.copied(2 * wide(x))}, writes=("y",))
@kernel
def doubled(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = x[i, d] + x[i, d]
"""

ROW = {
    "shape": "matmul batch=17-64 f32 cpu", "design": "0123456789abcdef", "calls": 1234, "hits": 34, "misses": 1200,
    "swaps": 1, "seconds": 2e-6, "generic_seconds": 3e-6, "saved_seconds": 0.5, "state": "specialised", "reason": "ok",
}  # fmt: skip


@pytest.fixture(autouse=True)
def own_table():
    dispatch.forget_chosen()  # empties the table, and calls are bound anew
    tw.ops.softmax(np.ones((3, 21), np.float32))
    yield
    dispatch.forget_chosen()


def test_a_state_is_published_read_and_taken_away(tmp_path):
    end = live.publish(tmp_path / "me.json", seconds=0.01)
    for _ in range(60_000):
        if not list(tmp_path.glob("*.unfinished")):
            break
        time.sleep(0.01)
    (row,) = live.read(tmp_path / "me.json")["rows"]
    assert (row["shape"], row["sizes"], row["state"]) == ("softmax batch=2-4 f32 cpu", {"M": 3, "D": 21}, "generic")
    end()
    assert not (tmp_path / "me.json").exists()


def test_a_folder_that_cannot_be_written_harms_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    live.publish(tmp_path / "file" / "me.json")()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "tilewright live", "version": 1, "rows": [3]}'])
def test_what_is_no_state_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(TraceError, match=r"x\.json"):
        live.read(tmp_path / "x.json")


def test_a_row_of_the_table():
    assert cells(ROW) == (
        "matmul batch=17-64 f32 cpu", "0123456789ab", "1,234", "34", "1,200", "1", "2.0", "3.0", "0.50",
        "specialised: ok",
    )  # fmt: skip
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(rendered({**live.state(), "rows": [ROW]}))
    assert "matmul batch=17-64" in (text := console.export_text())
    assert "mode learn" in text


def test_metrics_are_those_of_the_table():
    shape = 'batch="2-4",device="cpu",dtype="f32",length="",operator="softmax"'
    assert f"tilewright_calls_total{{{shape}}} 1.0" in metrics_text()
    tw.ops.softmax(np.ones((3, 21), np.float32))
    assert f"tilewright_calls_total{{{shape}}} 2.0" in metrics_text()
    assert f"tilewright_hits_total{{{shape}}} 0.0" in metrics_text()
    assert "tilewright_saved_seconds 0.0" in metrics_text()


def test_metrics_without_the_library_say_what_to_install(monkeypatch):
    from tilewright.observe import metrics

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingPackage, match="prometheus-client"):
        metrics.RuntimeCollector()


def test_why_is_the_answer_of_the_dispatcher():
    answer = why("matmul", {"M": 3, "N": 16, "K": 8}, "f32")
    assert answer.row.design is None
    assert "the generic kernel, design" in answer.text()
    assert "because: generic: " in answer.text()
    assert answer.row.calls == 0
    assert why("linear", {"M": 3, "N": 16, "K": 8}, "f32") == answer
    with pytest.raises(ArgumentError, match="no operator is called"):
        why("nothing", {}, "f32")


def test_why_of_what_a_file_defines(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    answer = why(f"{tmp_path}/own.py:doubled", {"M": 3, "D": 16}, "f32")
    assert str(answer.row.shape) == "doubled batch=2-4 f32 cpu"
    bare = why(f"{tmp_path}/own.py:bare", {"M": 3, "D": 16}, "f32")  # as tw.launch runs it
    assert str(bare.row.shape) == "bare batch=2-4 f32 cpu"
    assert f"`tilewright design {tmp_path}/own.py:bare M=3 D=16` does" in bare.text()


def test_the_commands(tmp_path, monkeypatch):
    run = CliRunner()
    found = run.invoke(app, ["why", "softmax", "M=3", "D=21", "--json"])
    assert json.loads(found.stdout)["specialised"] is False
    assert isinstance(run.invoke(app, ["why", "softmax", "M3"]).exception, ArgumentError)
    monkeypatch.setattr(live, "live_folder", lambda: tmp_path)
    assert isinstance(run.invoke(app, ["top", "--once"]).exception, TraceError)
    end = live.publish()
    shown = run.invoke(app, ["top", "--once"])
    assert (shown.exit_code, "saved" in shown.stdout) == (0, True)
    assert json.loads(run.invoke(app, ["top", "--json"]).stdout)["mode"] == "learn"
    end()


def test_why_answers_when_kernels_are_timed_too(monkeypatch):
    monkeypatch.setenv("DEBUG", "2")
    assert why("matmul", {"M": 3, "N": 16, "K": 8}, "f32").row.design is None


class DescribedGpu:
    """A GPU that is described, and not there."""

    machine = Machine.named("h200")

    def __init__(self, number):
        self.number = number

    def holding(self, values):
        strides = tuple(s // values.itemsize for s in values.strides)
        return DeviceArray(Buffer(1 << 20, values.shape, strides, dtype(values.dtype), f"cuda:{self.number}"))


@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
def test_why_knows_what_a_gpu_would_run(monkeypatch):
    monkeypatch.setattr("tilewright.runtime.cuda.gpu.Gpu", DescribedGpu)
    monkeypatch.setattr("tilewright.observe.why.place", place.__wrapped__)  # nobody is to find it later
    monkeypatch.setattr(gpu, "machine", lambda _: DescribedGpu.machine)
    monkeypatch.setattr(driver, "inside", lambda _: nullcontext())
    monkeypatch.setattr(driver, "load", lambda _cubin, _entry, device, *_: driver.Function(1, device, 1))
    monkeypatch.setattr(driver, "tensor_map", lambda *_: bytes(128))
    monkeypatch.setattr(driver, "_launcher", lambda: None)
    monkeypatch.setattr("tilewright.runtime.cuda.kernel.device_memory", lambda size, *_, **__: np.empty(size, np.uint8))
    answer = why("matmul", {"M": 16, "N": 64, "K": 64}, "bf16", device="cuda:1")
    assert str(answer.row.shape) == "matmul batch=5-16 bf16 cuda:1"
    assert answer.row.design is None
    assert dict(answer.decisions)["atom.dot0"] == "wgmma"
    assert "cuda:1: the generic kernel" in answer.text()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:0"])
def test_why_on_a_device_of_no_kind_says_which_there_are(device):
    with pytest.raises(ArgumentError, match="cuda:1"):
        why("matmul", {"M": 16, "N": 64, "K": 64}, "bf16", device=device)
