"""The cases of `tilewright bench rows`: row operators of Llama's sizes, their gradients, long rows, and odd ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from tilewright import operators
from tilewright.language import ir

V = TypeVar("V")

LARGE = ((8192, 4096), (16384, 8192))
TOKENS = ((1, 4096), (16, 4096), (1, 8192))
ROPES = ((4, 2048, 32, 128), (1, 16384, 32, 128))
VOCABULARY = 128256
FAMILIES = ("gpu_rows", "gpu_rows_backward", "gpu_rows_few", "gpu_rows_long", "gpu_rows_odd")
_BOUND = {"rmsnorm": "eps", "add_rmsnorm": "eps", "layernorm": "eps", "rmsnorm_backward": "eps", "scale_add": "alpha"}
_NUMBERS = {"eps": 1e-5, "alpha": 0.7}


@dataclass(frozen=True)
class RowCase:
    """An operator at sizes: its family in tables and floors, its element type, and which optional operands it has.

    `offset`: elements by which every tensor starts beside a multiple of 16 bytes. `interleaved`: pairs that rope turns
    are neighbours in memory.
    """

    family: str
    operator: str
    sizes: tuple[tuple[str, int], ...]
    label: str
    element: str = "bf16"
    options: tuple[tuple[str, object], ...] = ()
    present: tuple[str, ...] = ()
    offset: int = 0
    interleaved: bool = False

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.operator} {self.label} {self.element}{' unaligned' if self.offset else ''}"

    @property
    def links(self) -> bool:
        """Whether it is timed as links of a chain: it is so short that a lone call takes mostly what any call takes."""
        return self.family == "gpu_rows_few"

    @property
    def scalars(self) -> dict[str, float]:
        """What the operator takes beside tensors."""
        wanted = _BOUND.get(self.operator)
        return {wanted: _NUMBERS[wanted]} if wanted else {}

    def traced(self) -> ir.Kernel:
        """The program of this case."""
        from tilewright.runtime.compiled import dtypes_of

        kernel = operators.OPERATORS[self.operator].kernel
        traced: ir.Kernel = kernel.trace(dtypes_of(kernel, self.element, self.present), options=dict(self.options))
        return traced

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each tensor's shape."""
        sizes: Mapping[str, int] = dict(self.sizes)
        params = [p for p in self.traced().params if p.dims is not None]
        return {p.name: tuple(sizes[d] if isinstance(d, str) else d for d in p.dims or ()) for p in params}

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: every operand once; of a table only the rows that are picked."""
        program, shapes = self.traced(), self.shapes()
        moved = {p.name: math.prod(shapes[p.name]) * p.dtype.bytes for p in program.params if p.dims is not None}
        if self.operator == "embedding":
            moved["table"] = moved["y"]
        return sum(moved.values())


def row_cases() -> tuple[RowCase, ...]:
    """Every case, in the order of the tables."""
    forward = [_rows("gpu_rows", op, m, d) for op in _FORWARD for m, d in LARGE]
    ropes = [_rope("gpu_rows", *shape) for shape in ROPES]
    more = [_rows("gpu_rows", "embedding", 8192, 4096)]
    back = [_rows("gpu_rows_backward", op, m, d) for op in _BACKWARD for m, d in LARGE]
    back += [_rope("gpu_rows_backward", *shape, inverse=True) for shape in ROPES]
    few = [_rows("gpu_rows_few", op, m, d) for op in ("rmsnorm", "add_rmsnorm", "softmax", "swiglu") for m, d in TOKENS]
    few += [_rope("gpu_rows_few", 1, 1, 32, 128)]
    long = [_rows("gpu_rows_long", op, m, VOCABULARY) for op in ("softmax", "argmax", "topk") for m in (1, 64)]
    long += [_rows("gpu_rows_long", "rmsnorm", 2048, 65536), _rows("gpu_rows_long", "softmax", 1024, 131072)]
    odd = [
        _rows("gpu_rows_odd", op, 8192, 4096, element) for op in ("rmsnorm", "softmax") for element in ("f32", "f16")
    ]
    odd += [_rows("gpu_rows_odd", op, 8191, 4095) for op in ("rmsnorm", "softmax", "swiglu")]
    odd += [_rows("gpu_rows_odd", op, 8192, 4096, offset=1) for op in ("rmsnorm", "softmax", "swiglu")]
    odd += _odd_ropes(*ROPES[0])
    odd += [_rows("gpu_rows_odd", "rmsnorm", 65536, 128), _rows("gpu_rows_odd", "layernorm", 16384, 1000)]
    return (*forward, *ropes, *more, *back, *few, *long, *odd)


_FORWARD = ("rmsnorm", "add_rmsnorm", "layernorm", "softmax", "swiglu", "geglu", "silu", "gelu", "scale_add")
_BACKWARD = ("rmsnorm_backward", "rmsnorm_weight_backward", "softmax_backward", "swiglu_backward", "geglu_backward")


def _rows(family: str, op: str, m: int, d: int, element: str = "bf16", offset: int = 0) -> RowCase:
    sizes = {"M": m, "D": d}
    options: dict[str, object] = {}
    if op == "embedding":
        sizes = {"N": m, "V": VOCABULARY, "D": d}
    if op == "topk":
        sizes, options = {**sizes, "K": 8}, {"k": 8}
    if op in ("gelu", "geglu", "geglu_backward"):
        options = {"activation": "gelu"}
    present = ("bias",) if op == "layernorm" else ()
    return RowCase(family, op, _pairs(sizes), f"{m}x{d}", element, _pairs(options), present, offset)


def _rope(family: str, b: int, s: int, h: int, d: int, inverse: bool = False) -> RowCase:
    sizes = {"B": b, "S": s, "H": h, "P": s, "R": d // 2}
    label = f"{b}x{s}x{h}x{d}{' backward' if inverse else ''}"
    return RowCase(family, "rope", _pairs(sizes), label, options=(("inverse", inverse),))


def _odd_ropes(b: int, s: int, h: int, d: int) -> list[RowCase]:
    """Neighbours that turn, tokens at positions of their own, and heads of which half is turned."""
    whole = _rope("gpu_rows_odd", b, s, h, d)
    part = {**dict(whole.sizes), "R": d // 4, "E": d // 2}
    return [
        replace(whole, label=f"{whole.label} interleaved", interleaved=True),
        replace(whole, label=f"{whole.label} positions", present=("positions",)),
        replace(whole, label=f"{whole.label} half", sizes=_pairs(part), present=("rest", "rest_y")),
    ]


def _pairs(of: Mapping[str, V]) -> tuple[tuple[str, V], ...]:
    return tuple(of.items())


__all__ = ["FAMILIES", "RowCase", "row_cases"]
