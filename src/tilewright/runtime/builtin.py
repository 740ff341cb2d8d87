"""Compiled code that Python calls as its own builtins: a twentieth of a microsecond, where ctypes takes half of one.

A function is `PyObject *(PyObject *self, PyObject *const *args, Py_ssize_t count)`; it holds the interpreter lock, so
that it may read any object.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from typing import Any

from tilewright.build.cache import cache_key, disk_cache
from tilewright.build.jit import Library, Target, add_symbol, compile_ir, compiler_version, load

_FASTCALL = 0x80


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_kept: list[Any] = []  # what builtins refer to lives as long as the process


@cache
def possible() -> bool:
    """Whether objects of this interpreter lie in memory as the code expects: CPython of 64 bits with its lock."""
    locked = not sysconfig.get_config_var("Py_GIL_DISABLED")
    return sys.implementation.name == "cpython" and locked and sys.maxsize > 2**32 and sys.byteorder == "little"


def library(text: str, symbols: tuple[str, ...]) -> Library:
    """The module of LLVM IR `text`, which calls `symbols` of the interpreter; compiled once for each machine."""
    for symbol in symbols:
        function = ctypes.cast(getattr(ctypes.pythonapi, symbol), ctypes.c_void_p)
        add_symbol(symbol, int(function.value or 0))
    target, store = Target.host(), disk_cache()
    key = cache_key(text, target.fingerprint, f"{compiler_version()} optimised")
    code = store.get(key, "o")
    if code is None:
        code = compile_ir(text, target, optimise=True)
        store.put(key, "o", code)
    return load(code)


def builtin(code: Library, symbol: str) -> Callable[..., Any]:
    """The function `symbol` of loaded code as a builtin."""
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    definition = _MethodDef(symbol.encode(), code.address(symbol), _FASTCALL, None)
    _kept.extend((code, definition))
    made: Callable[..., Any] = make(ctypes.addressof(definition), None, None)
    return made


def function(code: Library, symbol: str, *arguments: Any) -> Callable[..., Any]:
    """The function `symbol` of loaded code, with arguments of these ctypes, giving an int; the lock is held."""
    _kept.append(code)
    return ctypes.PYFUNCTYPE(ctypes.c_int, *arguments)(code.address(symbol))


__all__ = ["builtin", "function", "library", "possible"]
