"""Run kernels on operands that lie right behind, or right before, a page that may not be touched.

A program by itself, because a stray access ends the process; the last line it prints names the case.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "operators"), str(_HERE.parent.parent / "src")]

from compiled import Guarded, Run, machines
from drawn import BUILDERS, case, elements

_PAGE = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_READ_WRITE, _PRIVATE_ANONYMOUS, _NOTHING = 3, 0x22, 0


class AtTheEdge(Guarded):
    """Arrays without gaps, whose first byte follows a forbidden page or whose last byte precedes one."""

    def __init__(self, seed: int, layout: str, low: bool) -> None:
        super().__init__(seed, layout)
        self.low = low

    def laid_out(self, values: Any) -> Any:
        order = self._order(values.ndim)
        room = self._room([values.shape[i] for i in order], values.dtype)
        view = room.transpose(np.argsort(order)) if values.ndim else room
        view[...] = values
        return view

    def _room(self, shape: list[int], kind: Any) -> Any:
        used = math.prod(shape) * kind.itemsize
        size = (-(-used // _PAGE) + 2) * _PAGE
        base = _libc.mmap(None, size, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
        for page in (base, base + size - _PAGE):
            assert _libc.mprotect(page, _PAGE, _NOTHING) == 0
        first = base + _PAGE if self.low else base + size - _PAGE - used
        if not used:
            return np.empty(shape, kind)
        return np.frombuffer((ctypes.c_uint8 * used).from_address(first), np.uint8).view(kind).reshape(shape)


def main() -> None:
    """Two cases of every operator and vector width."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TILEWRIGHT_CACHE_DIR"] = folder
        for name in BUILDERS:
            for bits in machines():
                run_cases(name, bits)
    print("all inside")


def run_cases(name: str, bits: str) -> None:
    @settings(max_examples=2, deadline=None, derandomize=True, database=None)
    @given(st.data(), st.integers(0, 99), st.sampled_from(("any", "rows")), st.booleans(), elements)
    def check(data: Any, seed: int, layout: str, low: bool, kind: Any) -> None:
        print(name, bits, seed, layout, low, kind, flush=True)
        memory = AtTheEdge(seed, layout, low)
        drawn = Run(case(data.draw, name, memory, kind), memory, machines()[bits])
        drawn.check(drawn.kernel())

    check()


if __name__ == "__main__":
    main()
