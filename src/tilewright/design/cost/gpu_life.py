"""How long one block of a GPU lives by itself: ways to memory, sums to join, loads that wait for one another."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.gpu_elements import WIDENED, sums_of, widened
from tilewright.design.cost.gpu_grid import cluster_of, threads_of, tile
from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.gpu_rates import GpuRates
from tilewright.design.cost.program import Program
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir


@dataclass(frozen=True)
class Life:
    """Seconds of one block by itself: until its first loads are there and its last stores gone (`fill`), for sums that
    its threads and its cluster join (`meets`), and for loads that wait for one another (`walk`), in so many `steps`
    beside which others compute. `shows` is the share of one block's walk beside which memory idles."""

    fill: float
    meets: float = 0.0
    walk: float = 0.0
    steps: int = 1
    shows: float = 0.0

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.fill + self.meets + self.walk


def life_of_rows(program: Program, design: Design, facts: Facts, rates: GpuRates) -> Life:
    """Of a block without products: it joins its sums, and its loops wait for what they load."""
    meets, walk, steps = 0.0, 0.0, 1
    for nest in program.nests:
        each = rates.meet_s if threads_of(design) > 32 else 0.0
        each += rates.cluster_meet_s if cluster_of(nest, design) > 1 else 0.0
        meets += each * sum(rounds for _, rounds in sums_of(program, nest, facts))
        first, again = _steps(program, nest.loop.body, design, facts, set())
        walk += rates.step_s * first + rates.l2_latency_s * again
        if any(_one_by_one(program, loop, design, facts) > 1 for loop in nest.serial):
            steps += first
    return Life(rates.latency_s, meets, walk, steps)


def life_of_products(program: Program, design: Design, facts: Facts, rates: GpuRates) -> Life:
    """Of a block whose products go straight to registers, part by part: what the second one reads is asked for behind
    what the first one reads, what is gathered behind its index, and warps join what they have carried.

    The longest sequence's part has most steps; rings ask for some steps ahead.
    """
    fill, dots = rates.latency_s + rates.drain_s, sum(isinstance(s.expr, ir.Dot) for s in program.values.values())
    if dots < 2 or design.get("warpgroups") is not None or not dict(design.prefixed("part")):
        return Life(fill)
    gathers = any(isinstance(i, str) and i in program.values for ref in _loaded(program) for i in ref.index)
    asks = dots * rates.step_s / max(1, design.number("stages", 1))
    steps, warps = 1, threads_of(design) // 32
    for axis in (a for a, _ in design.prefixed("part")):
        longest = math.ceil(size_of(program, facts, axis) * max(facts.filled, default=1.0))
        high = 1 if program.axes[axis].each else tile(design, axis)
        steps = max(steps, -(-min(design.number(f"part.{axis}"), longest) // (high * warps)))
    meets = (dots - 1) * rates.latency_s + rates.meet_s * len(program.carried) + gathers * rates.l2_latency_s
    ahead = design.number("stages", 1) > 1
    # A warp widens its own tile: each of the four units that issue has its share of what an SM issues.
    wide = [let for let in program.values.values() if widened(program, let)]
    chain = rates.chain_s + sum(_points(program, let, design, facts) for let in wide) * 4 * WIDENED / rates.clock
    return Life(fill, meets, steps * (asks + chain), shows=0.0 if ahead else rates.walk_shows)


def _points(program: Program, let: ir.Let, design: Design, facts: Facts) -> int:
    """Elements of a warp's tile in one step."""
    walked = [a for a in let.type.axes if a in program.axes]
    held = math.prod(size_of(program, facts, a) for a in let.type.axes if a not in walked)
    return held * math.prod(tile(design, a) for a in walked)


def _loaded(program: Program) -> list[ir.Ref]:
    return [let.expr.ref for let in program.values.values() if isinstance(let.expr, ir.Load)]


def _steps(
    program: Program, body: tuple[ir.Stmt, ...], design: Design, facts: Facts, seen: set[str]
) -> tuple[int, int]:  # fmt: skip
    """Steps of loops whose loads wait for the step before: those from memory, and those that find a row in L2.

    Rows of a known length that stay in registers are loaded at once.
    """
    held = {a for s in body if isinstance(s, ir.Alloc) for a in s.dims}
    total = found = 0
    for loop in (s for s in body if isinstance(s, ir.Loop)):
        if any(a.over in held for a in loop.axes):
            continue
        walked = [a for a in loop.axes if not a.each]
        trips = math.prod(-(-size_of(program, facts, a.name) // _covered(program, a, design)) for a in walked)
        trips *= _one_by_one(program, loop, design, facts)
        loads = {s.expr.ref.buffer for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)}
        rounds = math.prod(size_of(program, facts, a.name) for a in loop.axes if a.each)
        cold, warm = _steps(program, loop.body, design, facts, seen)
        total, found = total + cold, found + warm + (rounds - 1) * (cold + warm)
        if loads - set(program.scratch):
            total, found = (total, found + trips - 1) if loads <= seen else (total + trips - 1, found)
        seen |= loads
    return total, found


def _one_by_one(program: Program, loop: ir.Loop, design: Design, facts: Facts) -> int:
    """Accesses of a thread in a step that wait for each other: rows whose number the kernel does not know are added
    to a sum as they are found to exist."""
    unknown = {a.name for a in loop.axes if a.over not in facts.fixed}
    for let in (s for s in loop.body if isinstance(s, ir.Let)):
        axes = let.type.axes
        if isinstance(let.expr, ir.Load) and len(axes) > 1 and axes[0] in unknown:
            wide = max(1, design.number(f"vec.{let.expr.ref.buffer}", 1))
            return max(1, math.prod(tile(design, a) for a in axes) // (wide * threads_of(design)))
    return 1


def _covered(program: Program, axis: ir.Axis, design: Design) -> int:
    """Points of a row that a step of all blocks which share it covers."""
    name = program.alike.get(axis.name, axis.name)
    return tile(design, name) * design.number(f"split.{name}", 1)


__all__ = ["Life", "life_of_products", "life_of_rows"]
