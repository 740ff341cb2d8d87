"""Fit the polynomials of `emit/llvm_math.py` and print them, with the error each has before any rounding.

Each polynomial is a weighted minimax fit: least squares at Chebyshev points, re-weighted by its own error until that
error is level (Lawson). Coefficients are rounded to float32 one at a time from the lowest degree up, and those above
are fitted again, so that no rounding is left for the next coefficient to pay.

Run: python tools/fit_polynomials.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Problem:
    """Find c with small `weight(x) * (target(x) - c(x))` on [low, high]; c begins with the coefficients `fixed`."""

    name: str
    target: Function
    weight: Function
    low: float
    high: float
    degree: int
    fixed: tuple[float, ...] = ()


def fit(problem: Problem) -> list[float]:
    """float32 coefficients, lowest first, whose weighted error is level over the interval."""
    x = _chebyshev_points(problem.low, problem.high)
    y, weight = problem.target(x), problem.weight(x)
    coefficients = list(problem.fixed)
    while len(coefficients) <= problem.degree:
        powers = weight[:, None] * x[:, None] ** np.arange(len(coefficients), problem.degree + 1)
        rest = _lawson(powers, weight * (y - np.polynomial.polynomial.polyval(x, coefficients or [0.0])))
        coefficients.append(float(np.float32(rest[0])))
    return coefficients


def _chebyshev_points(low: float, high: float, count: int = 2000) -> Array:
    angle = (np.arange(count) + 0.5) * np.pi / count
    return (low + high) / 2 + (high - low) / 2 * np.cos(angle)


def _lawson(powers: Array, values: Array, rounds: int = 60) -> Array:
    """The c whose largest |powers @ c - values| is as small as it gets."""
    level = np.full(len(values), 1 / len(values))
    best, best_error = np.zeros(powers.shape[1]), np.inf
    for _ in range(rounds):
        root = np.sqrt(level)
        found = np.linalg.lstsq(powers * root[:, None], values * root, rcond=None)[0]
        error = np.abs(powers @ found - values)
        if error.max() < best_error:
            best, best_error = found, error.max()
        level = level * error + 1e-30
        level /= level.sum()
    return best


def _report(problem: Problem, c: list[float]) -> None:
    x = _chebyshev_points(problem.low, problem.high, 20001)
    error = np.abs(problem.weight(x) * (problem.target(x) - np.polynomial.polynomial.polyval(x, c))).max()
    print(f"{problem.name}: largest weighted error {error:.2e} (2**{math.log2(error):.1f})")
    print("    " + " ".join(_short_hex(v) for v in c))


def _short_hex(value: float) -> str:
    """`value.hex()` without the zeros that a float32 leaves at its end."""
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}"


erf = np.vectorize(math.erf)
erfc = np.vectorize(math.erfc)


def _log1p_tail(f: Array) -> Array:
    """(log(1+f) - f + f**2/2) / f**3, by its series near 0, where the difference cancels."""
    series = sum((-1) ** k * f**k / (k + 3) for k in range(40))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.abs(f) < 0.2, series, (np.log1p(f) - f + f * f / 2) / f**3)


def _expm1_over(x: Array) -> Array:
    return np.where(x == 0, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))


def _erf_over(s: Array) -> Array:
    """erf(x)/x - 1 as a function of s = x*x."""
    x = np.sqrt(s)
    return erf(x) / x - 1


def _problems() -> list[Problem]:
    half = math.log(2) / 2 * 1.0001
    low, high = math.sqrt(0.5) - 1, math.sqrt(2) - 1
    return [
        Problem("exp(r)", np.exp, lambda x: np.exp(-x), -half, half, 6, (1.0, 1.0)),
        Problem("2**r", np.exp2, lambda x: np.exp2(-x), -0.5001, 0.5001, 6, (1.0,)),
        Problem("expm1(r)/r", _expm1_over, lambda x: 1 / _expm1_over(x), -half, half, 5, (1.0,)),
        Problem("(log1p(f) - f + f*f/2)/f**3", _log1p_tail, lambda f: f**3 / np.log1p(f), low, high, 7),
        Problem("erf(x)/x - 1 in x*x, x < 1", _erf_over, np.ones_like, 1e-8, 1.0, 6),
        # erf is 1 - exp(-p): an error d of p moves it by erfc(x)*d.
        Problem("-log(erfc(x)), x >= 1", lambda x: -np.log(erfc(x)), erfc, 1.0, 4.0, 6),
    ]


def main() -> None:
    """Print every polynomial of `emit/llvm_math.py`."""
    for problem in _problems():
        _report(problem, fit(problem))


if __name__ == "__main__":
    main()
