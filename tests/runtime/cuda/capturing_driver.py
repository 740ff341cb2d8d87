"""A CUDA driver that is not there, as far as captures go: what it refuses while a graph is captured."""

from __future__ import annotations

import enum
from types import SimpleNamespace

GLOBAL, THREAD_LOCAL, RELAXED = range(3)


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NOT_READY = 600
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CapturingDriver:
    """Streams that may be captured, by this thread or `elsewhere`; events; and what may not be asked meanwhile.

    A call that the capture does not allow is refused and invalidates all captures, as cuThreadExchangeStreamCaptureMode
    of the driver's manual says. `done` is what else was called.
    """

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_RELAXED=RELAXED)
    CUstreamCaptureStatus = SimpleNamespace(CU_STREAM_CAPTURE_STATUS_NONE=0)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    CUresult = Result

    def __init__(self) -> None:
        self.mode = GLOBAL
        self.captured: dict[int, int] = {}  # streams: 1 while captured, 2 once that is invalid
        self.elsewhere = False  # whether another thread captures in the global mode
        self.passed: set[int] = set()
        self.inside_a_graph: set[int] = set()
        self.done: list[str] = []
        self._made = 100

    @property
    def lost(self) -> bool:
        return 2 in self.captured.values()

    def _unsafe(self, what: str) -> Result:
        self.done.append(what)
        if self.mode == RELAXED or not (self.captured or self.elsewhere):
            return Result.CUDA_SUCCESS
        self.captured = dict.fromkeys(self.captured or {-1: 1}, 2)
        return Result.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED

    def cuThreadExchangeStreamCaptureMode(self, mode):
        before, self.mode = self.mode, mode
        return Result.CUDA_SUCCESS, before

    def cuStreamIsCapturing(self, stream):
        return Result.CUDA_SUCCESS, self.captured.get(stream, 0)

    def cuEventCreate(self, _flags):
        self._made += 1
        return self._unsafe("make"), self._made

    def cuEventRecord(self, event, stream):
        self.done.append("record")
        if stream in self.captured:
            self.inside_a_graph.add(event)
        return (Result.CUDA_SUCCESS,)

    def cuEventQuery(self, event):
        status = self._unsafe("query")
        if event in self.inside_a_graph:
            return (Result.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,)
        return (status or (Result.CUDA_SUCCESS if event in self.passed else Result.CUDA_ERROR_NOT_READY),)

    def cuEventElapsedTime(self, _start, _stop):
        return Result.CUDA_SUCCESS, 0.25

    def cuStreamCreate(self, _flags):
        self._made += 1
        return Result.CUDA_SUCCESS, self._made

    def cuStreamDestroy(self, _stream):
        return (Result.CUDA_SUCCESS,)

    def cuStreamSynchronize(self, stream):
        assert stream not in self.captured
        return (self._unsafe("wait"),)

    def cuMemsetD8Async(self, _pointer, _value, _bytes, stream):
        assert stream not in self.captured
        return (Result.CUDA_SUCCESS,)

    def cuMemAlloc(self, _bytes):
        return self._unsafe("allocate"), 4096

    def cuMemFree(self, _pointer):
        return (self._unsafe("free"),)

    def cuModuleLoadData(self, _cubin):
        return self._unsafe("load"), 1

    def cuModuleGetFunction(self, _module, _entry):
        return Result.CUDA_SUCCESS, 2

    def cuFuncSetAttribute(self, _function, _attribute, _value):
        return (Result.CUDA_SUCCESS,)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, _function, _threads, _shared):
        return Result.CUDA_SUCCESS, 1
