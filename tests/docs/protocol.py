"""The roles of a scheduled program played as concurrent processes: do its barriers fit together?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.language import ir


def number(node: ir.Alloc | ir.Role | ir.Loop | ir.Sync, key: str, default: int = 1) -> int:
    value = ir.note(node.notes, key, default)
    assert isinstance(value, int)
    return value


def of_kind(kernel: ir.Kernel, kind: type[Any]) -> list[Any]:
    return [s for s in ir.walk(kernel.body) if isinstance(s, kind)]


@dataclass
class Barrier:
    """Arrivals by slot, and how often each role came by."""

    arrived: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    visits: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))


class Protocol:
    """The roles of a program as concurrent processes that meet at its barriers; one block stands for its cluster."""

    def __init__(self, kernel: ir.Kernel, trips: int, seed: int) -> None:
        self.trips, self.random = trips, np.random.default_rng(seed)
        self.stages = {a.name: number(a, "stages") for a in of_kind(kernel, ir.Alloc)}
        self.warps = {r.name: number(r, "warps") for r in of_kind(kernel, ir.Role)}
        self.members: dict[str, set[str]] = defaultdict(set)
        for role in of_kind(kernel, ir.Role):
            for s in ir.walk(role.body):
                if isinstance(s, ir.Sync):
                    self.members[s.name].add(role.name)
        # Which iteration lies in each slot of a ring, and how many each role has filled or read.
        self.slots: dict[tuple[str, int], int] = {}
        self.count: dict[tuple[str, str], int] = defaultdict(int)
        self.filled_by: dict[str, str] = {}
        self.expected: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self.barriers: dict[str, Barrier] = defaultdict(Barrier)
        self.running = {role: self.play(kernel.body, role, None, {}) for role in self.warps}
        for role in of_kind(kernel, ir.Role):
            self.filled_by |= {s.dst.buffer: role.name for s in role.body if isinstance(s, ir.Copy)}

    def run(self) -> str:
        """ "done", or which roles are stuck."""
        waiting = 0
        while self.running:
            role = str(self.random.choice(list(self.running)))
            moved = next(self.running[role], None)
            if moved is None:
                del self.running[role]
            waiting = waiting + 1 if moved is False else 0
            if waiting > 1000:
                return f"stuck: {sorted(self.running)}"
        return "done"

    def play(
        self, body: tuple[ir.Stmt, ...], role: str, inside: str | None, at: dict[str, tuple[bool, bool]]
    ) -> Iterator[bool]:
        """Yield True after a step of `role`, False when it has to wait."""
        for s in body:
            if isinstance(s, ir.Role):
                if s.name == role:
                    yield from self.play(s.body, role, role, at)
            elif isinstance(s, ir.When):
                first, last = at[s.axis]
                if {"first": first, "last": last, "not_first": not first, "not_last": not last}[s.cond]:
                    yield from self.play(s.body, role, inside, at)
            elif isinstance(s, ir.Loop):
                trips = 2 if s.axes[0].name == "i" else self.trips
                for n in range(trips):
                    here = {a.name: (n == 0, n == trips - 1) for a in s.axes}
                    yield from self.play(s.body, role, inside, at | here)
            elif inside == role:
                yield from self.step(s, role)

    def step(self, s: ir.Stmt, role: str) -> Iterator[bool]:
        if isinstance(s, ir.Copy):
            n = self.next((s.dst.buffer, role))
            self.slots[s.dst.buffer, n % self.stages[s.dst.buffer]] = n
            # The bytes that an `expect` announced are there: only now does its arrival count.
            for name, slot in self.expected.pop((role, s.dst.buffer), ()):
                self.barriers[name].arrived[slot] += 1
            yield True
        elif isinstance(s, ir.Sync):
            yield from self.sync(s, role)

    def next(self, key: tuple[str, str]) -> int:
        self.count[key] += 1
        return self.count[key] - 1

    def sync(self, s: ir.Sync, role: str) -> Iterator[bool]:
        barrier, guards = self.barriers[s.name], ir.note(s.notes, "guards", ())
        rings = (guards,) if isinstance(guards, str) else tuple(map(str, guards if isinstance(guards, tuple) else ()))
        depth = min((self.stages[r] for r in rings), default=1)
        n = barrier.visits[role, s.action]
        barrier.visits[role, s.action] += 1
        phase, slot = divmod(n, depth)
        blocks = 2 if ir.note(s.notes, "scope") == "cluster" else 1
        if s.action == "barrier":
            while any(barrier.visits[other, "barrier"] <= n for other in self.members[s.name]):
                yield False
        elif s.action == "expect":
            # Copies of a role land in order, so the last ring of the group completes it.
            self.expected[role, rings[-1]].append((s.name, slot))
        elif s.action == "arrive":
            # What the role read of this ring must still be there when it lets go.
            assert all(self.slots[r, slot] == n for r in rings), f"{s.name}: overwritten while it was read"
            barrier.arrived[slot] += self.warps[role] * blocks
        else:
            free_ahead = any(self.filled_by.get(r) == role for r in rings)
            barrier.arrived[slot] += 0 if rings else self.warps[role]
            while barrier.arrived[slot] // number(s, "count") < phase + (0 if free_ahead else 1):
                yield False
        yield True
