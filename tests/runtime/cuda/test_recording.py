"""Passes recorded for a GPU: what each launch needs is known, compiled once, and bound when it is settled."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from tilewright import ops
from tilewright.build import nvrtc
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import bf16, f32, i32
from tilewright.machines.machine import Machine
from tilewright.observe.record import Recorder
from tilewright.runtime import modes
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import dispatch, driver, follow, watch
from tilewright.runtime.cuda.arrays import DeviceArray
from tilewright.runtime.cuda.recording import Recording

needs_nvrtc = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))


@pytest.fixture
def device(monkeypatch):
    """An H200 that is described, and not there."""
    monkeypatch.setattr(dispatch, "machine", lambda _: Machine.named("h200"))
    monkeypatch.setattr(driver, "inside", lambda _: nullcontext())
    monkeypatch.setattr(modes, "_learned", False)
    monkeypatch.setattr(follow, "timed", lambda _number, _stream, launch, _tally: launch())
    monkeypatch.setattr(follow, "stream_of", lambda _number: 0)
    monkeypatch.setattr(dispatch, "_requests", {})
    monkeypatch.setattr(dispatch, "_by_request", {})
    monkeypatch.setattr(dispatch, "_kernels", {})


def array(*shape, kind=bf16, at=1 << 20, writable=True, device="cuda:0"):
    strides = tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    return DeviceArray(Buffer(at, shape, strides, kind, device, writable=writable))


def recorded(*calls):
    recording = Recording(0)
    with ops.using(recording):
        for call in calls:
            call()
    return recording.launches


def linear(m, n, k, place=0):
    x, w = array(m, k), array(n, k, at=1 << 24, writable=False)
    return lambda: ops.linear.bind(x, w, out=array(m, n, at=(1 << 30) + place))


def test_what_a_model_fixes_is_a_part_of_the_kernel(device):
    (one,) = recorded(linear(1, 3072, 320))
    assert dict(one.request.sizes) == {"K": 320, "N": 3072}
    assert dict(one.request.layouts)["b"].constant
    assert not dict(one.request.layouts)["a"].constant


def test_a_sum_is_a_part_of_the_kernel_unless_bits_are_pinned(device, monkeypatch):
    (free,) = recorded(linear(1, 2048, 8192))
    decisions = dict(free.request.design.decisions)
    assert decisions.keys() & {"split.k", "warps.k"}  # several add it up
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    (pinned,) = recorded(linear(1, 2048, 8192))
    assert not dict(pinned.request.design.prefixed("split"))
    assert pinned.request.sizes == ()


def attend(batch, room):
    q, k, v = array(batch, 8, 1, 64), array(batch, 2, room, 64), array(batch, 2, room, 64, at=1 << 28)
    lengths = array(batch, kind=i32)
    return lambda: ops.attention.bind(q, k, v, causal=True, lengths=lengths, out=array(batch, 8, 1, 64, at=1 << 30))


def test_pinned_designs_do_not_depend_on_who_else_is_there(device, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    products = recorded(*(linear(m, 3072, 2048) for m in (1, 2, 5, 8, 16)))
    assert len({n.request.design for n in products}) == 1
    attentions = recorded(*(attend(b, room) for b in (1, 4, 16) for room in (1024, 2048, 8192)))
    assert len({n.request.design for n in attentions}) == 1
    norms = recorded(*(norm(m, 4096) for m in (1, 3, 200, 4000)))
    assert len({n.request.design for n in norms}) == 1


def norm(m, d):
    x, weight = array(m, d), array(d, at=1 << 28, writable=False)
    return lambda: ops.rmsnorm.bind(x, weight, out=array(m, d, at=1 << 30))


def test_layers_share_their_kernels(device):
    launches = recorded(*(linear(1, 2048, 2048, n << 20) for n in range(5)), linear(1, 4096, 2048))
    assert len({n.request for n in launches}) == 2


def test_operands_on_two_devices(device):
    x, w = array(4, 64), array(8, 64, device="cuda:1")
    with pytest.raises(ArgumentError, match="w of shape \\[8, 64\\] is on cuda:1, x on cuda:0; move one of them"):
        recorded(lambda: ops.linear.bind(x, w, out=array(4, 8)))


@needs_nvrtc
def test_kernels_are_compiled_once_and_bound_to_all(device, monkeypatch):
    loaded, bound = [], []

    class Kernel:
        def __init__(self, request):
            self.request = request

        def bind(self, buffers, scalars, sizes, _shared):
            bound.append((self.request, buffers["c"].pointer))
            return lambda: None

    def load(request, binary, known, device):
        loaded.append(binary.report.registers)
        return Kernel(request)

    monkeypatch.setattr(dispatch, "_loaded", load)
    recording = Recording(0)
    with ops.using(recording):
        launches = [linear(1, 256, 128, n << 20)() for n in range(3)]
    recording.settle()
    for launch in launches:
        launch()
    assert len(loaded) == 1 and loaded[0] > 0
    assert [pointer for _, pointer in bound] == [(1 << 30) + (n << 20) for n in range(3)]


def test_other_types_have_kernels_of_their_own(device):
    x, w = array(1, 128, kind=f32), array(256, 128, kind=f32, at=1 << 24)
    launches = recorded(linear(1, 256, 128), lambda: ops.linear.bind(x, w, out=array(1, 256, kind=f32, at=1 << 30)))
    assert launches[0].request != launches[1].request


def test_passes_are_counted_each_time_that_they_are_queued(device):
    launches = recorded(linear(1, 3072, 320), linear(1, 3072, 320, place=1 << 20), linear(1, 64, 320))
    recorder = Recorder()
    with recorder.recording():
        for _ in range(3):
            watch.tell(launches)
        watch.tell(launches[2:])
    watch.tell(launches)  # nobody listens any more
    found = [(c.operator, dict(c.sizes)["N"], c.device, c.count) for c in recorder.trace().calls]
    assert sorted(found) == [("matmul", 64, "cuda", 4), ("matmul", 3072, "cuda", 6)]


def test_a_watcher_leaves_whatever_happens():
    seen = []
    with pytest.raises(KeyError), watch.watched(seen.append):
        watch.tell(["a"])
        raise KeyError
    watch.tell(["b"])
    assert seen == [["a"]]
