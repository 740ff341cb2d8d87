"""Which decisions of a design a scheduled program shows: one that it does not show has no effect."""

from __future__ import annotations

import re

from tilewright.design.design import Design
from tilewright.errors import IllegalDesign
from tilewright.language import ir
from tilewright.lower.dataflow.stages import lower_dataflow


def check_shown(lowered: ir.Kernel, design: Design) -> None:
    """IllegalDesign where units are given to a stage, or slots to a buffer, that the program does not have."""
    roles = dict.fromkeys(s.name for s in ir.walk(lowered.body) if isinstance(s, ir.Role))
    buffers = dict.fromkeys(s.name for s in ir.walk(lowered.body) if isinstance(s, ir.Alloc))
    wrong = [f"units.{name}: there is no such stage; there are {', '.join(roles)}" for name, _ in design.prefixed("units")
             if name not in roles]  # fmt: skip
    for kind in ("stages", "buffer"):
        for value, _ in design.prefixed(kind):
            if not any(re.fullmatch(rf"{re.escape(value)}_buf(_\d+)?", name) for name in buffers):
                crossing = ", ".join(name.partition("_buf")[0] for name in buffers) or "nothing"
                wrong.append(f"{kind}.{value}: no buffer holds it; {crossing} crosses stages")
    if wrong:
        raise IllegalDesign(f"{lowered.name} does not show what its design decides: {'; '.join(wrong)}")


def needed(kernel: ir.Kernel, design: Design) -> Design:
    """The design without decisions on buffers that change nothing: slots that are as many anyway, an owner that is one."""
    body = lower_dataflow(kernel, design, "").body
    for kind in ("stages", "buffer", "carry"):
        for value, _ in design.prefixed(kind):
            fewer = Design(tuple((n, c) for n, c in design.decisions if n != f"{kind}.{value}"))
            if lower_dataflow(kernel, fewer, "").body == body:
                design = fewer
    return design
