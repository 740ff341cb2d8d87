"""Arrays on a GPU: strided views with as much of NumPy's interface as models use; the elements stay where they are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.errors import ArgumentError
from tilewright.runtime.buffer import Buffer

Part = int | slice


class DeviceArray:
    """`buffer` seen as an array: `shape`, `dtype` (NumPy's), views by slices, `reshape` and `transpose`."""

    __slots__ = ("tilewright_buffer",)

    def __init__(self, buffer: Buffer) -> None:
        self.tilewright_buffer = buffer

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self.tilewright_buffer.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        return np.dtype(self.tilewright_buffer.dtype.numpy)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * self.tilewright_buffer.dtype.bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        buffer = self.tilewright_buffer
        return f"DeviceArray({list(buffer.shape)}, {buffer.dtype}, {buffer.device})"

    def reshape(self, *shape: int) -> DeviceArray:
        """The same elements under another shape; ArgumentError where that would need a copy."""
        return DeviceArray(self.tilewright_buffer.reshape(shape))

    def transpose(self, *order: int) -> DeviceArray:
        """Dimensions in another order."""
        return DeviceArray(self.tilewright_buffer.permute(order))

    def __getitem__(self, key: Part | tuple[Part, ...]) -> DeviceArray:
        """A view of single positions and of slices of step 1, one for each leading dimension."""
        buffer, dim = self.tilewright_buffer, 0
        for part in key if isinstance(key, tuple) else (key,):
            size = buffer.shape[dim]
            if isinstance(part, slice):
                start, stop, step = part.indices(size)
                if step != 1:
                    raise ArgumentError(f"slices on a GPU have step 1, not {step}")
                buffer = buffer.narrow(dim, start, max(0, stop - start))
                dim += 1
            else:
                buffer = buffer.select(dim, part + size if part < 0 else part)
        return DeviceArray(buffer)


__all__ = ["DeviceArray"]
