"""The emitted functions against float64, and against each other, over every exponent and all special values."""

from __future__ import annotations

import ctypes
import math
from functools import cache

import numpy as np
import pytest

from tilewright.build.jit import Target, assemble, compile_ir, load
from tilewright.emit.llvm_math import ULP_BOUND, emit_map
from tilewright.errors import CompileError

Array = np.ndarray
HOST = Target.host()
HAS_AVX512 = {"avx512f", "avx512dq", "avx512vl"} <= HOST.enabled

_erf, _erfc = np.vectorize(math.erf), np.vectorize(math.erfc)


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(np.isnan(x), x, np.where(x >= 0, 1.0, e) / (1.0 + e))


REFERENCE = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
}


class Text:
    """The least that emit_map needs to write into."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()

    def emit(self, rhs: str) -> str:
        self.lines.append(f"  %n{len(self.lines)} = {rhs}")
        return f"%n{len(self.lines) - 1}"

    def declare(self, declaration: str) -> None:
        self.declarations.add(declaration)


def module(op: str, lanes: int, dtype: str, features: frozenset[str]) -> str:
    """f(ptr x, ptr y, i64 count): y[i] = op(x[i]), `count` a multiple of `lanes`."""
    b = Text()
    element = {"f32": "float", "f64": "double"}[dtype]
    type = element if lanes == 1 else f"<{lanes} x {element}>"
    result = emit_map(b, op, lanes, dtype, ["%x"], features=features)
    body = "\n".join(b.lines)
    return (
        "\n".join(sorted(b.declarations))
        + f"""
define void @f(ptr %from, ptr %to, i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %source = getelementptr {element}, ptr %from, i64 %i
  %x = load {type}, ptr %source, align 4
{body}
  %target = getelementptr {element}, ptr %to, i64 %i
  store {type} {result}, ptr %target, align 4
  %next = add i64 %i, {lanes}
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
    )


@cache
def compiled(op: str, lanes: int, dtype: str, features: frozenset[str]):  # type: ignore[no-untyped-def]
    library = load(compile_ir(module(op, lanes, dtype, features), HOST))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(library.address("f"))
    return library, call


def evaluate(op: str, x: Array, lanes: int, features: frozenset[str] = frozenset(), dtype: str = "f32") -> Array:
    """op(x) as the compiled text computes it."""
    _, call = compiled(op, lanes, dtype, features)
    padded = np.resize(x, -(-len(x) // lanes) * lanes)
    out = np.full_like(padded, np.nan)
    call(padded.ctypes.data, out.ctypes.data, len(padded))
    return out[: len(x)]


@cache
def samples() -> Array:
    """float32: random bit patterns (every exponent), the interesting intervals densely, and all boundaries."""
    rng = np.random.default_rng(20240229)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    dense = [
        rng.uniform(-w, w, 60_000).astype(np.float32) for w in (1e-3, 0.5, 1.0, 2.0, 4.5, 10.0, 20.0, 110.0, 160.0)
    ]
    # Where the exponent of the result, the rounding to an integer, or a branch changes.
    edges = [
        0.0,
        1.0,
        4.0,
        9.0,
        9.1,
        10.0,
        88.722839,
        87.336544,
        103.27893,
        103.97208,
        104.0,
        89.0,
        126.0,
        127.0,
        128.0,
    ]
    edges += [149.0, 150.0, 151.0, math.sqrt(0.5), math.sqrt(2), 2.0**-126, 2.0**-149, 3.4028235e38, 2.0**22, 2.0**24]
    edges += [(k + 0.5) * math.log(2) for k in range(130)] + [k + 0.5 for k in range(130)]
    # The worst points of a search through all floats of the critical binades.
    edges += [0.062023256, 4.157294, 1.0061859, 5.859187, 4.5020466, 1.3976076, 1.0735395]
    near = np.array(edges, np.float32).view(np.uint32)[:, None].astype(np.int64) + np.arange(-8, 9)
    near = np.clip(near, 0, 0x7F800000).astype(np.uint32).view(np.float32).ravel()
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2.0**-149, -(2.0**-149)], np.float32)
    return np.concatenate([bits, *dense, near, -near, special])


def ulp_error(got: Array, exact: Array) -> Array:
    """|got - exact| in units of the last place of the exact result; 0 where both are the same infinity or NaN."""
    largest = float(np.finfo(np.float32).max)
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = exact.astype(np.float32)
        magnitude = np.clip(np.abs(exact), 2.0**-126, largest)
        unit = np.exp2(np.floor(np.log2(magnitude)) - 23)
        # An infinite result stands for the first number too large, 2**128, when the exact one is finite.
        value = np.where(np.isinf(got), np.copysign(2.0**128, got), got.astype(np.float64))
        error = np.abs(value - exact) / unit
    same = (got == rounded) & np.isinf(rounded) | np.isnan(got) & np.isnan(exact)
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


FEATURES = [frozenset[str]()] + ([HOST.enabled] if HAS_AVX512 else [])


@pytest.mark.parametrize("features", FEATURES, ids=["plain", "avx512"][: len(FEATURES)])
@pytest.mark.parametrize("op", ULP_BOUND)
def test_error_is_within_the_stated_bound(op: str, features: frozenset[str]) -> None:
    x = samples()
    with np.errstate(all="ignore"):
        exact = REFERENCE[op](x.astype(np.float64))
    error = ulp_error(evaluate(op, x, 16, features), exact)
    worst = int(np.argmax(error))
    print(f"{op}: {error[worst]:.3f} ulp at {float(x[worst])!r}")
    # Half a unit is met exactly by ties; the margin is float64's own rounding of the exact value.
    assert error[worst] <= ULP_BOUND[op] + 1e-6


@pytest.mark.parametrize("op", ULP_BOUND)
def test_every_width_gives_the_same_bits(op: str) -> None:
    x = samples()[::7]
    expected = evaluate(op, x, 1)
    widths = [(lanes, f) for f in FEATURES for lanes in (1, 2, 4, 8, 16, 32, 48, 64)]
    for lanes, features in widths:
        got = evaluate(op, x, lanes, features)
        differ = (got.view(np.uint32) != expected.view(np.uint32)) & ~(np.isnan(got) & np.isnan(expected))
        assert not differ.any(), (
            f"{lanes} lanes differ at x = {x[differ][:3]}: {got[differ][:3]}, {expected[differ][:3]}"
        )


INF, NAN, TINY = math.inf, math.nan, 2.0**-149
# op -> (operands, results), equal to the last bit and sign in both types
SPECIAL = {
    "exp": ([0.0, -0.0, -INF, INF, 1e30, -1e30, -3e38], [1.0, 1.0, 0.0, INF, INF, 0.0, 0.0]),
    "exp2": ([0.0, -0.0, -INF, INF, 1e30, -1e30, 10.0], [1.0, 1.0, 0.0, INF, INF, 0.0, 1024.0]),
    "log": ([1.0, 0.0, -0.0, INF, -1.0, -INF], [0.0, -INF, -INF, INF, NAN, NAN]),
    "sqrt": ([0.0, -0.0, INF, -1.0, -INF], [0.0, -0.0, INF, NAN, NAN]),
    "rsqrt": ([0.0, -0.0, INF, 0.25, -1.0], [INF, -INF, 0.0, 2.0, NAN]),
    "tanh": ([0.0, -0.0, INF, -INF, 3e38, TINY, -TINY], [0.0, -0.0, 1.0, -1.0, 1.0, TINY, -TINY]),
    "sigmoid": ([0.0, -0.0, INF, -INF, 3e38, -3e38], [0.5, 0.5, 1.0, 0.0, 1.0, 0.0]),
    "erf": ([0.0, -0.0, INF, -INF, 3e38, -9.0], [0.0, -0.0, 1.0, -1.0, 1.0, -1.0]),
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("op", ULP_BOUND)
def test_special_values_are_exact(op: str, dtype: str) -> None:
    number, word = {"f32": (np.float32, np.uint32), "f64": (np.float64, np.uint64)}[dtype]
    x, y = (np.array([*values, NAN], number) for values in SPECIAL[op])
    for features in FEATURES:
        got = evaluate(op, x, 16, features, dtype)
        assert np.array_equal(np.isnan(got), np.isnan(y))
        assert np.array_equal(got[~np.isnan(y)].view(word), y[~np.isnan(y)].view(word)), (x, got, y)


def test_results_pass_through_the_subnormals_to_zero() -> None:
    x = np.array([-126.0, -126.5, -149.0, -150.0, -151.0, 127.5, 128.0], np.float32)
    exact = np.array([2.0**-126, 2.0**-126.5, TINY, 0.0, 0.0, 2.0**127.5, INF]).astype(np.float32)
    for features in FEATURES:
        assert np.array_equal(evaluate("exp2", x, 16, features), exact)


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("op", ULP_BOUND)
def test_f64_is_as_good_as_libm(op: str, lanes: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(-30, 30, 4000) if op not in ("log", "sqrt", "rsqrt") else np.exp(rng.uniform(-600, 600, 4000))
    got = evaluate(op, x, lanes, dtype="f64")
    exact = REFERENCE[op](x)
    # libm states at most 1 ulp for each of its functions, NumPy 4 for its own; sigmoid adds two roundings.
    assert np.all(np.abs(got - exact) <= 6 * np.spacing(np.abs(exact)))


def test_exp_is_short() -> None:
    """A vector of exp stays within its count of instructions: clamps, spills or a libm call would show here."""
    for features, most in zip(FEATURES, (32, 24), strict=False):
        lines = assemble(module("exp", 16, "f32", features), HOST).split("f:", 1)[1].splitlines()
        loop = [line for line in lines if line.startswith("\tv") and "broadcast" not in line and "vmovaps" not in line]
        assert len(loop) <= most, "\n".join(loop)
        assert not any("call" in line for line in lines)


def test_unknown_functions_are_refused() -> None:
    with pytest.raises(CompileError, match="no function gamma"):
        emit_map(Text(), "gamma", 16, "f32", ["%x"])
    with pytest.raises(CompileError, match="of bf16"):
        emit_map(Text(), "exp", 16, "bf16", ["%x"])
