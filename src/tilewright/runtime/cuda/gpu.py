"""A GPU as a place to run models on: arrays in its memory, copies in and out, passes replayed as graphs.

Everything goes through the driver, on one stream of its own, so that models need no torch; torch uses the same
context, and its tensors and these arrays may meet in one call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError
from tilewright.language.dtypes import dtype as to_dtype
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import at_once, debug, dispatch, driver, streams, watch
from tilewright.runtime.cuda.arrays import DeviceArray
from tilewright.runtime.cuda.memory import Allocation, Shared
from tilewright.runtime.cuda.passes import Batch, Graph
from tilewright.runtime.cuda.recording import Recording

Launch = Callable[[], object]


class Gpu:
    """GPU number `device`: its memory and one stream on which all copies and passes follow one another."""

    remote = True
    grain = 1024  # tokens by which a KV cache grows: to grow it is to capture passes again

    def __init__(self, device: int = 0) -> None:
        """MachineError where there is no driver, no GPU of that number, or one older than Ampere."""
        self.device = device
        self.machine = dispatch.machine(device)
        self._shared = Shared(device)
        cu = driver.driver()
        with driver.inside(device):
            flags = cu.CUstream_flags.CU_STREAM_NON_BLOCKING
            self.stream = driver.checked(cu.cuStreamCreate(flags), f"making a stream on GPU {device}")

    @property
    def name(self) -> str:
        """As operands name it: `cuda:0`."""
        return f"cuda:{self.device}"

    # --------------------------------------------------------------------------------------------- arrays
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An uninitialised array; OutOfDeviceMemory where there is no room."""
        element = to_dtype(np.dtype(dtype))
        return _laid_out(Allocation(math.prod(shape) * element.bytes, self.device), shape, dtype, self.name)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An array of zeros."""
        made = self.empty(shape, dtype)
        self.put(made, np.zeros(shape, dtype))
        return made

    def holding(self, values: npt.NDArray[Any]) -> DeviceArray:
        """An array with these values."""
        made = self.empty(values.shape, values.dtype)
        self.put(made, values)
        return made

    def sealed(self, array: DeviceArray) -> DeviceArray:
        """The same array, which nobody writes to from now on: kernels may read it before their turn comes."""
        self.wait()
        return DeviceArray(replace(array.tilewright_buffer, writable=False))

    def reuse(self, array: DeviceArray, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """An array of another shape and type in the first bytes of a contiguous one."""
        buffer = array.tilewright_buffer
        return _laid_out(buffer.owner, shape, dtype, self.name)

    # --------------------------------------------------------------------------------------------- copies
    def put(self, array: DeviceArray, values: npt.ArrayLike) -> None:
        """Write `values` (converted, and broadcast to its shape) into a contiguous array, after all that is queued."""
        source = np.ascontiguousarray(np.broadcast_to(np.asarray(values).astype(array.dtype, copy=False), array.shape))
        _flat(array)
        if source.nbytes:
            small, pointer = source.nbytes <= at_once.SMALL, array.tilewright_buffer.pointer
            copy = at_once.copy_in if small else driver.driver().cuMemcpyHtoDAsync
            with driver.inside(self.device):
                driver.checked(copy(pointer, source.ctypes.data, source.nbytes, int(self.stream)), "copying to a GPU")
            if not small:
                self.wait()

    def read(self, array: DeviceArray) -> npt.NDArray[Any]:
        """The values of a contiguous array, once all that is queued has run."""
        out = np.empty(array.shape, array.dtype)
        self.fetch(array, out, driver.driver().cuMemcpyDtoHAsync)
        return out

    def fetch(self, array: DeviceArray, out: npt.NDArray[Any], copy: Callable[..., Any]) -> None:
        """The same into an array of the host of the same shape and type, by a call of the driver."""
        _flat(array)
        if out.nbytes:
            pointer = array.tilewright_buffer.pointer
            with driver.inside(self.device):
                driver.checked(copy(out.ctypes.data, pointer, out.nbytes, int(self.stream)), "copying from a GPU")
        self.wait()

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy an array to another one of its shape; both are rows of equal length, each contiguous in itself."""
        (rows, run, pitch), (_, _, source_pitch) = _as_rows(target), _as_rows(source)
        if not rows * run:
            return
        cu = driver.driver()
        box = cu.CUDA_MEMCPY2D()
        box.srcMemoryType = box.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
        box.srcDevice, box.srcPitch = source.tilewright_buffer.pointer, source_pitch
        box.dstDevice, box.dstPitch = target.tilewright_buffer.pointer, pitch
        box.WidthInBytes, box.Height = run, rows
        with driver.inside(self.device):
            driver.checked(cu.cuMemcpy2DAsync(box, self.stream), "copying on a GPU")

    def landing(self) -> Landing:
        """A place on the host for values that are looked at once, such as logits."""
        return Landing(self)

    def mailbox(self, arrays: Sequence[DeviceArray]) -> Mailbox:
        """A way for small arrays to the host that nobody waits for until the values are wanted."""
        return Mailbox(self, arrays)

    # --------------------------------------------------------------------------------------------- running
    def recording(self) -> Recording:
        """What stands in for kernels while a pass is recorded."""
        return Recording(self.device, self._shared)

    def run(self, launches: Sequence[Launch]) -> None:
        """Queue launches, in order."""
        self._queue(launches)
        watch.tell(launches)

    def _queue(self, launches: Sequence[Launch]) -> None:
        with driver.inside(self.device), streams.on(int(self.stream)):
            if debug.times_are_wanted():
                debug.run_timed(launches, self.stream)
                return
            for launch in launches:
                launch()

    def prepared(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one call, which compiled code queues one by one; Python does from DEBUG=2 on."""
        if debug.times_are_wanted():
            return partial(self.run, tuple(launches))
        made = Batch(self.device, int(self.stream), launches)
        made.follow()
        return made

    def replayed(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one graph: what they cost the host is paid here, once, and again after a swap.

        From DEBUG=2 on they are queued one by one.
        """
        if debug.times_are_wanted():
            return partial(self.run, tuple(launches))
        made = Graph(self.device, int(self.stream), launches)
        made.follow()
        return made

    def wait(self) -> None:
        """Return once everything queued has run."""
        with driver.inside(self.device):
            driver.checked(driver.driver().cuCtxSynchronize(), f"waiting for GPU {self.device}")


class Landing:
    """Pinned memory of the host where values land, each over the last.

    The GPU writes it itself; to any other memory the driver copies once more.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._room = gpu, np.empty(0, np.uint8)

    def read(self, array: DeviceArray) -> npt.NDArray[Any]:
        """The values of a contiguous array, once all that is queued has run; the next read overwrites them."""
        size = array.nbytes
        if size > self._room.nbytes:  # what it had before stays, for whoever looks at it: less than all together
            with driver.inside(self._gpu.device):
                self._room = _pinned((1 << (size - 1).bit_length(),), np.dtype(np.uint8))
        out = self._room[:size].view(array.dtype).reshape(array.shape)
        self._gpu.fetch(array, out, at_once.copy_out)
        return out


class Mailbox:
    """Copies of a few small arrays to pinned memory, several under way at once."""

    _SLOTS = 4

    def __init__(self, gpu: Gpu, arrays: Sequence[DeviceArray]) -> None:
        self._gpu, self._arrays = gpu, tuple(arrays)
        self._slots = cycle([self._slot() for _ in range(self._SLOTS)])

    def _slot(self) -> tuple[Any, list[npt.NDArray[Any]]]:
        cu = driver.driver()
        with driver.inside(self._gpu.device):
            event = driver.checked(cu.cuEventCreate(cu.CUevent_flags.CU_EVENT_DISABLE_TIMING), "making an event")
            return event, [_pinned(a.shape, a.dtype) for a in self._arrays]

    def post(self) -> Letter:
        """Queue copies of what the arrays will hold at this point; at most four letters may be unread."""
        cu, (event, places) = driver.driver(), next(self._slots)
        with driver.inside(self._gpu.device):
            for array, place in zip(self._arrays, places, strict=True):
                pointer = array.tilewright_buffer.pointer
                copy = at_once.copy_out(place.ctypes.data, pointer, place.nbytes, int(self._gpu.stream))
                driver.checked(copy, "copying from a GPU")
            driver.checked(cu.cuEventRecord(event, self._gpu.stream), "recording an event")
        return Letter(self._gpu.device, event, places)


class Letter:
    """Values on their way to the host."""

    __slots__ = ("_device", "_event", "_places")

    def __init__(self, device: int, event: Any, places: list[npt.NDArray[Any]]) -> None:
        self._device, self._event, self._places = device, event, places

    def read(self) -> list[npt.NDArray[Any]]:
        """The values, once they have come; in memory that a later letter uses again."""
        with driver.inside(self._device):
            driver.checked(driver.driver().cuEventSynchronize(self._event), "waiting for a GPU")
        return self._places


def _laid_out(owner: Any, shape: tuple[int, ...], dtype: npt.DTypeLike, device: str) -> DeviceArray:
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return DeviceArray(Buffer(owner.data_ptr(), tuple(shape), strides, to_dtype(np.dtype(dtype)), device, owner))


def _as_rows(array: DeviceArray) -> tuple[int, int, int]:
    """(rows, bytes of each, bytes from one to the next); ArgumentError for an array of another kind."""
    buffer, run, dims = array.tilewright_buffer, 1, list(range(len(array.shape)))
    while dims and (buffer.shape[dims[-1]] == 1 or buffer.strides[dims[-1]] == run):
        run *= buffer.shape[dims.pop()]
    rest = [d for d in dims if buffer.shape[d] != 1]
    if len(rest) > 1:
        raise ArgumentError(f"array of shape {list(array.shape)} and strides {list(buffer.strides)} is no set of rows")
    width = buffer.dtype.bytes
    rows, pitch = (buffer.shape[rest[0]], buffer.strides[rest[0]] * width) if rest else (1, run * width)
    return rows, run * width, max(pitch, run * width)


def _flat(array: DeviceArray) -> None:
    rows, run, pitch = _as_rows(array)
    if rows > 1 and run != pitch:
        raise ArgumentError(f"array of shape {list(array.shape)} is not contiguous; copy it first")


def _pinned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An array in host memory that a GPU writes to directly; it lives as long as the process."""
    size = max(1, math.prod(shape) * dtype.itemsize)
    cu = driver.driver()
    address = int(driver.checked(cu.cuMemHostAlloc(size, 0), f"allocating {size} bytes of pinned memory"))
    raw = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return raw[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


__all__ = ["Gpu", "Landing", "Letter", "Mailbox"]
