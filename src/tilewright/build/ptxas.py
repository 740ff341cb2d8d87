"""What ptxas says of a kernel: registers, spills, stack and shared memory, read from its log."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_BARRIERS = re.compile(r"used (\d+) barriers")
_SHARED = re.compile(r"(\d+) bytes smem")
_WARNING = re.compile(
    r"^(?:ptxas )?(?:warning|info)\s*:?\s*(.*C7\d{3}.*|.*setmaxnreg.*ignored.*|.*serialized.*)$", re.MULTILINE
)


@dataclass(frozen=True)
class Report:
    """Of one kernel: registers a thread; bytes of stack, spills and static shared memory; what ptxas warns of."""

    registers: int
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    barriers: int = 0
    shared: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def spills(self) -> int:
        """Bytes stored to and loaded from local memory."""
        return self.spill_stores + self.spill_loads

    def to_dict(self) -> dict[str, object]:
        """Plain data."""
        return {**asdict(self), "warnings": list(self.warnings)}


def parse_report(log: str, entry: str) -> Report:
    """The report on `entry` in the output of `ptxas -v`; ValueError if it is not there."""
    found = list(_ENTRY.finditer(log))
    for n, match in enumerate(found):
        if match.group(1) == entry:
            end = found[n + 1].start() if n + 1 < len(found) else len(log)
            return _section(log[match.start() : end], tuple(w.strip() for w in _WARNING.findall(log)))
    raise ValueError(f"ptxas says nothing of {entry}")


def _section(text: str, warnings: tuple[str, ...]) -> Report:
    stack = _STACK.search(text)
    frame, stores, loads = (int(g) for g in stack.groups()) if stack else (0, 0, 0)
    numbers = [int(m.group(1)) if (m := rule.search(text)) else 0 for rule in (_USED, _BARRIERS, _SHARED)]
    return Report(numbers[0], frame, stores, loads, numbers[1], numbers[2], warnings)


__all__ = ["Report", "parse_report"]
