"""Where a model's arrays lie: in the memory of the host, or in that of a GPU, behind one interface.

Arrays on the host are NumPy's, and begin on a cache line, as vector loads like it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError

CACHE_LINE = 64  # bytes; malloc alone gives 16, and every second AVX-512 load would then straddle two lines
Array = Any  # NumPy's, or DeviceArray: both have shapes, and views by slices, `reshape` and `transpose`
Launch = Callable[[], object]


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An uninitialised C-contiguous array on a cache line; pages become resident when first written."""
    element = np.dtype(dtype)
    size = math.prod(shape) * element.itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    skip = -raw.ctypes.data % CACHE_LINE
    return raw[skip : skip + size].view(element).reshape(shape)


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """As `aligned_empty`, filled with zeros."""
    out = aligned_empty(shape, dtype)
    out.fill(0)
    return out


class Letter(Protocol):
    """Values of arrays as they were at one point of the queue, on their way to the host."""

    def read(self) -> list[npt.NDArray[Any]]:
        """The values, once they are there."""
        ...


class Mailbox(Protocol):
    """A way to the host for a few arrays."""

    def post(self) -> Letter:
        """Send what the arrays hold once all that is queued has run; nobody waits."""
        ...


class Landing(Protocol):
    """A place on the host where values land that are looked at once."""

    def read(self, array: Array) -> npt.NDArray[Any]:
        """The values of an array, once all that is queued has run; the next read from here may overwrite them."""
        ...


class Memory(Protocol):
    """What models ask of the place that they run on. Passes and copies are queued and run in order."""

    @property
    def remote(self) -> bool:
        """Whether the host has to copy what it wants to see."""
        ...

    @property
    def grain(self) -> int:
        """Tokens by which a KV cache grows here."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An uninitialised array."""
        ...

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of zeros."""
        ...

    def holding(self, values: npt.NDArray[Any]) -> Array:
        """An array with these values; `values` itself where it can be used as it is."""
        ...

    def sealed(self, array: Array) -> Array:
        """The same array, which nobody writes to from now on."""
        ...

    def reuse(self, array: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of another shape and type in the first bytes of a contiguous one."""
        ...

    def put(self, array: Array, values: npt.ArrayLike) -> None:
        """Write values into an array."""
        ...

    def read(self, array: Array) -> npt.NDArray[Any]:
        """The values of an array; a view of them where that is possible."""
        ...

    def copy(self, target: Array, source: Array) -> None:
        """Copy an array to another one of its shape."""
        ...

    def recording(self) -> Any:
        """A backend of `tilewright.ops` that binds what it is given when it is settled; None to bind at once."""
        ...

    def run(self, launches: Sequence[Launch]) -> None:
        """Queue launches, in order."""
        ...

    def prepared(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one, for a pass that may run again: nothing that takes long is done for it."""
        ...

    def replayed(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one, for a pass that will run often."""
        ...

    def landing(self) -> Landing:
        """A place on the host for values that are looked at once, such as logits."""
        ...

    def mailbox(self, arrays: Sequence[Array]) -> Mailbox:
        """A way to the host for a few small arrays."""
        ...

    def wait(self) -> None:
        """Return once everything queued has run."""
        ...


class Host:
    """The memory of this process: NumPy's arrays, and passes that have run when they return."""

    remote = False
    grain = 256

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An uninitialised array."""
        return aligned_empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of zeros."""
        return aligned_zeros(shape, dtype)

    def holding(self, values: npt.NDArray[Any]) -> Array:
        """`values` itself."""
        return values

    def sealed(self, array: Array) -> Array:
        """The array itself."""
        return array

    def reuse(self, array: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of another shape and type in the first bytes of a contiguous one."""
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        return array.reshape(-1).view(np.uint8)[:wanted].view(dtype).reshape(shape)

    def put(self, array: Array, values: npt.ArrayLike) -> None:
        """Write values into an array."""
        array[...] = values

    def read(self, array: Array) -> npt.NDArray[Any]:
        """The array itself."""
        seen: npt.NDArray[Any] = array
        return seen

    def copy(self, target: Array, source: Array) -> None:
        """Copy an array to another one of its shape."""
        target[...] = source

    def recording(self) -> None:
        """Launches are bound at once."""

    def run(self, launches: Sequence[Launch]) -> None:
        """Run launches, in order."""
        for launch in launches:
            launch()

    def prepared(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one."""
        fixed = tuple(launches)
        return lambda: self.run(fixed)

    def replayed(self, launches: Sequence[Launch]) -> Launch:
        """The launches as one."""
        return self.prepared(launches)

    def landing(self) -> Landing:
        """The arrays themselves are read."""
        return self

    def mailbox(self, arrays: Sequence[Array]) -> Mailbox:
        """Copies, made when they are posted."""
        return _HostMailbox(arrays)

    def wait(self) -> None:
        """Nothing is ever queued."""


class _HostMailbox:
    def __init__(self, arrays: Sequence[Array]) -> None:
        self._arrays = tuple(arrays)

    def post(self) -> Letter:
        """Copies of the arrays."""
        return _HostLetter([a.copy() for a in self._arrays])


class _HostLetter:
    def __init__(self, values: list[npt.NDArray[Any]]) -> None:
        self._values = values

    def read(self) -> list[npt.NDArray[Any]]:
        """The copies."""
        return self._values


HOST = Host()


def memory_of(device: str) -> Memory:
    """The memory of `cpu`, `cuda` or `cuda:N`.

    Raises ArgumentError for another name, MachineError where there is no such GPU or none that kernels run on.
    """
    kind, _, number = device.partition(":")
    if device == "cpu":
        return HOST
    if kind != "cuda" or (device != "cuda" and not number.isdecimal()):
        raise ArgumentError(f"device is {device!r}; choose cpu, cuda, or cuda:N for GPU number N")
    from tilewright.runtime.cuda.gpu import Gpu  # a model on the cpu never pays for it

    return Gpu(int(number or 0))


__all__ = ["CACHE_LINE", "HOST", "Array", "Host", "Landing", "Launch", "Letter", "Mailbox", "Memory",
           "aligned_empty", "aligned_zeros", "memory_of"]  # fmt: skip
