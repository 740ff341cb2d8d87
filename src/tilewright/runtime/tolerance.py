"""How far a kernel's output may be from the float64 reference: one bound, used by every check."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import VerificationError
from tilewright.language.dtypes import DType, dtype
from tilewright.operators.operator import Exact, roundoff, smallest

Array64 = npt.NDArray[np.float64]

# Half the gap between 1 and the next f32: the largest relative error of one rounded f32 operation.
F32_ROUNDOFF = 2.0**-24
# Rounded operations that one term meets besides the summation: the products, scalings and the few ulp of a
# polynomial exp, tanh or rsqrt. One constant for all operators, so that no operator gets a bound of its own.
ELEMENTARY_ROUNDINGS = 16
# Confidence of the summation bound: a correct sum leaves it with probability 2 exp(-8**2 / 2), below 3e-14.
CONFIDENCE = 8


def bound(
    dtype: DType,
    reduction_length: int,
    magnitude: npt.ArrayLike,
    *,
    value: npt.ArrayLike | None = None,
    narrowing: npt.ArrayLike = 0.0,
) -> Array64:
    """The largest absolute error of each element of an output of type `dtype`.

    An output is the sum of `reduction_length` terms, added in f32 in any order and stored as `dtype`;
    `magnitude` (float64, the output's shape) is the sum of the absolute values of the terms, as the error of
    a sum grows with its terms and not with what is left after they cancel. Four errors add up:

    - f32 arithmetic. Each term meets at most `n` rounded additions and ELEMENTARY_ROUNDINGS other operations,
      each with a relative error of at most u = 2^-24. In the worst case that is (n + 16) u magnitude; with
      rounding errors of mean zero it is within (8 sqrt(n) + 16) u magnitude with probability 1 - 3e-14 (Higham
      and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019).
      The smaller of the two is used: the worst case grows so fast that from n = 4096 on it would hide a term
      that was left out.
    - `narrowing`, the absolute error of terms that the program rounds to a narrower type before it adds them.
    - Rounding to `dtype`, once: u_dtype times the result, which is `value` (or `magnitude`, at most) and the
      errors above.
    - Underflow: the smallest f32 normal (smaller values may be flushed to zero), or the smallest number that
      `dtype` can hold, whichever is larger.
    """
    magnitude = np.abs(np.asarray(magnitude, np.float64))
    additions = min(float(reduction_length), CONFIDENCE * math.sqrt(reduction_length))
    error = magnitude * ((additions + ELEMENTARY_ROUNDINGS) * F32_ROUNDOFF) + np.asarray(narrowing, np.float64)
    stored = magnitude if value is None else np.abs(np.asarray(value, np.float64))
    underflow = max(smallest(dtype), float(np.finfo(np.float32).tiny))
    result: Array64 = error + roundoff(dtype) * (stored + error) + underflow
    return result


def check(name: str, actual: npt.NDArray[np.generic], exact: Exact) -> float:
    """The worst error of `actual` as a share of its bound, at most 1; VerificationError when it is more.

    Infinities and NaN must be where the reference has them; integers must be equal.
    """
    return compare(name, actual, np.asarray(exact.value), limits(dtype(actual.dtype), exact))


def limits(stored: DType, exact: Exact) -> Array64:
    """The largest absolute error of each element of an output that is stored as `stored`.

    It is 0 where the reference is not finite, and for integers but where `narrowing` says otherwise.
    """
    value = np.asarray(exact.value)
    if np.issubdtype(value.dtype, np.integer) or stored.kind == "int":
        return np.broadcast_to(np.asarray(exact.narrowing, np.float64), value.shape)
    finite = np.isfinite(value)
    magnitude, result, narrowing = (np.where(finite, x, 0.0) for x in (exact.magnitude, value, exact.narrowing))
    return np.where(finite, bound(stored, exact.terms, magnitude, value=result, narrowing=narrowing), 0.0)


def compare(name: str, actual: npt.NDArray[np.generic], value: npt.NDArray[Any], limit: Array64) -> float:
    """As `check`, against a reference and its `limits`."""
    if actual.shape != value.shape:
        raise VerificationError(f"{name}: shape {list(actual.shape)}, the reference has {list(value.shape)}")
    if not value.size:
        return 0.0
    share = _error_share(actual, value, limit)
    worst = np.unravel_index(int(np.argmax(share)), share.shape)
    if not share[worst] <= 1:
        raise VerificationError(
            f"{name}{[int(i) for i in worst]} is {actual[worst]!s}, the reference is {value[worst]!s}: "
            f"{share[worst]:.3g} times the bound for {actual.dtype}; "
            f"{int(np.count_nonzero(~(share <= 1)))} of {share.size} elements are outside it"
        )
    return float(share[worst])


def _error_share(actual: npt.NDArray[Any], value: npt.NDArray[Any], limit: Array64) -> Array64:
    if not np.issubdtype(value.dtype, np.integer):
        actual = actual.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.abs(actual - value).astype(np.float64, copy=False)
        share = np.nan_to_num(difference / limit, nan=np.inf, posinf=np.inf)
        same = actual == value
        unknown = np.isnan(actual) & np.isnan(value) if actual.dtype.kind == "f" else np.False_
    return np.where(same | unknown, 0.0, share)
