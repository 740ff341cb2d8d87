"""Calls of the driver that return at once, made without giving up the interpreter.

A thread that gives it up for a call has to wait for it afterwards, for as long as another thread computes: that of a
learner, say. A request makes a dozen such calls for each part of its prompt; so it gives the interpreter up where it
waits for the GPU, and nowhere else.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from tilewright.machines.nvidia_driver import driver

_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuCtxPushCurrent_v2": (ctypes.c_void_p,),
    "cuCtxPopCurrent_v2": (ctypes.c_void_p,),
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
}

SMALL = 1 << 16
"""Bytes: of pageable memory the driver takes over so many before it returns."""


@cache
def _function(name: str) -> Any:
    driver()
    found = getattr(ctypes.PyDLL("libcuda.so.1"), name)
    found.argtypes, found.restype = _ARGUMENTS[name], ctypes.c_int
    return found


def _answer(status: int) -> tuple[Any]:
    """As cuda-bindings give it."""
    return (driver().CUresult(status),)


def push(context: int) -> tuple[Any]:
    """Make a context (its handle) current for this thread, above what was."""
    return _answer(_function("cuCtxPushCurrent_v2")(context))


def pop() -> tuple[Any]:
    """What was current before is so again."""
    return _answer(_function("cuCtxPopCurrent_v2")(ctypes.byref(ctypes.c_void_p())))


def copy_in(target: int, source: int, size: int, stream: int) -> tuple[Any]:
    """Queue a copy to a GPU, of at most SMALL bytes of the host that may change then, or of pinned ones."""
    return _answer(_function("cuMemcpyHtoDAsync_v2")(target, source, size, stream))


def copy_out(target: int, source: int, size: int, stream: int) -> tuple[Any]:
    """Queue a copy from a GPU to pinned memory: to any other it would wait, and nobody else could go on."""
    return _answer(_function("cuMemcpyDtoHAsync_v2")(target, source, size, stream))


__all__ = ["SMALL", "copy_in", "copy_out", "pop", "push"]
