"""CUDA C++ as text: lines, blocks in braces, and names that C++ does not take for its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.emit.cuda_tidy import tidied
from tilewright.emit.lines import Lines

_WORDS = """
    abs alignas args asm at auto axis bool break case catch char class const constexpr continue default delete
    do double early else enum erf exp exp2 explicit export extern flag float floor for friend goto group half if
    inline int item lane log long max min mutable namespace new noexcept nullptr operator part private protected
    public rank register return rsqrt shared short signed sizeof slot sqrt static struct switch tanh team
    template this throw tickets tile tiles true try turn tw typedef typeid typename union unit unsigned using
    void volatile warp wchar_t while
"""
_TAKEN = frozenset(_WORDS.split())


def cname(name: str) -> str:
    """`name` as a C++ name."""
    return f"{name}_" if name in _TAKEN else name


class Text(Lines):
    """Lines of source."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[set[str]] = [set()]  # what the blocks that are open have declared

    def once(self, declaration: str) -> None:
        """A declaration, unless it stands in this block already."""
        if declaration not in self._said[-1]:
            self._said[-1].add(declaration)
            self.line(declaration)

    @contextmanager
    def block(self, opening: str, comment: str = "") -> Iterator[None]:
        """`opening {`, what is written inside the `with`, and `}`; an `else` stands behind the brace before it."""
        if opening.startswith("else") and self.lines[-1].strip() == "}":
            opening = f"}} {opening}"
            self.lines.pop()
        self.line((f"{opening} {{" if opening else "{") + (f"  // {comment}" if comment else ""))
        self._said.append(set())
        with self.deeper():
            yield
        self._said.pop()
        self.line("}")

    def text(self) -> str:
        """All lines, tidied."""
        self.lines = tidied(self.lines)
        return super().text()
