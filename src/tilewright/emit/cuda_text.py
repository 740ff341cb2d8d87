"""CUDA C++ as text: lines, blocks in braces, and names that C++ does not take for its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_TAKEN = frozenset(
    "auto bool break case char class const continue default delete do double else enum extern float for goto half if "
    "inline int long new operator private public register return shared short signed sizeof static struct switch "
    "template this throw true try typedef union unsigned using void volatile while args item warp lane group rank "
    "part tile tiles team flag tickets slot turn at axis tw asm alignas catch constexpr explicit export friend mutable "
    "namespace noexcept nullptr throw typeid typename protected wchar_t max min abs exp exp2 log sqrt rsqrt erf tanh floor "
    "unit".split()
)


def cname(name: str) -> str:
    """`name` as a C++ name."""
    return f"{name}_" if name in _TAKEN else name


class Text:
    """Lines of source, each at the depth of the block it stands in."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._depth = 0

    def line(self, text: str) -> None:
        """Append a line."""
        self.lines.append("  " * self._depth + text)

    @contextmanager
    def block(self, opening: str) -> Iterator[None]:
        """`opening {`, what is written inside the `with`, and `}`."""
        self.line(f"{opening} {{" if opening else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.line("}")

    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines) + "\n"
