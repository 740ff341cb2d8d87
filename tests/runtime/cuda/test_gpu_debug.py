"""What is told of kernels on a GPU: seconds of compiling, and what DEBUG prints; no GPU is needed for either."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tilewright import operators
from tilewright.build import nvrtc
from tilewright.build.cuda_kernel import CudaBinary, build_cuda
from tilewright.build.ptxas import Report
from tilewright.design.default import default_design
from tilewright.machines.machine import Machine
from tilewright.runtime import modes
from tilewright.runtime.cuda import debug, dispatch
from tilewright.runtime.subject import Subject

H200 = Machine.named("h200")
needs_nvrtc = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))


def binary(seconds):
    return CudaBinary(None, b"", Report(32), seconds)


def test_kernels_built_side_by_side_share_the_time_that_it_took(monkeypatch):
    monkeypatch.setattr(dispatch, "machine", lambda _: H200)
    monkeypatch.setattr(dispatch, "_by_request", {})
    monkeypatch.setattr(dispatch, "_loaded", lambda request, *_: request)
    took = {"a": 30.0, "b": 0.0, "c": 20.0}
    monkeypatch.setattr(dispatch, "build_many", lambda wanted, *_: [binary(took[r]) for r in wanted])
    before = modes.counts()
    assert dispatch.load_many(["a", "b", "c"], 0) == ["a", "b", "c"]
    after = modes.counts()
    assert (after.compiles - before.compiles, after.loads - before.loads) == (2, 1)
    assert 0 < after.compile_seconds - before.compile_seconds < 20.0  # of this test, not of the threads
    assert dispatch.load_many(["c", "a"], 0) == ["c", "a"] and modes.counts() == after


@needs_nvrtc
@pytest.mark.parametrize(("level", "says"), [
    (0, []),
    (1, ["machine h200: 132 SMs, sm_90a", "kernel silu M=4 D=64: compiled in", "0 bytes spilled"]),
    (3, ["design ", "lanes"]),
    (5, ["silu: stage cu", "__global__", "silu: stage tile", "silu: stage sched"]),
])  # fmt: skip
def test_what_each_level_prints(level, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    subject = Subject.of(operators.silu, {"M": 4, "D": 64}, "f32", machine=H200)
    request = subject.request(default_design(subject.kernel, subject.facts))
    monkeypatch.setenv("DEBUG", str(level))
    debug._announce.cache_clear()
    debug.built(request, build_cuda(request, H200), H200)
    printed = capsys.readouterr().err
    assert all(words in printed for words in says) and bool(printed) == bool(says)
    assert ("stage cu" in printed) == (level >= 4)


def test_a_line_of_a_launch():
    subject = Subject.of(operators.silu, {"M": 1024, "D": 1000}, "f32", machine=H200)
    x = SimpleNamespace(dtype="f32")
    launch = SimpleNamespace(program=subject.program, sizes=subject.sizes, buffers={"x": x, "y": x})
    line = debug._line(launch, 1e-3)
    assert line.startswith("silu f32 M=1024 D=1000:    1000.0 us") and line.endswith("8.2 GB/s")
