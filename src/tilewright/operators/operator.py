"""An operator: a tile program, the plain reference that says what it should give, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tilewright.language import maximum, minimum, size
from tilewright.language.dtypes import DType

Array = npt.NDArray[Any]
Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exact:
    """What an output should be: float64 `value` (or integers), and what its rounding error grows with.

    `magnitude` is the sum of the absolute values of the `terms` that add up to each element (float64, of the
    shape of `value`); `narrowing` is the absolute error of terms that the program itself rounds to a type
    narrower than f32 before it adds them.
    """

    value: Array
    magnitude: Array64
    terms: int = 1
    narrowing: Array64 | float = 0.0

    @staticmethod
    def copied(value: Array) -> Exact:
        """A result that no arithmetic touches, so that only the rounding of the store is allowed."""
        return Exact(value, np.abs(value), 0)


@dataclass(frozen=True)
class Operator:
    """A tile program with symbolic sizes and no schedule, and its reference.

    `reference(**operands)` takes the inputs by the names of the kernel's parameters (NumPy arrays of any
    float type, in the kernel's layout; scalars and options too) and computes in float64. It gives an `Exact`
    for each name in `outputs`. The names in `updates` are outputs of which the program writes only a part (a
    KV cache): the reference takes what they held before.
    """

    kernel: Any
    reference: Callable[..., dict[str, Exact]] = field(compare=False)
    outputs: tuple[str, ...]
    updates: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the tile program."""
        return str(self.kernel.name)


def roundoff(dtype: DType) -> float:
    """Half the gap between 1 and the next number of a float type: the relative error of rounding to it."""
    return float(ml_dtypes.finfo(dtype.numpy).eps) / 2


def smallest(dtype: DType) -> float:
    """The smallest positive number of a float type; a result below half of it is stored as 0."""
    return float(ml_dtypes.finfo(dtype.numpy).smallest_subnormal)


def wide(x: npt.ArrayLike) -> Array64:
    """`x` in float64."""
    return np.asarray(x).astype(np.float64)


def inside(index: Any, *dims: str) -> Any:
    """An integer that a caller gave, as a place in each of `dims`, inside a kernel.

    No integer, however wrong, leads out of a tensor: on a GPU nobody can look at it before it is used.
    """
    index = maximum(index, 0)
    for dim in dims:
        index = minimum(index, (size(dim) - 1).to(index.dtype))
    return index


def operator(
    reference: Callable[..., dict[str, Exact]], *, writes: tuple[str, ...], updates: tuple[str, ...] = ()
) -> Callable[[Any], Operator]:
    """Decorator over `@kernel`: the program together with its `reference`; `writes` names all its outputs."""
    return lambda program: Operator(program, reference, writes, updates)
