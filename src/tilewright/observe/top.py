"""The live table of `tilewright top`: shapes, kernels, hits, misses, swaps and saved seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

_NUMBERS = ("calls", "hits", "misses", "swaps")


def rendered(state: Mapping[str, Any], rows: int = 20) -> Group:
    """What `live.read` gave, as a table with a line above and the latest events below it."""
    shown = [row for row in state["rows"] if row.get("calls")][:rows]
    table = Table("shape", "kernel", *_NUMBERS, "us", "generic us", "saved s", "why", expand=True)
    for row in shown:
        table.add_row(*cells(row))
    recent = Text("\n".join(str(e.get("text", "")) for e in state.get("events", ())[-5:]), style="dim")
    return Group(Text(_headline(state)), table, recent)


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    return (
        str(row["shape"]),
        str(row["design"] or "generic")[:12],
        *(f"{row[name]:,}" for name in _NUMBERS),
        _micro(row["seconds"]),
        _micro(row["generic_seconds"]),
        f"{row['saved_seconds']:.2f}",
        f"{row['state']}: {row['reason']}",
    )


def _headline(state: Mapping[str, Any]) -> str:
    learner, counts = state.get("learner") or {}, state.get("counts") or {}
    queued, promoted = learner.get("queued", 0), learner.get("promoted", 0)
    doing = f"{learner.get('state', 'no learner')}, {queued} queued, {promoted} promoted"
    return (
        f"process {state['pid']}, mode {state['mode']}, numerics {state['numerics']}: {doing}; "
        f"{counts.get('compiles', 0)} compiled, {counts.get('loads', 0)} from disk, {state['evictions']} evicted"
    )


def _micro(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:.1f}"


__all__ = ["cells", "rendered"]
