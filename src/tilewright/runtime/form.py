"""The form of a call: everything that its binding depends on but where memory lies.

Which function, options and scalars, and of each tensor its library, device, dtype, shape, strides and alignment. On a
GPU also the stream, since a launch has scratch memory of its own, and the graph that the stream is captured for, if
any. Compiled code writes the form down in a fifth of the time that Python takes (`form_ir`); Python does where that
code has not been taught a type, or cannot be used.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tilewright.errors import TilewrightError
from tilewright.runtime import form_ir
from tilewright.runtime.cuda import capture

_LINE = 64
_CPU = -1
_PLAIN = {
    type(None): form_ir.NOTHING, bool: form_ir.WHOLE, int: form_ir.WHOLE, float: form_ir.REAL, str: form_ir.TEXT,
}  # fmt: skip
_torch_kinds: set[type] = set()
_context = 0


def forget() -> None:
    """Let no form be equal to an earlier one: kernels that are in use, or what runs them, have been replaced."""
    global _context
    _context += 1
    if _code is not None:
        _code.context(_context)


def is_torch_kind(kind: type) -> bool:
    """Whether tensors of this very type are torch's own, as forms have met them."""
    return kind in _torch_kinds


class Form:
    """The form of a call; `key` is None where memory cannot be told from the rest (views, other devices).

    `tensors` are the call's in their order, `pointers` where they begin, `asks` is whether one asks for a gradient.
    """

    __slots__ = ("_device", "asks", "key", "pointers", "tensors")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any], told: list[Any] | None = None) -> None:
        """As compiled code `told` it (see `called`), or as it tells it now; else as Python finds it."""
        key, self.tensors, self.pointers = told or called(args, kwargs, {})
        self.key: Hashable = key
        self.asks = key is not None and key[0] == 1
        if key is None:
            self._in_python(args, kwargs)

    @property
    def recorded(self) -> bool:
        """Whether autograd has to know of the call: an operand asks for a gradient, and gradients are on."""
        return self.asks and _gradients_are_on()()

    @property
    def on_gpu(self) -> bool:
        """Whether the tensors lie on a GPU, where the host does not read what they hold."""
        return bool(self.tensors) and getattr(self.tensors[0], "is_cuda", False)

    @property
    def captured(self) -> bool:
        """Whether the call becomes a part of a CUDA graph, to which its scratch memory belongs then."""
        return self.on_gpu and capture.number(current_stream()(self.tensors[0].get_device())) != 0

    def _in_python(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        key: list[Any] = [_context, len(args), *kwargs]
        self._device = _CPU
        self.asks = False
        described = self._described(args, key) and (not kwargs or self._described(kwargs.values(), key))
        ids = [id(x) for x in self.tensors]
        if len(set(ids)) < len(ids):  # one tensor in two places
            key += map(ids.index, ids)
        if self._device != _CPU:
            stream = current_stream()(self._device)
            key += (stream, capture.number(stream))
        self.key = tuple(key) if described else None
        if not described:
            self.asks = any(getattr(x, "requires_grad", False) for x in (*args, *kwargs.values()))

    def _described(self, values: Iterable[Any], key: list[Any]) -> bool:
        """Each value adds its type, then a fixed number of facts, so that no two calls give the same key."""
        for x in values:
            kind = type(x)
            if kind in _torch_kinds:
                try:
                    pointer, strides = x.data_ptr(), x.stride()
                except RuntimeError:  # no strided memory
                    return False
                self._device = device = x.get_device()
                if device < 0 and not x.is_cpu:
                    return False
                if x.requires_grad:
                    self.asks = True
                place = pointer % _LINE == 0 if device < 0 else pointer & -pointer & (2 * _LINE - 1)
                key += (kind, x.dtype, x.shape, strides, device, place)
            elif kind is np.ndarray:
                pointer = x.__array_interface__["data"][0]
                key += (kind, x.dtype, x.shape, x.strides, x.flags.num, pointer % _LINE == 0)
            elif kind in _PLAIN:
                key += (kind, x if x or kind is not float else repr(x))  # -0.0 equals 0.0
                continue
            elif kind is tuple:
                key += (kind, len(x))
                if not self._described(x, key):
                    return False
                continue
            else:
                _learn(kind)  # for the next call
                return False
            self.tensors.append(x)
            self.pointers.append(pointer)
        return True


@cache
def _gradients_are_on() -> Callable[[], bool]:
    import torch

    on: Callable[[], bool] = torch.is_grad_enabled
    return on


@cache
def current_stream() -> Callable[[int], int]:
    """From a device to the handle of torch's current stream on it, without making a Stream object."""
    import torch

    found: Callable[[int], int] = torch._C._cuda_getCurrentRawStream
    return found


def _learn(kind: type) -> None:
    """Remember torch's own tensors; subclasses may hold no memory, or what only they can explain."""
    if kind.__module__.partition(".")[0] == "torch" and kind.__name__ in ("Tensor", "Parameter"):
        _torch_kinds.add(kind)
        if _code is not None:
            _code.learn_torch(kind)


# ------------------------------------------------------------------------------------------ compiled
_Call = Callable[[tuple[Any, ...], dict[str, Any], dict[Any, Any]], Any]
_code: _Compiled | None = None
_ASKS = "requires_grad"


class _Compiled:
    """The code of `call_ir`, and what it has been taught."""

    def __init__(self) -> None:
        from tilewright.runtime import builtin, call_ir  # with the first call, and LLVM with them

        code = builtin.library(call_ir.call_ir(), call_ir.SYMBOLS)
        word, number = ctypes.c_void_p, ctypes.c_int64
        builtin.function(code, "tw_form_constants", word, word, word)(id(None), id(True), id(_ASKS))
        builtin.function(code, "tw_call_types", word, word)(id(tuple), id(np.ndarray))
        self._teach = builtin.function(code, "tw_form_teach", word, number)
        self._exchange = builtin.function(code, "tw_form_exchange", word, word, word, word)
        self.context = builtin.function(code, "tw_form_context", number)
        self.call: _Call = builtin.builtin(code, "tw_call")
        self.context(_context)
        for kind, what in (*_PLAIN.items(), (tuple, form_ir.SEVERAL)):
            self._teach(id(kind), what)
        if _reads_arrays():
            self._teach(id(np.ndarray), form_ir.NUMPY)

    def learn_torch(self, kind: type) -> None:
        """Read torch's tensors of this type too, where this torch exports how."""
        functions = _exchange_of(kind)
        if functions is not None:
            knows_gpus = getattr(sys.modules.get("torch"), "version", None)
            asks = capture.query() if getattr(knows_gpus, "cuda", None) else 0
            self._exchange(*functions, id(_gradients_are_on()), asks)
            self._teach(id(kind), form_ir.TORCH)


def _compile(args: tuple[Any, ...], kwargs: dict[str, Any], known: dict[Any, Any]) -> Any:
    """The first call of a process: what serves all calls from now on is compiled, or left to Python."""
    global called, _code
    from tilewright.runtime import builtin

    if builtin.possible():
        try:
            _code = _Compiled()
        except (TilewrightError, OSError, AttributeError):
            _code = None  # Python's way is slower, and right
    called = _told_nothing if _code is None else _code.call
    return called(args, kwargs, known)


def _told_nothing(args: tuple[Any, ...], kwargs: dict[str, Any], known: dict[Any, Any]) -> Any:
    return [None, [], []]


called: _Call = _compile
"""`called(args, kwargs, known)`: the result, if `known` has a record for the call's form, else what `Form` takes."""


def compiled() -> bool:
    """Whether calls may be run from records."""
    return _code is not None


def _reads_arrays() -> bool:
    """Whether arrays of this NumPy lie in memory as the code reads them."""
    x = np.zeros((3, 5), np.float32)[1:, ::2]
    words = (ctypes.c_int64 * 10).from_address(id(x))
    if (words[2], words[3] & 0xFFFFFFFF) != (x.__array_interface__["data"][0], 2) or words[7] != id(x.dtype):
        return False
    sizes, strides = ((ctypes.c_int64 * 2).from_address(words[n]) for n in (4, 5))
    number = ctypes.c_int32.from_address(id(x.dtype) + 28).value
    flags = words[8] & 0xFFFFFFFF
    return (tuple(sizes), tuple(strides), number, flags) == (x.shape, x.strides, x.dtype.num, x.flags.num)


def _exchange_of(kind: type) -> tuple[int, int] | None:
    """The C functions by which torch lets others read a tensor, and its current stream (DLPack 1.3), if it has them."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    if type(capsule).__name__ != "PyCapsule":
        return None
    find = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    try:
        at = find(capsule, b"dlpack_exchange_api")
    except ValueError:
        return None
    table = (ctypes.c_uint64 * 7).from_address(at)
    # versions, previous table, allocate, from object, to object, read without a copy, stream
    if table[0] & 0xFFFFFFFF != 1 or not table[5] or not table[6]:
        return None
    return int(table[5]), int(table[6])


__all__ = ["Form", "called", "compiled", "current_stream", "forget", "is_torch_kind"]
