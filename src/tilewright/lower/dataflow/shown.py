"""Which decisions of a design a scheduled program shows: one that it does not show has no effect."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tilewright.design.design import Design
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.lower.dataflow.stages import lower_dataflow


def check_shown(lowered: ir.Kernel, design: Design) -> None:
    """IllegalDesign where units are given to a stage, or slots to a buffer, that the program does not have."""
    roles = ", ".join(dict.fromkeys(s.name for s in ir.walk(lowered.body) if isinstance(s, ir.Role)))
    wrong = [
        f"units.{name}: there is no such stage; there are {roles}"
        for name, _ in design.prefixed("units") if name not in roles.split(", ")
    ]  # fmt: skip
    buffers = [s.name for s in ir.walk(lowered.body) if isinstance(s, ir.Alloc)]
    crossing = ", ".join(dict.fromkeys(name.partition("_buf")[0] for name in buffers)) or "nothing"
    for kind in ("stages", "buffer"):
        for value, _ in design.prefixed(kind):
            if not any(re.fullmatch(rf"{re.escape(value)}_buf(_\d+)*", name) for name in buffers):
                wrong.append(f"{kind}.{value}: no buffer holds it; {crossing} crosses stages")
    if wrong:
        raise IllegalDesign(f"{lowered.name} does not show what its design decides: {'; '.join(wrong)}")


_STRUCTURE = ("stages", "buffer", "carry")


@dataclass
class Needs:
    """Which decisions on buffers change the stages of a program; tiles, copies and units do not change the answer."""

    kernel: ir.Kernel
    _stages: dict[Design, tuple[ir.Stmt, ...]] = field(default_factory=dict)

    def of(self, design: Design) -> Design:
        """The design without those that change nothing: slots that are as many anyway, an owner that is one."""
        asked = Design(tuple((n, c) for n, c in design.decisions if n.partition(".")[0] in _STRUCTURE))
        needed = asked
        for name, _ in asked.decisions:
            fewer = Design(tuple((n, c) for n, c in needed.decisions if n != name))
            if self._of(fewer) == self._of(needed):
                needed = fewer
        dropped = set(dict(asked.decisions)) - set(dict(needed.decisions))
        return Design(tuple((n, c) for n, c in design.decisions if n not in dropped))

    def _of(self, design: Design) -> tuple[ir.Stmt, ...]:
        if design not in self._stages:
            self._stages[design] = lower_dataflow(self.kernel, design, "").body
        return self._stages[design]
