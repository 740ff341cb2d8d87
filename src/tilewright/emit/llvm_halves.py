"""Conversions between f32 and narrower floats, in integer arithmetic where the processor has no instruction.

LLVM would call a function of its run-time library for each element, which the process need not have. All
round to nearest even, keep infinities, denormals and the sign of zero, and make a NaN quiet. A bf16 is an
i16 on either side, an e4m3 an i8 (no infinity; what is too large becomes its NaN).
"""

from __future__ import annotations

from tilewright.emit.llvm_builder import Builder

# Families of features of which each has the conversion of whole vectors.
_F16_FEATURES = frozenset({"f16c", "avx512f", "fp-armv8"})
_BF16_FEATURES = frozenset({"avx512bf16"})


def has_conversion(source: str, target: str, features: frozenset[str]) -> bool:
    """Whether LLVM converts between these dtypes (by their names, neither bf16) by instructions."""
    if "f8e4m3" in (source, target):
        return False
    return "f16" not in (source, target) or bool(features & _F16_FEATURES)


def convert(b: Builder, value: str, source: str, target: str, width: int, features: frozenset[str]) -> str:
    """`value` (a scalar, or a vector of `width`) from f32 to bf16, f16 or e4m3, or from one of them to f32."""
    words = _Words(b, width)
    match source, target:
        case "bf16", "f32":
            return _from_bf16(words, value)
        case "f32", "bf16":
            return _to_bf16_directly(words, value) if features & _BF16_FEATURES else _to_bf16(words, value)
        case "f32", "f16":
            return _to_f16(words, value)
        case "f16", "f32":
            return _from_f16(words, value)
        case "f8e4m3", "f32":
            return _from_f8(words, value)
        case "f32", "f8e4m3":
            return _to_f8(words, value)
    raise AssertionError((source, target))


class _Words:
    """Writes operations on 32-bit integers: one of them, or a vector of `width`."""

    def __init__(self, b: Builder, width: int) -> None:
        self.b, self.width = b, width
        self.i32, self.f32, self.i16, self.i8 = (self.of(t) for t in ("i32", "float", "i16", "i8"))

    def of(self, element: str) -> str:
        return element if self.width == 1 else f"<{self.width} x {element}>"

    def const(self, value: int) -> str:
        return str(value) if self.width == 1 else f"splat (i32 {value})"

    def op(self, name: str, x: str, y: int | str) -> str:
        return self.b.emit(f"{name} {self.i32} {x}, {self.const(y) if isinstance(y, int) else y}")

    def float_op(self, name: str, x: str, y: int) -> str:
        """fadd, fsub or fmul of the float with bits `x` and the float with bits `y`, as bits."""
        return self.bits(self.b.emit(f"{name} {self.f32} {self.floats(x)}, {self.floats(self.const(y))}"))

    def bits(self, x: str) -> str:
        return self.b.emit(f"bitcast {self.f32} {x} to {self.i32}")

    def choose(self, predicate: str, x: str, y: int, then: int | str, other: int | str) -> str:
        """`then` where the icmp holds, else `other`."""
        holds = self.b.emit(f"icmp {predicate} {self.i32} {x}, {self.const(y)}")
        a, c = (self.const(v) if isinstance(v, int) else v for v in (then, other))
        return self.b.emit(f"select {self.of('i1')} {holds}, {self.i32} {a}, {self.i32} {c}")

    def low(self, x: str) -> str:
        """The lower halves, as i16."""
        return self.b.emit(f"trunc {self.i32} {x} to {self.i16}")

    def wide(self, x: str) -> str:
        """i16 as i32, the upper halves zero."""
        return self.b.emit(f"zext {self.i16} {x} to {self.i32}")

    def floats(self, x: str) -> str:
        return self.b.emit(f"bitcast {self.i32} {x} to {self.f32}")


_INFINITY = 0x7F800000


def _from_bf16(w: _Words, value: str) -> str:
    return w.floats(w.op("shl", w.wide(value), 16))


def _to_bf16_directly(w: _Words, value: str) -> str:
    """By the instruction of the processor."""
    half = w.b.emit(f"fptrunc {w.f32} {value} to {w.of('bfloat')}")
    return w.b.emit(f"bitcast {w.of('bfloat')} {half} to {w.i16}")


def _to_bf16(w: _Words, value: str) -> str:
    bits = w.bits(value)
    odd = w.op("and", w.op("lshr", bits, 16), 1)
    rounded = w.op("lshr", w.op("add", w.op("add", bits, odd), 0x7FFF), 16)
    quiet = w.op("or", w.op("lshr", bits, 16), 0x40)
    return w.low(w.choose("ugt", w.op("and", bits, 0x7FFFFFFF), _INFINITY, quiet, rounded))


# 2^16, the first power of two beyond f16; 2^-14, its smallest normal; 0.5, whose last bit is that of the denormals.
_BEYOND_F16, _NORMAL_F16, _HALF = 0x47800000, 0x38800000, 0x3F000000


def _to_f16(w: _Words, value: str) -> str:
    bits = w.bits(value)
    magnitude = w.op("and", bits, 0x7FFFFFFF)
    # A normal: the exponent is biased anew, and the carry of rounding may go up to infinity.
    odd = w.op("and", w.op("lshr", magnitude, 13), 1)
    rebiased = w.op("add", w.op("add", magnitude, odd), 0xFFF - (112 << 23))
    normal = w.op("lshr", rebiased, 13)
    # A denormal: adding 0.5 lets the addition round at its last bit.
    denormal = w.op("sub", w.float_op("fadd", magnitude, _HALF), _HALF)
    finite = w.choose("ult", magnitude, _NORMAL_F16, denormal, normal)
    special = w.choose("ugt", magnitude, _INFINITY, 0x7E00, 0x7C00)
    half = w.choose("uge", magnitude, _BEYOND_F16, special, finite)
    signed = w.low(w.op("or", half, w.op("and", w.op("lshr", bits, 16), 0x8000)))
    return w.b.emit(f"bitcast {w.i16} {signed} to {w.of('half')}")


def _from_f16(w: _Words, value: str) -> str:
    word = w.wide(w.b.emit(f"bitcast {w.of('half')} {value} to {w.i16}"))
    # Exponent and fraction in place, as a float that is 2^112 too small; the product is exact, for denormals too.
    scaled = w.float_op("fmul", w.op("shl", w.op("and", word, 0x7FFF), 13), 0x77800000)
    magnitude = w.choose("uge", scaled, _BEYOND_F16, w.op("or", scaled, _INFINITY), scaled)
    return w.floats(w.op("or", magnitude, w.op("shl", w.op("and", word, 0x8000), 16)))


# The bits of f32 by which exponents of f32 are larger than those of e4m3, and where its 3 bits of fraction end.
_BIAS_F8, _FRACTION_F8 = 120 << 23, 20
# 2^-6, the smallest normal e4m3; 2^14, whose last bit is that of its denormals; 2^-9, that bit; 0x7F, its NaN.
_NORMAL_F8, _LAST_F8, _STEP_F8, _NAN_F8 = 0x3C800000, 0x46800000, 0x3B000000, 0x7F


def _to_f8(w: _Words, value: str) -> str:
    bits = w.bits(value)
    magnitude = w.op("and", bits, 0x7FFFFFFF)
    odd = w.op("and", w.op("lshr", magnitude, _FRACTION_F8), 1)
    normal = w.op("lshr", w.op("add", w.op("add", magnitude, odd), 0x7FFFF - _BIAS_F8), _FRACTION_F8)
    denormal = w.op("sub", w.float_op("fadd", magnitude, _LAST_F8), _LAST_F8)
    large = w.choose("ugt", normal, _NAN_F8 - 1, _NAN_F8, normal)
    small = w.choose("ult", magnitude, _NORMAL_F8, denormal, large)
    signed = w.op("or", small, w.op("and", w.op("lshr", bits, 24), 0x80))
    return w.b.emit(f"trunc {w.i32} {signed} to {w.i8}")


def _from_f8(w: _Words, value: str) -> str:
    word = w.b.emit(f"zext {w.i8} {value} to {w.i32}")
    magnitude = w.op("and", word, 0x7F)
    normal = w.op("add", w.op("shl", magnitude, _FRACTION_F8), _BIAS_F8)
    # Not by a multiplication of denormals, each of which would cost the processor a hundred cycles.
    counted = w.bits(w.b.emit(f"sitofp {w.i32} {magnitude} to {w.f32}"))
    finite = w.choose("ult", magnitude, 8, w.float_op("fmul", counted, _STEP_F8), normal)
    known = w.choose("eq", magnitude, _NAN_F8, 0x7FC00000, finite)
    return w.floats(w.op("or", known, w.op("shl", w.op("and", word, 0x80), 24)))
