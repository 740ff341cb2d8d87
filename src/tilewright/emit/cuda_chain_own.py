"""Steps of a chain that a warpgroup takes for its own rows, and those that it leaves to others, as C++.

The producer brings the columns of all rows of a block. What only other rows see counts as read once it is there, so
that barriers and turns go on as if all took every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.emit.cuda_sync import TURNS

if TYPE_CHECKING:
    from tilewright.emit.cuda_chain_step import Step

_PAIR = 256


def own_columns(step: Step, low: str, high: str) -> None:
    """Columns that this warpgroup's rows see, of those that the producer brings; steps before them are skipped."""
    line, at, name, row = step.text.line, step.at, step.axis.name, step.body.rows.axes[-1]
    step.end = f"{name}_end"
    size = step.plan.size(step.plan.root(row.over))
    line(f"const int {high} = {row.name}_mine < {size} ? min({step.high}, {step.end}) : {low};")
    line(f"int {at} = {low};")
    if step.axis.start is not None:
        line(f"const int {name}_from = {step.low};")
        skip(step, f"{at} + {step.step} <= {name}_from && {at} < {step.end}")
    line(f"const int {name}_first = {at};")


def skip(step: Step, condition: str) -> None:
    """Steps that other warpgroups take; none where all take the same."""
    if not step.owner.trims:
        return
    body = step.body
    with step.text.block(f"for (; {condition}; {step.at} += {step.step}, slot.next())"):
        if body.turn:
            step.text.line(f"meet({TURNS} + group, {_PAIR});")
            step.text.line(f"pass({TURNS} + (group + 1) % {step.plan.groups}, {_PAIR});")
        for sync in (*body.waits, *(s.full for s in body.sums)):
            step.wait(sync, "slot")
        for sync in (*body.frees, *(s.empty for s in body.sums if s.empty is not None)):
            step.arrive(sync, "slot")


__all__ = ["own_columns", "skip"]
