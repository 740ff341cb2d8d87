"""Launches on other pointers: written, followed and launched by compiled code in one call (`launch_ir`)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tilewright.runtime import builtin
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.launch_ir import LAUNCH_IR, SYMBOLS

Run = Callable[[list[int]], object]


def runner(
    call: driver.Call, stream: int, sources: Sequence[tuple[int, int, int]], maps: Sequence[tuple[int, int, int]]
) -> Run | None:
    """A function that launches `call` on other pointers on a stream; None where there is no compiled code for it.

    For each (address, n, bytes) of `sources` the word there takes the n-th pointer, moved by so many bytes; each map is
    (its address, where the address of its tensor is, that address when it was made).
    """
    launch = _launch()
    if launch is None:
        return None
    entry, config, kernel, parameters = call.addresses(stream)
    words = (entry, config, kernel, parameters, driver.address(driver.mover()), len(sources), len(maps))
    flat = [*words, *(n for source in sources for n in source), *(n for m in maps for n in m)]
    record = (ctypes.c_int64 * len(flat))(*flat)
    at = ctypes.addressof(record)

    def run(pointers: list[int], _kept: Any = record) -> None:
        status = launch(at, pointers)
        if status:
            call.again(status)

    return run


@cache
def _launch() -> Callable[[int, list[int]], int] | None:
    if not builtin.possible():
        return None
    return builtin.builtin(builtin.library(LAUNCH_IR, SYMBOLS), "tw_launch")


__all__ = ["Run", "runner"]
