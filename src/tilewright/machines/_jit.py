"""The least of LLVM that a probe needs: textual IR in, callable C functions out."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import llvmlite.binding as llvm


@cache
def _target() -> Any:
    """The host's target, with its assembly parser (the probes use inline assembly)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_default_triple()


class Compiled:
    """LLVM IR compiled for the host; the code lives as long as this object or one of its functions does."""

    def __init__(self, ir: str, cpu: str = "", features: str = "") -> None:
        # A target machine of its own for each engine: LLVM crashes when two engines share one.
        machine = _target().create_target_machine(cpu=cpu, features=features, opt=2, codemodel="jitdefault", jit=True)
        module = llvm.parse_assembly(ir)
        module.verify()
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()

    def function(self, name: str, *arguments: Any, result: Any = None) -> Any:
        """The function `name` with ctypes `arguments`; a call releases the interpreter's lock."""
        function = ctypes.CFUNCTYPE(result, *arguments)(self._engine.get_function_address(name))
        function.engine = self._engine  # type: ignore[attr-defined]  # freed code must not be called
        return function
