"""The page a thread listing is written on: indented lines, names of registers, and long runs made short."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tilewright.emit.lines import Lines
from tilewright.language import ir

LONGEST = 60
"""Lines of one statement that are printed in full; of more, the first and the last ones."""

_HEAD, _TAIL = 8, 2
_CALL = re.compile(r"(?:= )?([A-Za-z]\w*)\(")


class Page(Lines):
    """Lines of a listing."""

    @contextmanager
    def block(self, opening: str) -> Iterator[None]:
        """`opening`, and what is written inside the `with` one level deeper."""
        self.line(opening)
        before = len(self.lines)
        with self.deeper():
            try:
                yield
            finally:
                if len(self.lines) == before:
                    self.line("pass")

    @contextmanager
    def statement(self) -> Iterator[None]:
        """What is written inside the `with` belongs to one statement: a long run of lines is shortened, and says so."""
        start = len(self.lines)
        yield
        written = self.lines[start:]
        if len(written) > LONGEST:
            left_out = written[_HEAD:-_TAIL]
            kinds = Counter(_kind(line) for line in left_out)
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            more = "  " * self.depth + f"... ({len(left_out)} more: {listed})"
            self.lines[start:] = [*written[:_HEAD], more, *written[-_TAIL:]]


def _kind(line: str) -> str:
    """What a line does: the function it calls, or `arithmetic`."""
    found = _CALL.search(line)
    return found[1] if found else "arithmetic"


class Names:
    """Names of registers: `acc0`, `acc1`, ... for each stem; a register of 2 to 4 lanes shows its elements."""

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._used: Counter[str] = Counter()
        self._taken = {*taken, *ir.MAPS}  # axes, dims, parameters; and functions: exp2 is one

    def new(self, value: str, lanes: int) -> str:
        """A new register for a part of the IR value `value`."""
        stem = value.rstrip("0123456789") or value
        stem = f"{stem}_" if stem[-1].isdigit() else stem
        if not 2 <= lanes <= 4:
            return self._next(stem)
        return "(" + ", ".join(self._next(stem) for _ in range(lanes)) + ")"

    def _next(self, stem: str) -> str:
        number_ = self._used[stem]
        while f"{stem}{number_}" in self._taken:
            number_ += 1
        self._used[stem] = number_ + 1
        return f"{stem}{number_}"


def element(register: str, lane: int) -> str:
    """One lane of a register."""
    return register[1:-1].split(", ")[lane] if register.startswith("(") else f"{register}[{lane}]"


def several(registers: list[str]) -> str:
    """Registers in a row, `acc0 .. acc7` where there are many of consecutive numbers."""
    if len(registers) > 4 and _consecutive(registers):
        return f"{registers[0]} .. {registers[-1]}"
    return ", ".join(registers)


def _consecutive(registers: list[str]) -> bool:
    split = [re.fullmatch(r"(.*?)(\d+)", r) for r in registers]
    first = split[0]
    return first is not None and all(
        m is not None and m[1] == first[1] and int(m[2]) == int(first[2]) + n for n, m in enumerate(split)
    )


# ------------------------------------------------------------------------------------------------ ranges
@dataclass(frozen=True)
class Span:
    """The range of a loop, its ends as text."""

    low: str
    high: str

    @property
    def length(self) -> int | None:
        """How many positions, where that is known."""
        return int(self.high) - int(self.low) if self.low.isdigit() and self.high.isdigit() else None

    def covers(self, step: int) -> bool:
        """Whether tiles of `step` surely fill it."""
        return step == 1 or (self.length is not None and self.length % step == 0)


def range_text(span: Span, step: int, apart: int = 1) -> str:
    """`range(low, high, step)`, or `runs(low, high, step, apart)` of tiles whose positions lie apart."""
    if apart != 1:
        return f"runs({span.low}, {span.high}, {step}, {apart})"
    return f"range({span.low}, {span.high}{f', {step}' if step != 1 else ''})"


# ------------------------------------------------------------------------------------------------ expressions
def shifted(base: str, by: int) -> str:
    """`base + by`, folded where known."""
    if base.lstrip("-").isdigit():
        return str(int(base) + by)
    return f"{base} + {by}" if by else base


def grouped(text: str) -> str:
    """`text` in parentheses, if it is a sum or another expression that must not fall apart."""
    depth = 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == " " and depth == 0:
            return f"({text})"
    return text


INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
         "eq": "==", "ne": "!=", "and": "&", "or": "|"}  # fmt: skip
PREFIX = {"neg": "-", "not": "~"}


def applied(op: str, operands: list[str]) -> str:
    """An elementwise operator on its operands; a cast is named after its target."""
    if op in INFIX:
        return f" {INFIX[op]} ".join(grouped(x) for x in operands)
    if op in PREFIX:
        return PREFIX[op] + grouped(operands[0])
    return f"{op}({', '.join(operands)})"


def number(value: float | int) -> str:
    """A constant with the digits that tell it from its neighbours in f32."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) < 1e6 and value == int(value) else f"{value:.9g}"
