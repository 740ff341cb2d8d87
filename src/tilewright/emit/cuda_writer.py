"""C++ text as it is written: indented lines, and names that are no words of C++."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.language.dtypes import DType

_WORDS = frozenset(
    "alignas auto bool break case catch char class const constexpr continue default delete do double else enum "
    "explicit extern false float for friend goto if inline int long mutable namespace new operator private "
    "protected public register return short signed sizeof static struct switch template this throw true try typedef "
    "typename union unsigned using virtual void volatile while asm args axis team tw smem block min max abs exp log "
    "sqrt erf tanh unit "
    "uint uint2 uint4 float2 float4 int2 int4 warpSize threadIdx blockIdx blockDim gridDim".split()
)
_TYPES = {
    "f64": "double",
    "f32": "float",
    "bf16": "tw::bf16",
    "f16": "tw::f16",
    "f8e4m3": "tw::f8e4m3",
    "i64": "tw::i64",
    "i32": "int",
    "i8": "tw::i8",
    "bool": "bool",
}


class Writer:
    """Lines of C++, indented by the blocks that are open."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0

    def line(self, text: str) -> None:
        """One line."""
        self.lines.append("  " * self._depth + text if text and not text.startswith("#") else text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """`head {`, what is written inside, and `}`."""
        self.line(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    def text(self) -> str:
        """All that was written."""
        return "\n".join(self.lines) + "\n"


def cname(name: str) -> str:
    """The C++ name of a value, axis, buffer or dimension."""
    return f"{name}_" if name in _WORDS else name


def ctype(dtype: DType) -> str:
    """The C++ type of an element."""
    return _TYPES[dtype.name]


__all__ = ["Writer", "cname", "ctype"]
