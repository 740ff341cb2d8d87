"""Elementwise functions as LLVM IR text: exp, exp2, log, sqrt, rsqrt, tanh, sigmoid, erf.

LLVM has no vector versions of these, so each is written out as straight-line SSA: range reduction, a polynomial in
fused multiply-adds, and the scale put back. There are no branches and no tables. One lane and many lanes, with AVX-512
or without, give the same bits, so that the tail of a row agrees with its body.

In f32 the largest error, in units of the last place of the exact result, is `ULP_BOUND`; it holds for every input,
subnormal inputs and results included. f64 is a type for checking: it calls libm, one lane at a time.
The coefficients come from `tools/fit_polynomials.py`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Protocol

from tilewright.errors import CompileError

ULP_BOUND: dict[str, float] = {
    "exp": 1.0,
    "exp2": 1.0,
    "log": 1.0,
    "sqrt": 0.5,
    "rsqrt": 1.5,
    "tanh": 3.0,
    "sigmoid": 3.0,
    "erf": 1.5,
}


class Builder(Protocol):
    """Where the text goes."""

    def emit(self, rhs: str) -> str:
        """Append `%n = rhs` and return `%n`."""

    def declare(self, declaration: str) -> None:
        """Declare a function of the module, once."""


def emit_map(
    b: Builder, op: str, lanes: int, dtype: str, args: list[str], features: frozenset[str] = frozenset()
) -> str:
    """Emit `op(args[0])` and return the name of the result.

    The operand and the result are `float` (dtype "f32") or `double` ("f64") if `lanes` is 1, else a vector of `lanes`
    of them. `features` are LLVM's names of what the processor has ({"avx512f", ...}); they change the instructions,
    not the result. Raises CompileError if there is no such function.
    """
    if op not in ULP_BOUND or dtype not in ("f32", "f64") or len(args) != 1:
        raise CompileError(
            f"no function {op}({', '.join(args)}) of {dtype}; there are {', '.join(ULP_BOUND)} of f32, f64"
        )
    if dtype == "f64":
        return _emit_f64(_Vector(b, lanes, "double", features), op, args[0])
    native = 16 if "avx512f" in features else lanes
    if lanes > native and lanes % native == 0:
        return _emit_in_parts(b, op, lanes, native, args[0], features=features)
    return _F32[op](_Vector(b, lanes, "float", features), args[0])


class _Vector:
    """Writes operations on values of one type: `lanes` times float or double."""

    def __init__(self, b: Builder, lanes: int, element: str, features: frozenset[str] = frozenset()) -> None:
        self.b = b
        self.lanes = lanes
        self.element = element
        self.features = features
        width, suffix = (32, "f32") if element == "float" else (64, "f64")
        self.type = self._of(element)
        self.int = self._of(f"i{width}")
        self.bool = self._of("i1")
        self.suffix = suffix if lanes == 1 else f"v{lanes}{suffix}"

    def _of(self, element: str) -> str:
        return element if self.lanes == 1 else f"<{self.lanes} x {element}>"

    # -------------------------------------------------------------------------------- constants
    def const(self, value: float) -> str:
        """`value`, which the element type must hold exactly, in every lane."""
        literal = "0x" + struct.pack(">d", value).hex().upper()
        return literal if self.lanes == 1 else f"splat ({self.element} {literal})"

    def int_const(self, value: int) -> str:
        """The integer `value` in every lane."""
        return str(value) if self.lanes == 1 else f"splat (i32 {value})"

    # -------------------------------------------------------------------------------- operations
    def call(self, name: str, *args: str) -> str:
        """The overloaded intrinsic `llvm.<name>` of floating-point operands."""
        function = f"@llvm.{name}.{self.suffix}"
        self.b.declare(f"declare {self.type} {function}({', '.join([self.type] * len(args))})")
        return self.b.emit(f"call {self.type} {function}({', '.join(f'{self.type} {a}' for a in args)})")

    def fma(self, x: str, y: str, z: str) -> str:
        """x*y + z, rounded once."""
        return self.call("fma", x, y, z)

    def op(self, name: str, x: str, y: str) -> str:
        """The instruction `name` (fadd, fsub, fmul, fdiv)."""
        return self.b.emit(f"{name} {self.type} {x}, {y}")

    def int_op(self, name: str, x: str, y: str) -> str:
        """The instruction `name` (add, sub, shl, lshr, ashr) on integers."""
        return self.b.emit(f"{name} {self.int} {x}, {y}")

    def bits(self, x: str) -> str:
        """The bits of a float as an integer."""
        return self.b.emit(f"bitcast {self.type} {x} to {self.int}")

    def from_bits(self, x: str) -> str:
        """The float whose bits are `x`."""
        return self.b.emit(f"bitcast {self.int} {x} to {self.type}")

    def compare(self, predicate: str, x: str, y: str) -> str:
        """fcmp."""
        return self.b.emit(f"fcmp {predicate} {self.type} {x}, {y}")

    def select(self, condition: str, x: str, y: str, type: str = "") -> str:
        """x where the condition holds, else y."""
        type = type or self.type
        return self.b.emit(f"select {self.bool} {condition}, {type} {x}, {type} {y}")

    def at_most(self, bound: float, x: str) -> str:
        """min(bound, x); a NaN stays one, and x86 needs one instruction."""
        return self.select(self.compare("olt", self.const(bound), x), self.const(bound), x)

    def at_least(self, bound: float, x: str) -> str:
        """max(bound, x); a NaN stays one, and x86 needs one instruction."""
        return self.select(self.compare("ogt", self.const(bound), x), self.const(bound), x)

    def polynomial(self, coefficients: tuple[float, ...], x: str) -> str:
        """Horner's rule, lowest coefficient first: fewest instructions; the loop around it supplies the overlap."""
        value = self.const(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.const(c))
        return value


# ------------------------------------------------------------------------------------------ coefficients
def _hex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


# e**r on |r| <= ln(2)/2, and 2**r on |r| <= 1/2
_EXP = _hex("0x1p+0 0x1p+0 0x1.fffffcp-2 0x1.555492p-3 0x1.5558aep-5 0x1.12398p-7 0x1.6a4f28p-10")
_EXP2 = _hex("0x1p+0 0x1.62e43p-1 0x1.ebfbdcp-3 0x1.c6af7ap-5 0x1.3b2dd4p-7 0x1.5f0952p-10 0x1.417872p-13")
# (expm1(r) - r)/r**2 on |r| <= ln(2)/2
_EXPM1 = _hex("0x1.fffffep-2 0x1.5554b4p-3 0x1.5556f6p-5 0x1.122538p-7 0x1.6b97a6p-10")
# (log1p(f) - f + f**2/2)/f**3 on sqrt(1/2) <= 1+f < sqrt(2)
_LOG = _hex(
    "0x1.555554p-2 -0x1.000226p-2 0x1.99a01cp-3 -0x1.54728ap-3 0x1.22d93p-3 -0x1.0d8246p-3 0x1.055eacp-3 -0x1.38c968p-4"
)
# erf(x)/x - 1 in x**2 on |x| < 1, and -log(1 - erf(x)) on 1 <= x <= 4
_ERF_NEAR = _hex("0x1.06eba8p-3 -0x1.81274p-2 0x1.ce2d5p-4 -0x1.b7fe9p-6 0x1.542e1p-8 -0x1.a50b0ep-11 0x1.4c344ep-14")
_ERF_FAR = _hex("0x1.72e404p-12 0x1.2085b2p+0 0x1.46c588p-1 0x1.a60a4ap-4 -0x1.65417p-6 0x1.814ad4p-9 -0x1.8528dp-13")

# ln 2 in two parts; the first has 16 bits, so that its product with an exponent of 8 is exact.
_LN2_HIGH = float.fromhex("0x1.62e4p-1")
_LN2_LOW = float.fromhex("0x1.7f7d1cp-20")
_LOG2_E = float.fromhex("0x1.715476p+0")

# Adding this to |x| < 2**22 rounds x to an integer and leaves that integer in the low bits of the sum.
_ROUND = 1.5 * 2**23


# ------------------------------------------------------------------------------------------ exponentials
def _exp(v: _Vector, x: str) -> str:
    if not _has_scalef(v):
        x = v.at_most(89.0, v.at_least(-104.0, x))
    return _exp_of_clamped(v, x)


def _exp2(v: _Vector, x: str) -> str:
    has_scalef = _has_scalef(v)
    if not has_scalef:
        x = v.at_most(129.0, v.at_least(-151.0, x))
    magic = _ROUND if has_scalef else _ROUND + 254
    rounded = v.op("fadd", x, v.const(magic))
    r = v.op("fsub", x, v.op("fsub", rounded, v.const(magic)))
    return _scale(v, _EXP2, r, rounded, magic)


def _exp_of_clamped(v: _Vector, x: str) -> str:
    """exp(x) where, lacking scalef, x is known to lie in [-104, 89] or to be NaN."""
    magic = _ROUND if _has_scalef(v) else _ROUND + 254
    rounded = v.fma(x, v.const(_LOG2_E), v.const(magic))
    r = _minus_multiple_of_ln2(v, x, v.op("fsub", rounded, v.const(magic)))
    return _scale(v, _EXP, r, rounded, magic)


def _minus_multiple_of_ln2(v: _Vector, x: str, n: str) -> str:
    """x - n*ln 2."""
    return v.fma(n, v.const(-_LN2_LOW), v.fma(n, v.const(-_LN2_HIGH), x))


def _scale(v: _Vector, coefficients: tuple[float, ...], r: str, rounded: str, magic: float) -> str:
    """polynomial(r) * 2**n, rounded once even if the result is subnormal; `rounded` is n + magic."""
    if _has_scalef(v):
        # x beyond the range, infinite or NaN leaves any value in r. A polynomial of a bounded r is finite, and
        # scalef of it by n is then 0, infinity or NaN as n says: so no clamp of x is needed.
        value = v.polynomial(coefficients, _range(v, r))
        return _scalef(v, value, v.op("fsub", rounded, v.const(magic)))
    # 2**n may be outside the normal range, so it is applied as 2**(n//2) * 2**(n - n//2). The magic number carries
    # the bias of both exponents (254 = 2*127), and the shift to the exponent's place drops its own high bits.
    value = v.polynomial(coefficients, r)
    biased = v.bits(rounded)
    half = v.int_op("lshr", biased, v.int_const(1))
    rest = v.int_op("sub", biased, half)
    for exponent in (half, rest):
        value = v.op("fmul", value, v.from_bits(v.int_op("shl", exponent, v.int_const(23))))
    return value


def _has_scalef(v: _Vector) -> bool:
    if v.lanes == 16:
        return {"avx512f", "avx512dq"} <= v.features
    return v.lanes in (4, 8) and {"avx512f", "avx512dq", "avx512vl"} <= v.features


def _scalef(v: _Vector, value: str, n: str) -> str:
    return _avx512(v, "scalef", [f"{v.type} {value}", f"{v.type} {n}"])


def _range(v: _Vector, r: str) -> str:
    """`r` held within one of 0, in magnitude; 1 if it is NaN."""
    smaller_magnitude_keep_sign = 2
    return _avx512(v, "range", [f"{v.type} {r}", f"{v.type} {v.const(1.0)}", f"i32 {smaller_magnitude_keep_sign}"])


def _avx512(v: _Vector, name: str, args: list[str]) -> str:
    """An unmasked use of a masked AVX-512 intrinsic."""
    args = [*args, f"{v.type} zeroinitializer"]
    args += ["i16 -1", "i32 4"] if v.lanes == 16 else ["i8 -1"]  # 4: round as MXCSR says
    function = f"@llvm.x86.avx512.mask.{name}.ps.{32 * v.lanes}"
    types = [arg[: arg.index(">") + 1] if arg.startswith("<") else arg.split()[0] for arg in args]
    v.b.declare(f"declare {v.type} {function}({', '.join(types)})")
    return v.b.emit(f"call {v.type} {function}({', '.join(args)})")


# ------------------------------------------------------------------------------------------ logarithm and roots
_HALF_ROOT_BITS = 0x3F3504F3  # sqrt(1/2)


def _log(v: _Vector, x: str) -> str:
    """x = m * 2**e with m in [sqrt(1/2), sqrt(2)); log x = e ln 2 + log1p(m - 1)."""
    subnormal = v.compare("olt", x, v.const(2.0**-126))
    normal = v.select(subnormal, v.op("fmul", x, v.const(2.0**23)), x)
    bits = v.bits(normal)
    e = v.int_op("ashr", v.int_op("sub", bits, v.int_const(_HALF_ROOT_BITS)), v.int_const(23))
    m = v.from_bits(v.int_op("sub", bits, v.int_op("shl", e, v.int_const(23))))
    e = v.b.emit(f"sitofp {v.int} {e} to {v.type}")
    e = v.select(subnormal, v.op("fsub", e, v.const(23.0)), e)
    f = v.op("fsub", m, v.const(1.0))
    square = v.op("fmul", f, f)
    tail = v.op("fmul", v.op("fmul", square, f), v.polynomial(_LOG, f))
    tail = v.fma(square, v.const(-0.5), v.fma(e, v.const(_LN2_LOW), tail))
    result = v.fma(e, v.const(_LN2_HIGH), v.op("fadd", f, tail))
    result = v.select(v.compare("oeq", x, v.const(math.inf)), v.const(math.inf), result)
    result = v.select(v.compare("oeq", x, v.const(0.0)), v.const(-math.inf), result)
    return v.select(v.compare("ult", x, v.const(0.0)), v.const(math.nan), result)


def _sqrt(v: _Vector, x: str) -> str:
    return v.call("sqrt", x)


def _rsqrt(v: _Vector, x: str) -> str:
    return v.op("fdiv", v.const(1.0), v.call("sqrt", x))


# ------------------------------------------------------------------------------------------ sigmoids
def _tanh(v: _Vector, x: str) -> str:
    """(e - 1)/(e - 1 + 2) with e = exp(2|x|), where e - 1 keeps its relative accuracy near 0."""
    magnitude = v.at_most(10.0, v.call("fabs", x))  # tanh(9.1) rounds to 1
    double = v.op("fadd", magnitude, magnitude)
    magic = _ROUND + 127  # the bias of an exponent: the shift below makes 2**n at once
    rounded = v.fma(double, v.const(_LOG2_E), v.const(magic))
    r = _minus_multiple_of_ln2(v, double, v.op("fsub", rounded, v.const(magic)))
    expm1_r = v.fma(v.op("fmul", r, r), v.polynomial(_EXPM1, r), r)
    scale = v.from_bits(v.int_op("shl", v.bits(rounded), v.int_const(23)))
    expm1 = v.fma(scale, expm1_r, v.op("fsub", scale, v.const(1.0)))
    return v.call("copysign", v.op("fdiv", expm1, v.op("fadd", expm1, v.const(2.0))), x)


def _sigmoid(v: _Vector, x: str) -> str:
    """1/(1+e) for x >= 0 and e/(1+e) for x < 0, with e = exp(-|x|): neither tail loses digits."""
    negative = v.b.emit(f"fneg {v.type} {v.call('fabs', x)}")
    if v.element == "double":
        e = _libm(v, "exp", negative)
    else:
        e = _exp_of_clamped(v, negative if _has_scalef(v) else v.at_least(-104.0, negative))
    numerator = v.select(v.compare("oge", x, v.const(0.0)), v.const(1.0), e)
    return v.op("fdiv", numerator, v.op("fadd", e, v.const(1.0)))


def _erf(v: _Vector, x: str) -> str:
    """x + x*P(x*x) below 1; 1 - exp(-Q(|x|)) above, where erf(4) rounds to 1."""
    near = v.fma(x, v.polynomial(_ERF_NEAR, v.op("fmul", x, x)), x)
    magnitude = v.call("fabs", x)
    log_erfc = v.b.emit(f"fneg {v.type} {v.polynomial(_ERF_FAR, v.at_most(4.0, magnitude))}")
    far = v.op("fsub", v.const(1.0), _exp_of_clamped(v, log_erfc))
    return v.select(v.compare("olt", magnitude, v.const(1.0)), near, v.call("copysign", far, x))


_F32: dict[str, Callable[[_Vector, str], str]] = {
    "exp": _exp,
    "exp2": _exp2,
    "log": _log,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
}


# ------------------------------------------------------------------------------------------ wide vectors and f64
def _emit_in_parts(b: Builder, op: str, lanes: int, native: int, x: str, *, features: frozenset[str]) -> str:
    """A vector wider than a register, register by register (AVX-512 intrinsics exist for one register only)."""
    parts = []
    for first in range(0, lanes, native):
        part = _shuffle(b, x, "poison", lanes, native, first=first)
        parts.append(emit_map(b, op, native, "f32", [part], features=features))
    return _join(b, parts, lanes)


def _join(b: Builder, parts: list[str], lanes: int) -> str:
    """One vector of `lanes` from equal parts of it."""
    width = lanes // len(parts)
    while len(parts) > 1:
        parts += ["poison"] * (len(parts) % 2)
        parts = [_shuffle(b, low, high, width, 2 * width) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        width *= 2
    return parts[0] if width == lanes else _shuffle(b, parts[0], "poison", width, lanes)


def _shuffle(b: Builder, low: str, high: str, width: int, lanes: int, *, first: int = 0) -> str:
    """Lanes first .. first+lanes of the pair (low, high), each of `width` floats."""
    indices = ", ".join(f"i32 {first + i}" for i in range(lanes))
    return b.emit(f"shufflevector <{width} x float> {low}, <{width} x float> {high}, <{lanes} x i32> <{indices}>")


def _emit_f64(v: _Vector, op: str, x: str) -> str:
    if op in ("sqrt", "rsqrt", "sigmoid"):
        return _F32[op](v, x)
    return _libm(v, op, x)


def _libm(v: _Vector, name: str, x: str) -> str:
    """libm's function of doubles, called once for each lane."""
    v.b.declare(f"declare double @{name}(double)")
    if v.lanes == 1:
        return v.b.emit(f"call double @{name}(double {x})")
    result = "poison"
    for lane in range(v.lanes):
        element = v.b.emit(f"extractelement {v.type} {x}, i32 {lane}")
        element = v.b.emit(f"call double @{name}(double {element})")
        result = v.b.emit(f"insertelement {v.type} {result}, double {element}, i32 {lane}")
    return result
