"""Run kernels on operands that lie right behind, or right before, a page that may not be touched.

A program by itself, because a stray access ends the process; the last line it prints names the case.
"""

from __future__ import annotations

import ctypes
import faulthandler
import math
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "operators"), str(_HERE.parent.parent / "src")]

from cases import FLOATS  # noqa: E402
from compiled import Guarded, Run, machines  # noqa: E402
from drawn import BUILDERS, case  # noqa: E402

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
    """Four cases of every operator and vector width."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TILEWRIGHT_CACHE_DIR"] = folder
        for name in BUILDERS:
            for bits, machine in machines().items():
                for seed in range(2):
                    chosen = random.Random(f"{name} {bits} {seed}")
                    memory = AtTheEdge(seed, chosen.choice(("any", "rows")), low=seed % 2 == 1)
                    print(name, bits, seed, memory.layout, flush=True)
                    drawn = Run(case(drawing(chosen), name, memory, chosen.choice(FLOATS)), memory, machine)
                    drawn.check(drawn.kernel())
    print("all inside")


def drawing(chosen: random.Random) -> Any:
    """Draw from strategies that sample from a list, without hypothesis."""

    def draw(strategy: Any) -> Any:
        while hasattr(strategy, "wrapped_strategy"):
            strategy = strategy.wrapped_strategy
        return chosen.choice(list(strategy.elements)) if hasattr(strategy, "elements") else chosen.random() < 0.5

    return draw


if __name__ == "__main__":
    main()
