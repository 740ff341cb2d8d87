"""The form of a call on a GPU that is not there: its stream, and the graph that the stream is captured for."""

from __future__ import annotations

import ctypes

import pytest
import torch

from tilewright.runtime import form, rebind
from tilewright.runtime.cuda import capture

STREAM = 0x5500
_INFORMS = ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.c_void_p,) * 6)


class Gpu:
    """What compiled code reads of torch and the driver: tensors lie on GPU 0; `graph` and `status` are told."""

    def __init__(self, read: int) -> None:
        self.graph, self.status, self.asked = 0, 0, 0
        real = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(read)

        def tensor(x, out):
            status = real(x, out)
            ctypes.c_int32.from_address(out + 8).value = 2  # DLPack's number for a GPU
            return status

        def stream(_kind, _device, out):
            ctypes.c_int64.from_address(out).value = STREAM
            return 0

        def informs(handle, status, number, *_):
            assert handle == STREAM
            self.asked += 1
            ctypes.c_int32.from_address(status).value = 1 if self.graph else 0
            if self.graph:
                ctypes.c_uint64.from_address(number).value = self.graph
            return self.status

        word = ctypes.c_void_p
        self.functions = (
            ctypes.CFUNCTYPE(ctypes.c_int, word, word)(tensor),
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, word)(stream),
            _INFORMS(informs),
        )


@pytest.fixture
def gpu():
    """Compiled code that sees a GPU."""
    form.called((), {}, {})
    form._learn(torch.Tensor)
    functions = form._exchange_of(torch.Tensor)
    if form._code is None or functions is None:
        pytest.skip("forms are written down by Python here")
    made = Gpu(functions[0])
    tensor, stream, informs = (ctypes.cast(f, ctypes.c_void_p).value for f in made.functions)
    form._code._exchange(tensor, stream, id(torch.is_grad_enabled), informs)
    yield made
    form._code._exchange(*functions, id(torch.is_grad_enabled), 0)


def key(x):
    found, tensors, pointers = form.called((x,), {}, {})
    assert tensors == [x] and pointers == [x.data_ptr()]
    return found


def test_a_call_of_a_capture_is_like_none_outside_and_none_of_another_capture(gpu):
    x = torch.zeros(3, 5)
    outside = key(x)
    keys = set()
    for gpu.graph in (1, 2, 77):
        keys.add(key(x))
        assert key(x) in keys
    assert len(keys) == 3 and outside not in keys
    gpu.graph = 0
    assert key(x) == outside
    assert gpu.asked == 8


def test_where_the_driver_cannot_tell_a_call_is_as_outside(gpu):
    x = torch.zeros(3, 5)
    outside = key(x)
    gpu.graph, gpu.status = 5, 906
    assert key(x) == outside


def test_python_tells_the_same(monkeypatch):
    graph = 0

    @_INFORMS
    def informs(_handle, _status, number, *_):
        ctypes.c_uint64.from_address(number).value = graph
        return 0

    monkeypatch.setattr(capture, "_informs", lambda: informs)
    assert capture.number(STREAM) == 0
    assert capture.query() == ctypes.cast(informs, ctypes.c_void_p).value
    graph = 9
    assert capture.number(STREAM) == 9
    monkeypatch.setattr(capture, "_informs", lambda: None)
    assert (capture.number(STREAM), capture.query()) == (0, 0)


def test_a_captured_call_is_not_kept(monkeypatch):
    """Its scratch memory belongs to the graph, and is gone with it."""
    x = torch.zeros(3)
    met = form.Form((x,), {}, [("a form",), [x], [x.data_ptr()]])
    rebinding = rebind.Rebinding()
    monkeypatch.setattr(rebind, "rebound", lambda *_: "bound")
    monkeypatch.setattr(rebind.record, "recorded", lambda _: None)
    monkeypatch.setattr(form.Form, "captured", True)
    rebinding.keep(met, (), x)
    assert rebinding.known == {}
    monkeypatch.setattr(form.Form, "captured", False)
    rebinding.keep(met, (), x)
    assert rebinding.known == {("a form",): "bound"}
