"""Calls by records: compiled code writes pointers, moves maps, makes results and launches, by a driver made up here."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError, LaunchError
from tilewright.ops import backend
from tilewright.runtime import builtin, form
from tilewright.runtime.record import launch_words

pytestmark = pytest.mark.skipif(not builtin.possible(), reason="this interpreter runs no records")

_LAUNCH = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_MOVE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class Device:
    """A driver whose kernels negate 64 floats, and count themselves; `status` is its next answer."""

    def __init__(self):
        self.bound, self.launched, self.moved, self.status = 0, 0, 0, 0
        self.launch, self.move = _LAUNCH(self._launch), _MOVE(self._move)

    def _launch(self, config, _kernel, parameters, _extra):
        status, self.status = self.status, 0
        if status:
            return status
        words = (ctypes.c_int64 * 3).from_address(parameters)
        assert config == 11 and words[2] == words[0]  # the map has followed the first tensor
        x, y = (np.ctypeslib.as_array((ctypes.c_float * 64).from_address(w)) for w in words[:2])
        y[:] = -x
        self.launched += 1
        return 0

    def _move(self, at, pointer):
        ctypes.c_int64.from_address(at).value = pointer
        self.moved += 1
        return 0


class Negation:
    """A launch of such a kernel: words x, y and a map of x."""

    relies_on_alignment = False

    def __init__(self, device, program, operands):
        self.device, self.program, self.operands = device, program, operands
        self.words = np.array([operands[n].pointer for n in ("x", "y", "x")] if operands else [0, 0, 0], np.int64)

    def pointer_word(self, name):
        return ("x", "y").index(name)

    def detached(self):
        made = Negation(self.device, self.program, {})
        made.words[:] = self.words
        return made

    def __call__(self):
        self.words[2] = self.words[0]
        self.device._launch(11, 0, self.words.ctypes.data, 0)

    def again(self, status):
        if status != 201:
            raise LaunchError(f"status {status}")
        self()

    def record(self, sources):
        at, again = self.words.ctypes.data, self.again
        entry = (form_address(self.device.launch), 11, 0, at)
        places = [(at + 8 * word, n, offset) for word, n, offset in sources]
        words = launch_words(entry, form_address(self.device.move), again, places, [(at + 16, at, int(self.words[2]))])
        return [(words, (self, again))]


def form_address(function):
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.fixture
def device():
    """silu, answered by the device of this test."""
    made = Device()

    def bind(operator, buffers, _scalars, options):
        made.bound += 1
        program = operator.kernel.trace({n: b.dtype.name for n, b in buffers.items()}, options=dict(options))
        return Negation(made, program, buffers)

    ops.silu(torch.zeros(3))  # the first call of all compiles the code, and shows what a tensor is
    with backend.using(bind):
        yield made


def test_a_known_call_runs_on_its_own_memory_and_is_not_bound_again(device):
    for seed in range(4):
        x = torch.randn(64, generator=torch.Generator().manual_seed(seed))
        y = ops.silu(x)
        assert torch.equal(y, -x) and y.data_ptr() != x.data_ptr()
    assert device.bound == 1 and device.launched == 4


def test_what_is_given_as_out_is_the_result(device):
    for _ in range(3):
        x, out = torch.randn(64), torch.full((64,), float("nan"))
        assert ops.silu(x, out=out) is out
        assert torch.equal(out, -x)
    assert device.bound == 1


def test_maps_follow_their_tensor_and_only_when_it_moves(device):
    x, z, out = torch.randn(64), torch.randn(64), torch.empty(64)
    for v in (x, x, z, z, z, x):
        ops.silu(v, out=out)
        assert torch.equal(out, -v)
    assert device.moved == 2


def test_memory_that_overlaps_is_refused_by_a_known_call(device):
    memory = torch.randn(256)
    for start in (64, 128):
        ops.silu(memory[:64], out=memory[start : start + 64])
    assert device.bound == 1
    with pytest.raises(ArgumentError, match="shares memory"):
        ops.silu(memory[:64], out=memory[16:80])


def test_a_failure_of_the_driver_is_told_or_mended(device):
    x, out = torch.randn(64), torch.empty(64)
    for _ in range(2):
        ops.silu(x, out=out)
    device.status = 1
    with pytest.raises(LaunchError, match="status 1"):
        ops.silu(x, out=out)
    device.status = 201
    out.zero_()
    assert ops.silu(x, out=out) is out
    assert torch.equal(out, -x)


def test_references_are_given_back(device):
    x, out = torch.randn(64), torch.empty(64)
    kept = [ops.silu(x) for _ in range(3)]
    counts = sys.getrefcount(x), sys.getrefcount(out), sys.getrefcount(kept[-1])
    for _ in range(50):
        ops.silu(x)
        ops.silu(x, out=out)
    assert (sys.getrefcount(x), sys.getrefcount(out), sys.getrefcount(kept[-1])) == counts
    dead = [weakref.ref(t) for t in (x, out, *kept)]
    del x, out, kept
    gc.collect()
    assert not any(r() for r in dead)


def test_a_gradient_that_is_asked_for_is_not_dropped_by_a_known_call(device):
    x = torch.randn(64, requires_grad=True)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(ops.silu(x), -x)
    assert device.bound == 1
    with pytest.raises(ArgumentError, match="gradient"):
        ops.silu(x)


def test_each_thread_has_its_own_record(device):
    wrong = []

    def work(seed):
        for n in range(50):
            x = torch.randn(64, generator=torch.Generator().manual_seed(1000 * seed + n))
            if not torch.equal(ops.silu(x), -x):
                wrong.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and device.launched == 200


def test_the_form_in_python_tells_apart_what_the_compiled_one_does(monkeypatch):
    """The two ways to write a form down find the same calls alike."""
    memory = torch.randn(4, 4, 4)
    calls = [
        ((memory,), {}), ((memory.mT,), {}), ((memory[:2],), {}), ((memory.double(),), {}), ((memory[0],), {}),
        ((memory, memory), {}), ((memory, memory.clone()), {}), ((memory.numpy(),), {}), ((memory.numpy().T,), {}),
        ((memory.numpy()[::2],), {}), ((memory, 1), {}), ((memory, True), {}), ((memory, 1.0), {}), ((memory, 0.0), {}),
        ((memory, -0.0), {}), ((memory, "a"), {}), ((memory, "b"), {}), ((memory, "a" * 9), {}), ((memory, ""), {}),
        ((memory, None), {}), ((memory,), {"x": 1}), ((memory,), {"y": 1}), ((memory,), {"x": 1, "y": 1}),
        ((memory,), {"y": 1, "x": 1}), (((memory,),), {}), (((memory, 1),), {}), ((memory, (1,)), {}), ((), {}),
        ((memory.clone().requires_grad_(),), {}), ((torch.nn.Parameter(memory.clone()),), {}),
    ]  # fmt: skip
    ops.silu(torch.nn.Parameter(torch.zeros(3)).detach())
    for args, kwargs in calls:
        form.Form(args, kwargs)  # shows every kind
    compiled = [form.Form(*call) for call in calls]
    assert all(type(f.key) is bytes for f in compiled)
    monkeypatch.setattr(form, "called", form._told_nothing)
    slow = [form.Form(*call) for call in calls]
    for i, (a, b) in enumerate(zip(compiled, slow, strict=True)):
        assert (
            a.pointers == b.pointers
            and a.asks == b.asks
            and all(x is y for x, y in zip(a.tensors, b.tensors, strict=True))
        )
        for j in range(i):
            alike = b.key == slow[j].key and b.asks == slow[j].asks  # the compiled form says who asks
            assert (a.key == compiled[j].key) == alike, (calls[i], calls[j])
