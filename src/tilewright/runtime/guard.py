"""Guard pages: memory whose first or last byte touches a page that may not be accessed, so that a stray access faults.

A block lies between two forbidden pages. It is either `high`, its last byte before the page behind it, or low, its
first byte after the page in front; what is left of its pages is filled with a pattern that `stray` compares.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import MachineError

PAGE = mmap.PAGESIZE
PATTERN = 0xA5
_NOTHING, _READ, _READ_WRITE = 0, 1, 3
_PRIVATE_ANONYMOUS = 0x22 if os.uname().sysname == "Linux" else 0x1002
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Guarded:
    """`nbytes` of zeroed memory between forbidden pages; `free` gives it back (no array on it may live on)."""

    def __init__(self, nbytes: int, high: bool = True) -> None:
        self.nbytes = nbytes
        self._pages = -(-nbytes // PAGE) * PAGE
        self._base = _libc.mmap(None, self._pages + 2 * PAGE, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        if self._base in (None, _FAILED):
            raise MachineError(f"no memory for a guarded block of {nbytes} bytes: {os.strerror(ctypes.get_errno())}")
        first = self._base + PAGE
        self.address = first + self._pages - nbytes if high else first
        """Of the first byte."""
        before, behind = self.address - first, first + self._pages - self.address - nbytes
        self._slack = [_bytes_at(first, before), _bytes_at(self.address + nbytes, behind)]
        for slack in self._slack:
            slack[:] = PATTERN
        for page in (self._base, first + self._pages):
            self._protect(page, PAGE, _NOTHING)

    def array(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The block as a row-major array; `shape` and `dtype` must take just its bytes."""
        if math.prod(shape) * np.dtype(dtype).itemsize != self.nbytes:
            raise ValueError(f"{list(shape)} of {dtype} is not {self.nbytes} bytes")
        return _bytes_at(self.address, self.nbytes).view(dtype).reshape(tuple(shape))

    def stray(self) -> str | None:
        """What was written beside the block, on the pages that it has in part; None if nothing was."""
        for slack, where in zip(self._slack, ("before its first", "after its last"), strict=True):
            changed = np.flatnonzero(slack != PATTERN)
            if changed.size:
                return f"{changed.size} bytes were written {where} byte"
        return None

    def read_only(self, wanted: bool = True) -> None:
        """Whether a write faults."""
        if self._pages:
            self._protect(self._base + PAGE, self._pages, _READ if wanted else _READ_WRITE)

    def where(self, address: int) -> str | None:
        """An address near the block in words: "12 bytes after its last byte"; None for one that is nowhere near."""
        if not self._base <= address < self._base + self._pages + 2 * PAGE:
            return None
        if address < self.address:
            return f"{self.address - address} bytes before its first byte"
        if address < self.address + self.nbytes:
            return f"at its byte {address - self.address}"
        return f"{address - (self.address + self.nbytes) + 1} bytes after its last byte"

    def free(self) -> None:
        """Unmap the block."""
        self._slack = []
        _libc.munmap(self._base, self._pages + 2 * PAGE)

    @staticmethod
    def _protect(address: int, size: int, access: int) -> None:
        if _libc.mprotect(address, size, access):
            raise MachineError(f"pages cannot be protected: {os.strerror(ctypes.get_errno())}")


def _bytes_at(address: int, size: int) -> npt.NDArray[np.uint8]:
    if not size:
        return np.empty(0, np.uint8)
    found: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    return found


__all__ = ["PAGE", "Guarded"]
