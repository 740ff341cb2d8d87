"""Element types of tiles and tensors, and their NumPy twins."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.errors import DTypeError


@dataclass(frozen=True)
class DType:
    """An element type: `name` as printed, `bits` of storage, `kind` one of float, int, bool."""

    name: str
    bits: int
    kind: str

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def bytes(self) -> int:
        """Bytes of storage for one element (a bool takes one)."""
        return max(1, self.bits // 8)

    @property
    def is_storage_only(self) -> bool:
        """bf16, f16 and fp8 are stored; arithmetic on them happens in f32."""
        return self.kind == "float" and self.bits < 32

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype that holds one element."""
        found: np.dtype[Any] = np.dtype(_NUMPY[self.name])
        return found


f64 = DType("f64", 64, "float")
f32 = DType("f32", 32, "float")
bf16 = DType("bf16", 16, "float")
f16 = DType("f16", 16, "float")
f8e4m3 = DType("f8e4m3", 8, "float")
i64 = DType("i64", 64, "int")
i32 = DType("i32", 32, "int")
i8 = DType("i8", 8, "int")
boolean = DType("bool", 1, "bool")

_NUMPY: dict[str, Any] = {
    "f64": np.float64,
    "f32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "f16": np.float16,
    "f8e4m3": ml_dtypes.float8_e4m3fn,
    "i64": np.int64,
    "i32": np.int32,
    "i8": np.int8,
    "bool": np.bool_,
}

DTYPES: dict[str, DType] = {t.name: t for t in (f64, f32, bf16, f16, f8e4m3, i64, i32, i8, boolean)}
_ALIASES = {"float32": "f32", "float64": "f64", "bfloat16": "bf16", "float16": "f16", "half": "f16",
            "int64": "i64", "int32": "i32", "int8": "i8", "boolean": "bool", "float8_e4m3fn": "f8e4m3"}  # fmt: skip
_BY_NUMPY = {np.dtype(t): DTYPES[name] for name, t in _NUMPY.items()}


def dtype(name: str | DType | np.dtype[Any]) -> DType:
    """The DType called `name` ("bf16", "bfloat16", "torch.bfloat16" or a NumPy dtype); DTypeError if there is none."""
    if isinstance(name, DType):
        return name
    if isinstance(name, np.dtype) and name in _BY_NUMPY:
        return _BY_NUMPY[name]
    text = str(name).removeprefix("torch.")
    text = _ALIASES.get(text, text)
    if text not in DTYPES:
        raise DTypeError(f"unknown dtype {str(name)!r}; Tilewright knows {', '.join(DTYPES)}")
    return DTYPES[text]
