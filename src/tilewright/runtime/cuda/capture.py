"""What the runtime does while somebody captures a CUDA graph: beside the capture, and never to its harm.

While a stream is captured, the driver refuses a thread whatever it cannot put into the graph (asking for an event,
loading a module, taking memory), and the capture is lost with it. By default it refuses that to all threads of the
process. Such calls are made `aside`: on nothing that is captured, by a thread that says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


def advice(status: int) -> str:
    """What to do about a launch for which the driver gave `status`."""
    if status in _LOST:
        return (
            "a CUDA graph is being captured, and something was done that a graph cannot hold: while capturing, "
            "wait for nothing, read no value on the host, and leave torch's default stream alone"
        )
    return FIX


__all__ = ["advice", "aside", "capturing"]
