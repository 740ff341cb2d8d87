"""The analytical model of a CPU: a design's loops, counted; the time of each phase on its busiest thread.

    time of a phase = sum over its turns of overlap(issue and copies into panels, L2, L3, memory), by the busiest
                      thread, + one hand-over

The turns of a phase are the serial loops of its tiles: a row's maximum is known before its exponentials begin, so the
memory of one turn does not hide behind the arithmetic of another.
Caches are warm: what fits in a level was left there by the call before. Not modelled: address translation, hardware
prefetchers that give up (short rows), turbo clocks, what other processes do.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from tilewright.design.atoms import TILED
from tilewright.design.cost.issue import Issue
from tilewright.design.cost.nodes import Leaf, Node, Share, share
from tilewright.design.cost.program import Program, program_of
from tilewright.design.cost.rates import LINE, PAGE, Rates, rates_of
from tilewright.design.cost.schedule import Schedule
from tilewright.design.cost.slots import Slots
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.tiling import Tiling
from tilewright.design.cost.traffic import Bytes, entering, kept, touched, working_set
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir

HAND_OVER = 1.0e-6
"""Seconds until all threads have begun and ended a phase (a parked pool: 0.4 to 0.7 us a region)."""

TRIP, ENTRY, TILE = 1.0, 12.0, 30.0
"""Cycles of a loop's counter, of entering and leaving a loop (one branch is guessed wrong), of a dealt tile's place."""

WINDOW, COUNTER = 320.0, 3.0
"""Instructions that a core has under way (Zen 4: 320; Golden Cove: 512), and those of a loop's counter."""

L2_LATENCY, READS_AHEAD, SCRATCH_AHEAD = 14.0, 6.0, 3.0
"""Cycles of a line from L2, and how many reads of one, and stores to a row of scratch, are under way at once."""

SCATTERED = 1.2e-9
"""Seconds that each line costs more which comes from beyond L2 without a prefetcher (a Xeon, notes 0006)."""

OVERLAP = 3.0
"""Exponent p of (sum of t^p)^(1/p): memory levels and arithmetic overlap, but not where two take about as long."""


@dataclass
class Cost:
    """Seconds and counts of the busiest thread, by resource."""

    slots: Slots = field(default_factory=Slots)
    issue: float = 0.0  # s
    copies: float = 0.0  # s
    loops: float = 0.0  # s
    chain: float = 0.0  # s
    spill: float = 0.0  # s
    l2_bytes: float = 0.0
    l3_bytes: float = 0.0
    memory_bytes: float = 0.0
    around_bytes: float = 0.0
    evicted: float = 0.0  # s
    misses: float = 0.0  # cycles
    pages: float = 0.0  # s
    excess: float = 1.0

    def times(self, rates: Rates, threads: int) -> dict[str, float]:
        """Seconds by what they are spent on."""
        memory = self.memory_bytes / rates.memory + self.around_bytes / rates.stream
        return {
            "issue": self.issue,
            "chain": self.chain,
            "spills": self.spill,
            "loops": self.loops,
            "copies": self.copies,
            "L2": max(self.l2_bytes / rates.l2_rate, self.misses) / rates.clock,
            "L3": self.l3_bytes / (rates.l3_rate * rates.clock),
            "pages": self.pages,
            "memory": threads * memory + self.evicted,
        }


class Model:
    """One design of one kernel on one machine."""

    def __init__(self, kernel: ir.Kernel, design: Design, facts: Facts) -> None:
        self.facts = facts
        self.program: Program = program_of(kernel, design)
        self.tiling = Tiling(self.program, design, facts)
        self.threads = max(1, min(facts.team, self.tiling.number("threads", facts.team)))
        self.rates: Rates = rates_of(facts.machine, self.threads)
        self.schedule = Schedule(self.tiling)
        self.issue = Issue(self.tiling, self.rates, self.schedule.panels)

    def estimate(self) -> Estimate:
        """Seconds and terms."""
        shares = [share(p, self.tiling, self.threads) for p in self.schedule.phases]
        held = sum(working_set(s.root.patches.items(), self.rates.l3) for s in shares)
        costs = [self._phase(s, held) for s in shares]
        return _combined(costs, self.rates, self.threads)

    def _phase(self, s: Share, held: float) -> list[Cost]:
        """The turns of a phase: the serial loops of its tiles, of which one waits for the one before."""
        costs: defaultdict[int, Cost] = defaultdict(lambda: Cost(excess=s.excess))
        self._count(s.root, s.excess, costs)
        self._move(s.root, held, costs)
        return [costs[turn] for turn in sorted(costs)]

    def _move(self, root: Node, held: float, costs: Mapping[int, Cost]) -> None:
        """Bytes that enter each level of memory, and those that go around the caches."""
        rates, fetched = self.rates, self._fetched(root)
        for capacity, name in ((rates.l1, "l2_bytes"), (rates.l2, "l3_bytes"), (rates.l3, "memory_bytes")):
            warm = kept(held, capacity)
            moved = entering(root, capacity) if warm < 1.0 else {}
            for (buffer, turn), count in moved.items():
                cost = costs[max(turn, fetched.get(buffer, turn))]
                asked = 2.0 if fetched.get(buffer) == turn and name == "l2_bytes" else 1.0
                setattr(cost, name, getattr(cost, name) + (1.0 - warm) * count * asked)
            if name == "l2_bytes":
                self._misses(root, moved, costs)
            elif name == "l3_bytes":
                self._pages(root, moved, costs, (1.0 - warm) * self.rates.page)
        for access, p in ((a, p) for a, p in root.patches.items() if a.around):
            self._around(costs[root.turns[access.buffer]], held, p.rows * p.run)

    def _around(self, cost: Cost, held: float, bytes_: float) -> None:
        """What is written around the caches goes to the level that holds its lines, or to memory wherever they are."""
        rates = self.rates
        found = kept(held + bytes_, rates.l2 if rates.evicted_s else rates.l3)
        cost.around_bytes += bytes_ * (1.0 - found)
        if rates.evicted_s:
            cost.evicted += bytes_ / LINE * found * rates.evicted_s
        else:
            cost.l3_bytes += bytes_ * found

    def _fetched(self, root: Node) -> dict[str, int]:
        """The turn in which the next tile's part of a buffer is fetched: it then comes beside that turn's arithmetic.

        In the turn that reads it there is nothing to come beside, and its lines are asked for twice.
        """
        return {
            stmt.expr.ref.buffer: leaf.turn
            for leaf in root.walk()
            if isinstance(leaf, Leaf)
            for stmt in leaf.work.stmts
            if isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Load)
            if self.tiling.number(f"prefetch.{stmt.name}")
        }

    def _pages(self, root: Node, moved: Bytes, costs: Mapping[int, Cost], each: float) -> None:
        """Seconds of pages that reads from beyond L2 come to: prefetchers begin anew, for each stream by itself.

        A lone stream some follow from page to page. For what a tile fetches ahead, the turn that does so waits.
        """
        streams, fetched, scattered = _streams(root), self._fetched(root), self._scattered()
        for (buffer, turn), count in moved.items():
            rows, run = streams.get(buffer, (0.0, 0.0))
            if buffer in scattered:
                costs[turn].pages += count / LINE * SCATTERED * (each / self.rates.page)
            if not rows:
                continue
            later = fetched.get(buffer, turn) > turn
            if self.rates.follows:
                anew = count / PAGE * (1.0 - PAGE / run) if rows > 1 and run > PAGE else 0.0
            else:  # a stream that pauses, while other turns of its tile run, begins anew
                alike = 1.0 if later else rows  # streams of one step wait at the same time
                anew = count / max(1.0, min(run, PAGE)) / alike if len(set(root.turns.values())) > 1 else 0.0
            costs[max(turn, fetched.get(buffer, turn))].pages += anew * each

    def _scattered(self) -> set[str]:
        """Operands that tile registers are loaded from where they lie: sixteen lines of as many rows at a time."""
        names = (n for n, atom in self.tiling.decisions.items() if n.startswith("atom.") and atom in TILED)
        dots = [self.program.values[n.removeprefix("atom.")].expr for n in names]
        operands = [self.program.values[n].expr for d in dots if isinstance(d, ir.Dot) for n in (d.a, d.b)]
        return {e.ref.buffer for e in operands if isinstance(e, ir.Load)} - set(self.schedule.panels)

    def _misses(self, root: Node, moved: Bytes, costs: Mapping[int, Cost]) -> None:
        """Cycles of lines that L1 had and lost, where tiles touch many rows: stores wait for one at a time."""
        once, ahead = touched(root), _ahead(root, self.program.scratch)
        for (buffer, turn), count in moved.items():
            if buffer in ahead:
                lines = max(0.0, count - once.get((buffer, turn), 0.0)) / LINE
                costs[turn].misses += lines * L2_LATENCY / ahead[buffer]

    # ---------------------------------------------------------------------------------------------- cycles
    def _count(self, node: Node, times: float, costs: Mapping[int, Cost]) -> None:
        """Cycles of a loop that runs `times` times."""
        clock, cost = self.rates.clock, costs[node.turn]
        trips = node.trips * times
        leaves = all(isinstance(c, Leaf) for c in node.children)
        unroll = node.loop.unroll if node.loop is not None else 1
        if leaves or node.trips > 1:
            cost.loops += (ENTRY * times + (0.0 if leaves else TRIP * trips / unroll)) / clock
        for child in node.children:
            if isinstance(child, Leaf):
                self._leaf(child, node, trips, costs[child.turn])
            else:
                self._count(child, trips, costs)
                self._after(child, trips, costs[child.turn])

    def _leaf(self, leaf: Leaf, node: Node, trips: float, cost: Cost) -> None:
        slots = self.issue.work(leaf.work)
        slots.instructions += COUNTER / (node.loop.unroll if node.loop is not None else 1)
        serial = node.loop is not None and node.loop.serial
        cycles = slots.cycles(self.rates)
        clock = self.rates.clock
        if leaf.work.copy is not None:
            cost.copies += trips * cycles / clock
        else:
            free = Slots(**{**vars(slots), "chain": 0.0}).cycles(self.rates)
            cost.issue += trips * free / clock
            waits = max(0.0, slots.chain / chains(node.trips, slots.instructions) - free) if serial else 0.0
            cost.chain += trips * waits / clock
        cost.slots.add(slots, trips)
        if serial:
            cost.spill += trips * self.issue.excess(node.axis).cycles(self.rates) / clock
        else:
            cost.loops += TILE * trips / clock

    def _after(self, child: Node, times: float, cost: Cost) -> None:
        if child.loop is not None and child.loop.serial:
            folds = self.issue.folds(child.axis)
            cost.issue += times * folds.cycles(self.rates) / self.rates.clock
            cost.slots.add(folds, times)


def chains(steps: float, instructions: float) -> float:
    """Chains of sums under way at once, where a tile's takes `steps` of so many `instructions`.

    The sums of the next tiles do not depend on it: a core begins them as far as its window of instructions reaches.
    """
    return 1.0 + WINDOW / max(1.0, steps * instructions)


def _streams(root: Node) -> dict[str, tuple[float, float]]:
    """(rows that a step reads side by side, bytes of a row) of each buffer that is read where it lies."""
    found: dict[str, tuple[float, float]] = {}
    for leaf in (n for n in root.walk() if isinstance(n, Leaf)):
        for access, p in leaf.patches.items():
            if access.unit is not None and not access.write:
                run = float(access.dims[access.unit] * access.itemsize)
                found[access.buffer] = min(found.get(access.buffer, (p.rows, run)), (p.rows, run))
    return found


def _ahead(root: Node, scratch: Container[str]) -> dict[str, float]:
    """Lines under way at once for each buffer that lies in rows, or is a tile's own: one where it is stored."""
    found: dict[str, float] = {}
    for leaf in (n for n in root.walk() if isinstance(n, Leaf)):
        for access, p in leaf.patches.items():
            if access.buffer in scratch and access.write:
                found[access.buffer] = SCRATCH_AHEAD
            elif access.unit is not None and not access.around:
                several = 1.0 if access.write and p.rows > 1 else READS_AHEAD
                found[access.buffer] = min(found.get(access.buffer, READS_AHEAD), several)
    return found


def _combined(phases: list[list[Cost]], rates: Rates, threads: int) -> Estimate:
    """Phases one after the other, and in each its turns; a turn's arithmetic and its memory overlap."""
    seconds = HAND_OVER * len(phases)
    terms = dict.fromkeys(("issue", "chain", "spills", "loops", "copies", "L2", "L3", "pages", "memory"), 0.0)
    for cost in (c for phase in phases for c in phase):
        parts = cost.times(rates, threads)
        core = sum(parts[n] for n in ("issue", "chain", "spills", "loops", "copies"))
        seconds += overlap(core, parts["L2"], parts["L3"] + parts["pages"], parts["memory"])
        for name, value in parts.items():
            terms[name] += value
    listed = tuple(Term(n, v, "s") for n, v in terms.items())
    return Estimate(seconds, largest(listed), (*listed, *_counts(phases, threads)))


def _counts(phases: list[list[Cost]], threads: int) -> tuple[Term, ...]:
    costs = [c for phase in phases for c in phase]
    last = costs[-1] if costs else Cost()
    return (
        Term("L2 bytes", sum(c.l2_bytes for c in costs), "byte"),
        Term("L3 bytes", sum(c.l3_bytes for c in costs), "byte"),
        Term("memory bytes", sum(c.memory_bytes for c in costs), "byte"),
        Term("bytes around caches", sum(c.around_bytes for c in costs), "byte"),
        Term("multiply", sum(c.slots.multiply for c in costs), "cycle"),
        Term("compute", sum(c.slots.compute for c in costs), "cycle"),
        Term("shuffle", sum(c.slots.shuffle for c in costs), "cycle"),
        Term("load", sum(c.slots.load for c in costs), "cycle"),
        Term("store", sum(c.slots.store for c in costs), "cycle"),
        Term("instructions", sum(c.slots.instructions for c in costs), "1"),
        Term("imbalance", last.excess, "1"),
        Term("phases", len(phases), "1"),
        Term("threads", threads, "1"),
    )


def overlap(*times: float) -> float:
    """Seconds of parts that run side by side: a little more than the longest."""
    longest = max(times)
    if longest <= 0:
        return 0.0
    total = sum((t / longest) ** OVERLAP for t in times)
    return longest * math.pow(total, 1 / OVERLAP)


def estimate_cpu(kernel: ir.Kernel, design: Design, facts: Facts) -> Estimate:
    """Seconds of one call of `kernel` under `design` at `facts.sizes`, caches warm."""
    return Model(kernel, design, facts).estimate()
