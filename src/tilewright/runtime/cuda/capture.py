"""What the runtime does while somebody captures a CUDA graph: beside the capture, and never to its harm.

While a stream is captured, the driver refuses a thread whatever it cannot put into the graph (asking for an event,
loading a module, taking memory), and the capture is lost with it. By default it refuses that to all threads of the
process. Such calls are made `aside`: on nothing that is captured, by a thread that says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tilewright.machines.nvidia_driver import FIX, driver

_LOST = range(900, 909)
"""CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to CUDA_ERROR_CAPTURED_EVENT and WRONG_THREAD: all that captures can die of."""


@contextmanager
def aside() -> Iterator[None]:
    """Calls of the driver inside the `with` block take no part in a capture, of this thread or another, and harm none.

    They must not use a stream that is captured, nor wait for all streams of a device.
    """
    cu = driver()
    _, before = cu.cuThreadExchangeStreamCaptureMode(cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    try:
        yield
    finally:
        cu.cuThreadExchangeStreamCaptureMode(before)


def capturing(stream: int) -> bool:
    """Whether what is queued on a stream (its handle) goes into a graph, or would be refused because of one."""
    cu = driver()
    status, found = cu.cuStreamIsCapturing(stream)
    return bool(int(status)) or int(found) != int(cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)


@cache
def _informs() -> Any:
    """`cuStreamGetCaptureInfo_v2` (stream, status, number, three that may be null); None where there is no driver."""
    try:
        informs = ctypes.CDLL("libcuda.so.1").cuStreamGetCaptureInfo_v2
    except (OSError, AttributeError):
        return None
    informs.argtypes, informs.restype = (ctypes.c_void_p,) * 6, ctypes.c_int
    return informs


def query() -> int:
    """Where that function is, for compiled code; 0 where there is no driver."""
    informs = _informs()
    return 0 if informs is None else int(ctypes.cast(informs, ctypes.c_void_p).value or 0)


def number(stream: int) -> int:
    """Which capture of this process a stream (its handle) takes part in: no other has the same number; 0 for none."""
    informs = _informs()
    if informs is None:
        return 0
    status, found = ctypes.c_int(), ctypes.c_uint64()
    refused = informs(stream, ctypes.addressof(status), ctypes.addressof(found), None, None, None)
    return 0 if refused else int(found.value)


def advice(status: int) -> str:
    """What to do about a launch for which the driver gave `status`."""
    if status in _LOST:
        return (
            "a CUDA graph is being captured, and something was done that a graph cannot hold: while capturing, "
            "wait for nothing, read no value on the host, and leave torch's default stream alone"
        )
    return FIX


__all__ = ["advice", "aside", "capturing", "number", "query"]
