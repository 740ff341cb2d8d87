"""Barriers of a scheduled program as C++: waits, arrivals, and the bytes that copies will bring."""

from __future__ import annotations

from tilewright.emit.cuda_plan import Plan, number
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

TURNS = 5
"""The first of the named barriers by which warpgroups take turns; those before meet for other reasons."""
AHEAD = 8
"""The first of the named barriers by which a warpgroup lets the next one begin."""


def wait(text: Text, sync: ir.Sync, free: bool) -> None:
    """Until a slot is full, or, for who fills it, free: a fresh ring is free, so the first turn passes at once."""
    text.line(f"{cname(sync.name)}[slot.index].wait(slot.phase{' ^ 1' if free else ''});")


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


def expect(plan: Plan, text: Text, sync: ir.Sync) -> None:
    """One arrival, and the bytes of the buffers that the barrier guards."""
    guards = ir.note(sync.notes, "guards")
    names = guards if isinstance(guards, tuple) else (guards,)
    total = sum(plan.rings[str(n)].slot_bytes for n in names)
    text.line(f"{cname(sync.name)}[slot.index].expect({total});")


def arrive(plan: Plan, text: Text, sync: ir.Sync, slot: str) -> None:
    """One arrival a warp: at this block's barrier, or at that of every block of the cluster."""
    barrier = f"{cname(sync.name)}[{slot}]"
    if ir.note(sync.notes, "scope") == "cluster":
        text.line(f"if (lane < {plan.cluster}) arrive_there({cname(sync.name)}_there + 8 * {_in_brackets(slot)});")
    else:
        text.line(f"if (lane == 0) {barrier}.arrive();")


def declare(plan: Plan, text: Text) -> None:
    """Pointers to the barriers in shared memory."""
    filled = {s.name for s in plan.statements if isinstance(s, ir.Sync) and s.action == "expect"}
    for b in plan.barriers.values():
        what = "parts of other blocks have come" if b.bytes else f"each of {b.slots} slots is "
        what += "" if b.bytes else "full" if b.name in filled else "free again"
        text.line(f"Barrier* const {cname(b.name)} = (Barrier*)(shared + {b.offset});  // {what}")


def initialise(plan: Plan, text: Text) -> None:
    """What one thread does before anybody uses a barrier."""
    for b in plan.barriers.values():
        if b.slots == 1:
            text.line(f"{cname(b.name)}->init({b.count});")
            if b.bytes:
                text.line(f"if (rank < {plan.shares}) {cname(b.name)}->expect({b.bytes});")
        else:
            text.line(f"for (int i = 0; i < {b.slots}; ++i) {cname(b.name)}[i].init({b.count});")
    text.line("fence_barriers();")


def peers(plan: Plan, text: Text) -> None:
    """Where the barriers of other blocks lie that this warp's lanes arrive at."""
    for name in _spread(plan):
        text.line(f"const unsigned {cname(name)}_there = peer_address({cname(name)}, lane % {plan.cluster});")


def drain(plan: Plan, text: Text) -> None:
    """Whoever fills the ring stays until every slot is free: nobody leaves while others may still signal here.

    A meeting of the cluster would do only with its fences: a signal may be on its way when its sender has met.
    """
    for name in _spread(plan):
        slots = plan.barriers[name].slots
        wait = f"{cname(name)}[slot.index].wait(slot.phase ^ 1);"
        text.line(f"for (int i = 0; i < {slots}; ++i, slot.next()) {wait}")


def _spread(plan: Plan) -> list[str]:
    """Barriers at which blocks of a cluster arrive from outside."""
    return sorted({
        s.name
        for s in plan.statements
        if isinstance(s, ir.Sync) and s.action == "arrive" and ir.note(s.notes, "scope") == "cluster"
    })  # fmt: skip


def _in_brackets(slot: str) -> str:
    return slot if slot.replace(".", "").isidentifier() else f"({slot})"
