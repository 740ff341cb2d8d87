"""The tile registers of AMX in NumPy: kernels that use them run on any processor, by calls instead of instructions."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from compiled import Run

from tilewright.build.jit import Target, compile_ir, load
from tilewright.build.kernel_cache import Binary
from tilewright.design.design import Design
from tilewright.emit.llvm import VectorUnit, emit
from tilewright.lower.stages import lower
from tilewright.runtime.dispatch import Kernel
from tilewright.runtime.launch import PROTOTYPE

_BYTE, _WORD, _POINTER = ctypes.c_int8, ctypes.c_int64, ctypes.c_void_p
_LLVM = {_BYTE: "i8", _WORD: "i64", _POINTER: "ptr"}


class TileRegisters:
    """Eight registers of 16 rows of 64 bytes, and what the instructions do to them; `wrong` says what they must not."""

    def __init__(self) -> None:
        self.rows = np.full((8, 16, 64), 0xFF, np.uint8)
        self.configured = False
        self.products = 0
        self.wrong: list[str] = []
        self._signatures: dict[str, tuple[Any, ...]] = {
            "ldtilecfg": (_POINTER,),
            "tilerelease": (),
            "tilezero": (_BYTE,),
            "tileloadd64": (_BYTE, _POINTER, _WORD),
            "tilestored64": (_BYTE, _POINTER, _WORD),
            "tdpbf16ps": (_BYTE, _BYTE, _BYTE),
            "tdpbssd": (_BYTE, _BYTE, _BYTE),
        }
        self._kept: list[Any] = []  # callbacks, which compiled code calls by address

    # ------------------------------------------------------------------------------------------ instructions
    def ldtilecfg(self, config: int) -> None:
        data = _bytes(config, 64)
        widths, heights = data[16:32].view(np.uint16), data[48:56]
        self.configured = data[0] == 1 and (widths == 64).all() and (heights == 16).all()

    def tilerelease(self) -> None:
        self.configured, self.rows[:] = False, 0xFF

    def tilezero(self, register: int) -> None:
        self.rows[register] = 0

    def tileloadd64(self, register: int, address: int, stride: int) -> None:
        for row in range(16):
            self.rows[register, row] = _bytes(address + row * stride, 64)

    def tilestored64(self, register: int, address: int, stride: int) -> None:
        for row in range(16):
            _bytes(address + row * stride, 64)[:] = self.rows[register, row]

    def tdpbf16ps(self, into: int, rows: int, columns: int) -> None:
        a, b = (self.rows[n].view(ml_dtypes.bfloat16).astype(np.float32) for n in (rows, columns))
        self._add(into, a.reshape(16, 16, 2), b.reshape(16, 16, 2), np.float32)

    def tdpbssd(self, into: int, rows: int, columns: int) -> None:
        a, b = (self.rows[n].view(np.int8).astype(np.int32) for n in (rows, columns))
        self._add(into, a.reshape(16, 16, 4), b.reshape(16, 16, 4), np.int32)

    def _add(self, into: int, a: Any, b: Any, kind: Any) -> None:
        """Row m, word k, part p of `a` by word k, column n, part p of `b`."""
        self.products += 1
        with np.errstate(all="ignore"):  # rows past the end of a panel hold anything, and only their own sums see it
            self.rows[into].view(kind)[...] += np.einsum("mkp,knp->mn", a, b)

    # ------------------------------------------------------------------------------------------------ kernels
    def kernel(self, drawn: Run, design: Design) -> Kernel:
        """The kernel of a case whose tile instructions are calls of these."""
        host = Target.host()
        module = emit(lower(drawn.program, design), dict(drawn.layouts), {}, VectorUnit(64, host.enabled))
        text = re.sub(r"declare void @llvm\.x86\.(\w+)\([^\n]*\n", self._definition, module.text)
        text = re.sub(r"@llvm\.x86\.(tile\w+|ldtilecfg|tdp\w+)\(", r"@emulated_\1(", text)
        library = load(compile_ir(text, host))
        binary = Binary(library.address("tw_run"), module.workspace, library)
        return Kernel(drawn.program.name, drawn.program, design, binary, (), PROTOTYPE(binary.address))

    def _definition(self, declared: re.Match[str]) -> str:
        name = declared[1]
        if name not in self._signatures:
            return declared[0]
        types = self._signatures[name]
        callback = ctypes.CFUNCTYPE(None, *types)(self._checked(name, getattr(self, name)))
        self._kept.append(callback)
        address = ctypes.cast(callback, ctypes.c_void_p).value
        args = ", ".join(f"{_LLVM[t]} %a{n}" for n, t in enumerate(types))
        call = f"call void inttoptr (i64 {address} to ptr)({args})"
        return f"define internal void @emulated_{name}({args}) {{\n  {call}\n  ret void\n}}\n"

    def _checked(self, name: str, what: Callable[..., None]) -> Callable[..., None]:
        def call(*args: int) -> None:
            if not self.configured and name not in ("ldtilecfg", "tilerelease"):
                self.wrong.append(f"{name} before the registers are configured")
            try:
                what(*args)
            except Exception as error:
                self.wrong.append(f"{name}{args}: {error}")

        return call


def _bytes(address: int, count: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))
