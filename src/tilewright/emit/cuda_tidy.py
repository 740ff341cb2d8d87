"""CUDA C++ tidied for readers: no braces in braces, one statement behind its condition, the design under the title."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import wrap

_WIDTH = 118
"""Columns of a line that is put together here."""
_WIDEST = 140
"""Columns of a statement with its condition before it."""
_ASKED = {"group": "const int group = warp / 4;", "team": "const Team<128> team{"}
"""Declarations that are written for every role, by the name that they declare."""


def tidied(lines: list[str]) -> list[str]:
    """The same program with fewer lines."""
    return _behind_conditions(_without_double_braces(_without_unread(lines)))


def titled(source: str, sizes: Iterable[tuple[str, object]], decisions: Iterable[tuple[str, object]]) -> str:
    """`source` with the sizes that it is for and the decisions of its design as comments behind its first line."""
    first, rest = source.split("\n", 1)
    named = [f"{name}={n}" for name, n in sizes]
    chosen = [f"{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in decisions]
    told = " ".join(f"{title}: {' '.join(words)}" for title, words in (("sizes", named), ("design", chosen)) if words)
    comment = wrap(told, _WIDTH, initial_indent="// ", subsequent_indent="//   ", break_on_hyphens=False)
    return "\n".join([first, *comment, rest])


def _ends(lines: list[str]) -> dict[int, int]:
    """The line that closes each block, by the line that opens it."""
    opened: list[int] = []
    found: dict[int, int] = {}
    for n, line in enumerate(lines):
        code = line.split("  //")[0]
        if line.lstrip().startswith("}") and opened:
            found[opened.pop()] = n
        if code.endswith("{"):
            opened.append(n)
    return found


def _without_double_braces(lines: list[str]) -> list[str]:
    """A block without a condition that is all there is in another one, or one statement, has no braces of its own."""
    lines, ends = list(lines), _ends(lines)
    gone: set[int] = set()
    for begin, end in ends.items():
        bare = lines[begin].strip() == "{" and lines[end].strip() == "}" and begin > 0
        alone = end == begin + 2 and lines[begin + 1].endswith(";") and not _declares(lines[begin + 1])
        if bare and (alone or ends.get(begin - 1) == end + 1):
            gone |= {begin, end}
            lines[begin + 1 : end] = [x.removeprefix("  ") for x in lines[begin + 1 : end]]
    return [x for n, x in enumerate(lines) if n not in gone]


def _declares(line: str) -> bool:
    return " = " in line or line.lstrip().startswith("const ")


def _behind_conditions(lines: list[str]) -> list[str]:
    """`if (condition) statement;` on one line, and `else statement;` on the next, where they fit."""
    made: list[str] = []
    n = 0
    while n < len(lines):
        joined = _joined(lines[n : n + 3], "}")
        both = _both(lines[n : n + 5])
        made += both or [joined or lines[n]]
        n += 5 if both else 3 if joined else 1
    return made


def _both(block: list[str]) -> list[str]:
    """The two sides of a condition as two lines; nothing where they are none."""
    if len(block) < 5 or block[2].strip() != "} else {":
        return []
    first = _joined(block[:3], "} else {")
    second = _joined([block[2].replace("} else {", "if () {"), *block[3:]], "}")
    return [first, second.replace("if () ", "else ")] if first and second else []


def _joined(block: list[str], end: str) -> str:
    """Three lines, the last of which is `end`, as one; nothing where they are no such block."""
    if len(block) < 3 or block[2].strip() != end:
        return ""
    opening, statement = block[0], block[1].strip()
    simple = statement.endswith(";") and not statement.startswith(("const ", "//", "for ", "#"))
    if not opening.lstrip().startswith("if (") or not opening.endswith(") {") or not simple:
        return ""
    line = f"{opening.removesuffix('{')}{statement}"
    return line if len(line) <= _WIDEST else ""


def _without_unread(lines: list[str]) -> list[str]:
    """Who a thread is stands only where somebody asks."""
    text = "\n".join(lines)
    unread = [
        opening for name, opening in _ASKED.items() if len(re.findall(rf"\b{name}\b", text)) == text.count(opening)
    ]
    return [x for x in lines if not x.lstrip().startswith(tuple(unread))] if unread else lines


__all__ = ["tidied", "titled"]
