"""Tilewright: an LLM inference engine that designs its own kernels.

    import tilewright as tw
    tw.ops.linear(x, w)                                     # operators on NumPy arrays and torch tensors
    tw.LLM("path/to/hf-model").generate(["def fib(n):"])    # decoder-only models
    tw.compile(tw.operators.matmul, M=16, N=4096, K=4096)   # one kernel: .source .design .estimate .run
    tw.search(tw.operators.matmul, M=1, N=64, K=64)         # the best design for a shape: .design .seconds .speedup
    tw.launch(program, x=x, y=y)                            # a program of your own, written with @tw.kernel

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tilewright import errors as errors
    from tilewright import language as language
    from tilewright import operators as operators
    from tilewright import ops as ops
    from tilewright.design.design import Design as Design
    from tilewright.engine.llm import LLM as LLM
    from tilewright.engine.sampling import SamplingParams as SamplingParams
    from tilewright.errors import TilewrightError as TilewrightError
    from tilewright.language import DType as DType
    from tilewright.language import Scalar as Scalar
    from tilewright.language import Tensor as Tensor
    from tilewright.language import TileProgram as TileProgram
    from tilewright.language import bf16 as bf16
    from tilewright.language import boolean as boolean
    from tilewright.language import coord as coord
    from tilewright.language import dot as dot
    from tilewright.language import dtype as dtype
    from tilewright.language import each as each
    from tilewright.language import erf as erf
    from tilewright.language import exp as exp
    from tilewright.language import exp2 as exp2
    from tilewright.language import f8e4m3 as f8e4m3
    from tilewright.language import f16 as f16
    from tilewright.language import f32 as f32
    from tilewright.language import f64 as f64
    from tilewright.language import full as full
    from tilewright.language import i8 as i8
    from tilewright.language import i32 as i32
    from tilewright.language import i64 as i64
    from tilewright.language import kernel as kernel
    from tilewright.language import log as log
    from tilewright.language import maximum as maximum
    from tilewright.language import minimum as minimum
    from tilewright.language import parallel as parallel
    from tilewright.language import rsqrt as rsqrt
    from tilewright.language import sigmoid as sigmoid
    from tilewright.language import size as size
    from tilewright.language import sqrt as sqrt
    from tilewright.language import sum_type as sum_type
    from tilewright.language import tanh as tanh
    from tilewright.language import tiles as tiles
    from tilewright.language import where as where
    from tilewright.language import whole as whole
    from tilewright.language import zeros as zeros
    from tilewright.machines.machine import Machine as Machine
    from tilewright.runtime.compiled import CompiledKernel as CompiledKernel
    from tilewright.runtime.compiled import bind as bind
    from tilewright.runtime.compiled import compile as compile
    from tilewright.runtime.compiled import launch as launch
    from tilewright.runtime.designer import search as search

_MODULES = ("errors", "language", "operators", "ops")
_NAMES = {
    "tilewright.design.design": ("Design",),
    "tilewright.engine.llm": ("LLM",),
    "tilewright.engine.sampling": ("SamplingParams",),
    "tilewright.errors": ("TilewrightError",),
    "tilewright.language": (
        "DType", "Scalar", "Tensor", "TileProgram", "bf16", "boolean", "coord", "dot", "dtype", "each", "erf", "exp",
        "exp2", "f8e4m3", "f16", "f32", "f64", "full", "i8", "i32", "i64", "kernel", "log", "maximum", "minimum",
        "parallel", "rsqrt", "sigmoid", "size", "sqrt", "sum_type", "tanh", "tiles", "where", "whole", "zeros",
    ),
    "tilewright.machines.machine": ("Machine",),
    "tilewright.runtime.compiled": ("CompiledKernel", "bind", "compile", "launch"),
    "tilewright.runtime.designer": ("search",),
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public name, imported on first use (PEP 562)."""
    if name in _MODULES:
        return import_module(f"tilewright.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_HOME, "__version__"])
