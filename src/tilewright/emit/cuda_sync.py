"""Barriers of a scheduled program as C++: waits, arrivals, and the bytes that copies will bring."""

from __future__ import annotations

from tilewright.emit.cuda_plan import Plan, number
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

TURNS = 5
"""The first of the named barriers by which warpgroups take turns; those before meet for other reasons."""
AHEAD = 8
"""The first of the named barriers by which a warpgroup lets the next one begin."""


def wait(text: Text, sync: ir.Sync, free: bool, slot: str = "slot") -> None:
    """Until a slot is full, or, for who fills it, free."""
    text.line(f"{cname(sync.name)}.wait_{'free' if free else 'full'}({slot});")


def turn(text: Text, sync: ir.Sync) -> None:
    """Warpgroups take turns by named barriers: each waits at its own, and lets the next one pass."""
    threads = 32 * number(sync, "count", 8)
    if sync.action == "wait":
        text.line(f"meet({TURNS} + group, {threads});")
    else:
        text.line(f"pass({TURNS} + (group + 1) % {threads // 128}, {threads});")


def begin(plan: Plan, text: Text) -> None:
    """A warpgroup begins some steps after the one before it, so that it multiplies while that one ends its tile."""
    if plan.stagger:
        text.line(f"unsigned ahead = {plan.stagger};  // steps until the next warpgroup begins")
        text.line(f"if (group > 0) meet({AHEAD} + group, 256);")


def step_ahead(plan: Plan, text: Text) -> None:
    """One step is done: of the first ones the last lets the next warpgroup begin."""
    if plan.stagger:
        text.line(f"if (ahead != 0 && --ahead == 0 && {_has_next(plan)}) pass({AHEAD + 1} + group, 256);")


def let_begin(plan: Plan, text: Text) -> None:
    """Whoever had fewer steps than that lets the next one begin at its end."""
    if plan.stagger:
        text.line(f"if (ahead != 0 && {_has_next(plan)}) pass({AHEAD + 1} + group, 256);")


def _has_next(plan: Plan) -> str:
    return f"group < {plan.groups - 1}"


def open_turns(plan: Plan, text: Text) -> None:
    """The last warpgroup lets the first one begin."""
    found = next(
        (
            s
            for s in plan.statements
            if isinstance(s, ir.Sync) and ir.note(s.notes, "stage") is None and s.action == "arrive"
        ),
        None,
    )
    if found is not None:
        threads = 32 * number(found, "count", 8)
        text.line(f"if (group == {threads // 128 - 1}) pass({TURNS}, {threads});")


def expect(plan: Plan, text: Text, sync: ir.Sync, slot: str = "slot") -> None:
    """One arrival, and the bytes of the buffers that the barrier guards."""
    guards = ir.note(sync.notes, "guards")
    names = guards if isinstance(guards, tuple) else (guards,)
    total = sum(plan.rings[str(n)].slot_bytes for n in names)
    text.line(f"{cname(sync.name)}[{slot}].expect({total});")


def arrive(text: Text, sync: ir.Sync, slot: str, before: bool = False) -> None:
    """One arrival a warp at the barrier of a slot, or of the one `before` it, here or in all blocks of the cluster."""
    everywhere = "_there" if ir.note(sync.notes, "scope") == "cluster" else ""
    text.line(f"{cname(sync.name)}{everywhere}.arrive{'_before' if before else ''}({slot}, lane);")


def declare(plan: Plan, text: Text) -> None:
    """The barriers in shared memory."""
    filled = {s.name for s in plan.statements if isinstance(s, ir.Sync) and s.action == "expect"}
    for b in plan.barriers.values():
        if b.bytes:
            type_, given, what = f"Arrivals<{plan.shares}, {b.bytes}>", ", rank", "parts of other blocks have come"
        else:
            what = "a slot is full" if b.name in filled else "a slot is free again"
            type_, given = f"Barriers<{b.slots}, {b.count}>", ""
        text.line(f"const {type_} {cname(b.name)}(shared + {b.offset}{given});  // {what}")


def set_up(plan: Plan, text: Text, warp: int) -> None:
    """What one thread of a warp does before anybody uses a barrier."""
    text.line(f"if (warp == {warp}) set_up({', '.join(('args.maps', *map(cname, plan.barriers)))});")


def peers(plan: Plan, text: Text) -> None:
    """Where the barriers of other blocks lie that this warp's lanes arrive at."""
    for name in _spread(plan):
        text.line(f"const Everywhere<{plan.cluster}> {cname(name)}_there({cname(name)}, lane);")


def drain(plan: Plan, text: Text) -> None:
    """Whoever fills the ring stays until every slot is free: nobody leaves while others may still signal here.

    A meeting of the cluster would do only with its fences: a signal may be on its way when its sender has met.
    """
    for name in _spread(plan):
        text.line(f"{cname(name)}.drain(slot);")


def _spread(plan: Plan) -> list[str]:
    """Barriers at which blocks of a cluster arrive from outside."""
    return sorted({
        s.name
        for s in plan.statements
        if isinstance(s, ir.Sync) and s.action == "arrive" and ir.note(s.notes, "scope") == "cluster"
    })  # fmt: skip
