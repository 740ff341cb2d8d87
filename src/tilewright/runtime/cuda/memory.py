"""Memory on a GPU: what launches own, from torch's allocator where torch is in use, and from the driver."""

from __future__ import annotations

import sys
from typing import Any

from tilewright.errors import OutOfDeviceMemory
from tilewright.runtime.cuda import capture, driver, streams


class Allocation:
    """Bytes on a device, from the driver; given back when nothing holds them any longer."""

    __slots__ = ("bytes", "device", "pointer")

    def __init__(self, size: int, device: int) -> None:
        """At least `size` bytes, aligned to 256; OutOfDeviceMemory where there is no room."""
        self.pointer, self.device, self.bytes = 0, device, max(size, 1)
        cu = driver.driver()
        with driver.inside(device), capture.aside():
            status, pointer = cu.cuMemAlloc(self.bytes)
        if status == cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise OutOfDeviceMemory(
                f"GPU {device} has {free_bytes(device) / 2**20:.0f} MiB left and {self.bytes / 2**20:.0f} MiB more are "
                "needed; end other programs on it, or take a smaller model, max_context or max_batch"
            )
        self.pointer = int(driver.checked((status, pointer), f"allocating {self.bytes} bytes on GPU {device}"))

    def data_ptr(self) -> int:
        """The address of the first byte."""
        return self.pointer

    def __del__(self) -> None:
        if self.pointer and not sys.is_finalizing():
            with driver.inside(self.device), capture.aside():
                driver.driver().cuMemFree(self.pointer)


def free_bytes(device: int) -> int:
    """Bytes that are free on a device now."""
    with driver.inside(device):
        free, _ = driver.checked(driver.driver().cuMemGetInfo(), f"asking GPU {device} for its free memory")
    return int(free)


class Shared:
    """Scratch memory that launches share which follow one another on a stream: none reads what another left.

    Counters are cleared once, and each kernel leaves its own at zero, so that those are shared by launches of one
    kernel only.
    """

    def __init__(self, device: int) -> None:
        self._device = device
        self._known: dict[tuple[int, int], Any] = {}

    def take(self, size: int, zeroed: bool, kernel: int) -> Any:
        """At least `size` bytes for a launch of `kernel` (its handle)."""
        room = 1 << max(size - 1, 255).bit_length()
        key = (room, kernel if zeroed else 0)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = device_memory(room, self._device, zeroed=zeroed)
        return found


def device_memory(size: int, device: int, *, zeroed: bool) -> Any:
    """At least `size` bytes on a device, as something with a `data_ptr()`; OutOfDeviceMemory where there is none left.

    What torch gives while a graph is captured belongs to that graph, is cleared by it, and lives as long as it does;
    what the driver gives then lives for good. Torch clears memory on a stream of its own: who has named another stream
    for its launches gets what the driver has cleared.
    """
    torch = sys.modules.get("torch")
    if torch is not None and not streams.is_named() and torch.cuda.is_available():
        make = torch.zeros if zeroed else torch.empty
        try:
            return make(max(size, 1), dtype=torch.uint8, device=f"cuda:{device}")
        except torch.OutOfMemoryError:
            raise OutOfDeviceMemory(f"GPU {device} has no {size} bytes left for scratch; free some") from None
    made = Allocation(size, device)
    with driver.inside(device), capture.aside():
        if zeroed:
            _clear(made)
        if capture.capturing(streams.stream_of(device)):
            _of_graphs.append(made)
    return made


_of_graphs: list[Allocation] = []


def _clear(memory: Allocation) -> None:
    """Zero it now, whatever other streams do or are captured for."""
    cu = driver.driver()
    stream = driver.checked(cu.cuStreamCreate(cu.CUstream_flags.CU_STREAM_NON_BLOCKING), "making a stream")
    try:
        driver.checked(cu.cuMemsetD8Async(memory.pointer, 0, memory.bytes, stream), "clearing scratch memory")
        driver.checked(cu.cuStreamSynchronize(stream), "waiting for cleared memory")
    finally:
        cu.cuStreamDestroy(stream)


__all__ = ["Allocation", "Shared", "device_memory", "free_bytes"]
