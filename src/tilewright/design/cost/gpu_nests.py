"""The analytical model of everything that is no plain product on NVIDIA GPUs: rows, gathers, attention.

    seconds = launch + fill + meets + walks + max(|memory, L2, elements|, turns) + what one wave cannot hide

Read from the structure of the program: a block for each tile of a nest's parallel axes; it loads what its tiles index,
serial axes in full. Each block draws at most what an SM can; SMs without a block draw nothing. A block waits for what
it loads and stores, however little that is, and for the threads and blocks that it joins sums with: many small ones take
turns on the places that the SMs have, and where an SM has place for one block only, nothing hides its turn. What is
stored last stays in L2: half of it, as each half holds what the other one has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.gpu_elements import sums_of, work_of
from tilewright.design.cost.gpu_epilogue import INSTRUCTIONS, LANES, SPECIAL
from tilewright.design.cost.gpu_grid import Grid, cluster_of, grids, l2_bytes, parts_of, resident, threads_of, tile
from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.gpu_rates import GpuRates, flops_per_cycle, has_wgmma, joined, powered, rates_of
from tilewright.design.cost.program import Program
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.usage import Usage
from tilewright.design.cost.waves import Waves, usable
from tilewright.design.cost.work import bytes_of, flops_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir
from tilewright.machines.machine import Machine


def estimate_nests(
    program: Program, design: Design, facts: Facts, usage: Usage | None = None, *, last: bool = True
) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2.

    `usage` is what the compiled kernel takes of an SM, where it is known.
    `last`: what it leaves in L2 is written back when nobody counts it any more; not so if a kernel follows at once.
    """
    machine, rates = facts.machine, rates_of(facts.machine)
    share = visited(program, design, facts)
    found = grids(program, design, facts, share)
    cluster = max((g.cluster for g in found), default=1)
    blocks, loaded = sum(g.blocks for g in found), sum(g.blocks * g.bytes for g in found)
    cores = usable(machine.cores, cluster)
    active, places = min(cores, blocks), resident(program, design, facts, usage)
    by_core = Waves(blocks, cores)
    per_sm = min(rates.l2_bytes_per_cycle * rates.clock, rates.in_flight_bytes / rates.latency_s)
    atom = _atom(program, design, facts)
    rowwise = last and atom == "fma"
    wanted = share * flops_of(program.kernel, facts.sizes)
    moved, flops = _there(program, facts) * bytes_of(program.kernel, facts.sizes), wanted * _waste(found, atom)
    peak = flops_per_cycle(machine, atom) * rates.clock
    busy = flops / (peak * machine.cores * by_core.efficiency) if blocks else 0.0
    arithmetic = busy if atom == "fma" else powered(busy, rates)
    stored = min(sum(g.blocks * g.stored for g in found), moved)
    left = _left(stored, machine, rowwise) if last else 0.0
    memory = _memory(moved - stored, stored - left, active * per_sm, rates)
    l2 = loaded / (active * per_sm)
    life = _life(program, design, facts, rates, rowwise)
    waves = max(1, Waves(blocks, cores * places).count)
    turns = (waves - 1) * (life.fill + life.meets) if rowwise else life.fill * max(0.0, blocks / (machine.cores * places) - 1)
    dispatch = blocks * rates.block_s if rowwise else 0.0
    by_element, beside = _elements(program, design, facts, share * _waste(found, atom), active, by_core, rates)
    overlapping = (
        Term("memory", memory, "s"), Term("L2", l2, "s"), Term("arithmetic", arithmetic, "s"),
        Term("elements", by_element, "s"), Term("beside", beside, "s"), Term("turns", turns, "s"),
        Term("dispatch", dispatch, "s"),
    )  # fmt: skip
    terms = (
        Term("launch", rates.launch_s, "s"), Term("fill", life.fill, "s"), Term("meets", life.meets, "s"),
        Term("walk", life.walk, "s"), *overlapping,
    )  # fmt: skip
    roof = Roofline(flops, moved, peak * machine.cores, rates.read)
    counts = (
        Term("memory bytes", moved, "byte"), Term("L2 bytes", loaded, "byte"), Term("blocks", blocks, "1"),
        Term("waves", by_core.count, "1"), Term("wave efficiency", by_core.efficiency, "1"),
        Term("blocks per SM", places, "1"), Term("cluster", cluster, "1"),
        Term("intensity", roof.intensity, "flop/byte"), Term("roofline", roof.seconds, "s at least"),
    )  # fmt: skip
    # Parts of a range are joined by the last block: a fence, a ticket, and a look at what the others left.
    split = any(parts_of(program, nest, design, facts) > 1 for nest in program.nests)
    join = 3 * rates.latency_s if split else 0.0
    streams = joined(memory, l2) if rowwise or facts.filled else joined(memory, l2, life.walk)
    work, waits = joined(arithmetic, by_element), turns if places > 1 else 0.0
    if rowwise:
        walks = joined(streams, waves * life.walk)
        chain = work + (waves - 1) * life.seconds * min(1.0, rates.in_step / places)
        seconds = rates.launch_s + beside + max(
            life.fill + life.meets + _beside_each_other(walks, chain, blocks / max(1, active) * life.steps), dispatch
        )  # fmt: skip
    else:
        # The rates of products were fitted with copies before them whose parts are joined; by itself, the largest decides.
        bound = max(streams, work, waits) if last else joined(memory, l2, work, waits)
        # When the short sequences of a ragged batch are done, the longest walks on alone.
        alone = life.walk * (1.0 - _there(program, facts) / max(facts.filled, default=1.0)) if facts.filled else 0.0
        seconds = rates.launch_s + life.fill + life.meets + join + bound + alone + (turns if places == 1 else 0.0)
    return Estimate(seconds, largest(terms), (*terms, *counts))


@dataclass(frozen=True)
class Life:
    """Seconds of one block by itself: until its first loads are there and its last stores gone (`fill`), for sums that
    its threads and its cluster join (`meets`), and for loads that wait for one another (`walk`), in so many `steps`
    beside which others compute."""

    fill: float
    meets: float = 0.0
    walk: float = 0.0
    steps: int = 1

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.fill + self.meets + self.walk


def _left(stored: float, machine: Machine, rowwise: bool) -> float:
    """Bytes that nobody waits for: L2 holds more results at the end than it held of others at the start."""
    return min(stored / 6, l2_bytes(machine) / 5) if rowwise else min(stored, l2_bytes(machine) / 2)


def _beside_each_other(one: float, other: float, turns: float) -> float:
    """Seconds of two things that blocks do beside each other: the longer, and what the last of so many `turns` shows."""
    return max(one, other) + min(one, other) / max(1.0, turns)


def _memory(loaded: float, stored: float, drawn: float, rates: GpuRates) -> float:
    """Seconds of main memory for bytes loaded and stored; `drawn` is what the SMs with a block take at most (bytes/s).

    A copy moves as much each way: what it takes beyond reading is what writing takes.
    """
    write = 1.0 / (2.0 / rates.copy - 1.0 / rates.read) if rates.read < rates.copy * 2 else rates.copy
    return max(loaded / rates.read + stored / write, (loaded + stored) / drawn) if drawn else 0.0


def _life(program: Program, design: Design, facts: Facts, rates: GpuRates, rowwise: bool) -> Life:
    if not rowwise:
        return _life_of_parts(program, design, facts, rates)
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


def _life_of_parts(program: Program, design: Design, facts: Facts, rates: GpuRates) -> Life:
    """Of a block whose products go straight to registers, part by part: what the second one reads is asked for behind
    what the first one reads, what is gathered behind its index, and warps join what they have carried.

    The longest sequence's part has most steps; rings ask for some steps ahead.
    """
    fill, dots = rates.latency_s + rates.drain_s, sum(isinstance(s.expr, ir.Dot) for s in program.values.values())
    if dots < 2 or design.get("warpgroups") is not None or not dict(design.prefixed("part")):
        return Life(fill)
    gathers = any(isinstance(i, str) and i in program.values for ref in _loaded(program) for i in ref.index)
    asks = dots * rates.step_s / max(1, design.number("stages", 1))
    steps = 1
    for axis, part in design.prefixed("part"):
        range_ = min(int(part), math.ceil(size_of(program, facts, axis) * max(facts.filled or (1.0,))))
        single = any(a.each for loop in _loops(program) for a in loop.axes if a.name == axis)
        steps = max(steps, -(-range_ // ((1 if single else tile(design, axis)) * (threads_of(design) // 32))))
    meets = (dots - 1) * rates.latency_s + rates.meet_s * len(program.carried) + gathers * rates.l2_latency_s
    return Life(fill, meets, steps * (asks + rates.chain_s))


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
        if any(a.over in held and not _ends_within(program, a, design, facts) for a in loop.axes):
            continue
        trips = math.prod(
            -(-size_of(program, facts, a.name) // _covered(program, a, design))
            for a in loop.axes if not a.each
        )  # fmt: skip
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
    for let in (s for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)):
        axes = let.type.axes
        if len(axes) > 1 and axes[0] in {a.name for a in loop.axes if a.over not in facts.fixed}:
            wide = max(1, design.number(f"vec.{let.expr.ref.buffer}", 1)) if isinstance(let.expr, ir.Load) else 1
            return max(1, math.prod(tile(design, a) for a in axes) // (wide * threads_of(design)))
    return 1


def _ends_within(program: Program, axis: ir.Axis, design: Design, facts: Facts) -> bool:
    """Whether a row ends within a tile: what is computed of each piece then asks where it ends, and loads wait for it."""
    covered, size = _covered(program, axis, design), size_of(program, facts, axis.name)
    return size > covered and size % covered != 0


def _covered(program: Program, axis: ir.Axis, design: Design) -> int:
    """Points of a row that a step of all blocks which share it covers."""
    name = program.alike.get(axis.name, axis.name)
    return tile(design, name) * design.number(f"split.{name}", 1)


def _waste(found: list[Grid], atom: str) -> float:
    """What the matrix unit multiplies over what is wanted: tiles whole, whatever they hold."""
    return max((g.waste for g in found), default=1.0) if atom != "fma" else 1.0


def _elements(
    program: Program, design: Design, facts: Facts, share: float, active: int, waves: Waves, rates: GpuRates
) -> tuple[float, float]:
    """Seconds of what is computed element by element, and of requests beside 16 bytes, on the SM that has most."""
    if not active:
        return 0.0, 0.0
    if any(isinstance(let.expr, ir.Dot) for let in program.values.values()):
        tensor = _atom(program, design, facts) != "fma"
        return (share * elements(program, design, facts) / (active * rates.clock) if tensor else 0.0), 0.0
    work, together = work_of(program, design, facts), active * rates.clock
    return work.cycles / (together * waves.fullness), work.beside * rates.beside_cycles / together


def elements(program: Program, design: Design, facts: Facts) -> float:
    """Cycles of one SM for all that is computed element by element inside serial loops, beside the matrix unit.

    One warp's softmax is a chain: its instructions and those of the special unit follow each other.
    """
    inner = [(nest.loop, s) for nest in program.nests for s in nest.loop.body if isinstance(s, ir.Loop)]
    return sum(_cycles(program, s, (outer,), design, facts) for outer, s in inner)


def _cycles(program: Program, stmt: ir.Stmt, around: tuple[ir.Loop, ...], design: Design, facts: Facts) -> float:
    if isinstance(stmt, ir.Loop):
        return sum(_cycles(program, s, (*around, stmt), design, facts) for s in stmt.body)
    if not isinstance(stmt, ir.Let) or not isinstance(stmt.expr, (ir.Map, ir.Reduce)):
        return 0.0
    reduced = isinstance(stmt.expr, ir.Reduce)
    axes = program.values[stmt.expr.arg].type.axes if isinstance(stmt.expr, ir.Reduce) else stmt.type.axes
    times = float(math.prod(size_of(program, facts, a) for a in axes))
    for axis in (a for loop in around for a in loop.axes if a.name not in axes):
        size = size_of(program, facts, axis.name)
        times *= size if axis.each else -(-size // tile(design, axis.name))
    own, special = (1, 0) if reduced or not isinstance(stmt.expr, ir.Map) else INSTRUCTIONS.get(stmt.expr.op, (1, 0))
    return times * (own / LANES + special / SPECIAL)


def visited(program: Program, design: Design, facts: Facts) -> float:
    """The share of a serial axis that blocks walk where it ends at their own position, as under a causal mask, or where
    their sequence does, whose lengths the facts may tell.

    S rows at the end of T walk T - S + (S + tile) / 2 of it in the mean; 1 where no loop ends so.
    """
    for axis in (a for loop in _loops(program) if not loop.parallel for a in loop.axes if isinstance(a.stop, str)):
        own, whole = _position(program, str(axis.stop)), size_of(program, facts, axis.name)
        filled = facts.filled if _from_data(program, str(axis.stop)) else ()
        if whole and (own is not None or filled):
            shares = [_walked(share * whole, whole, own, program, design, facts) for share in filled or (1.0,)]
            return sum(shares) / len(shares)
    return 1.0


def _walked(length: float, whole: int, own: str | None, program: Program, design: Design, facts: Facts) -> float:
    """The share for a sequence of `length`: rows before its first position see nothing."""
    if own is None:
        return min(1.0, length / whole)
    asked = max(1, size_of(program, facts, own))
    rows = min(asked, length)
    return rows / asked * max(0.0, min(1.0, (length - max(0, rows - tile(design, own)) / 2) / whole))


def _there(program: Program, facts: Facts) -> float:
    """The share of a ragged batch's tensors that exists."""
    axes = [a for loop in _loops(program) if not loop.parallel for a in loop.axes if isinstance(a.stop, str)]
    ragged = facts.filled and any(_from_data(program, str(a.stop)) for a in axes)
    return sum(facts.filled) / len(facts.filled) if ragged else 1.0


def _from_data(program: Program, name: str) -> bool:
    """Whether a scalar was computed from what a tensor holds."""
    let = program.values.get(name)
    return let is not None and (
        isinstance(let.expr, ir.Load) or any(_from_data(program, n) for n in ir.operands(let.expr))
    )


def _loops(program: Program) -> list[ir.Loop]:
    return [s for s in ir.walk(program.kernel.body) if isinstance(s, ir.Loop)]


def _position(program: Program, name: str) -> str | None:
    """The axis whose position a scalar was computed from, if any."""
    let = program.values.get(name)
    if let is None:
        return None
    if isinstance(let.expr, ir.Coord):
        return let.expr.axis
    return next((found for n in ir.operands(let.expr) if (found := _position(program, n)) is not None), None)


def _atom(program: Program, design: Design, facts: Facts) -> str:
    """What does the arithmetic: the matrix unit only where dots have it."""
    if not any(isinstance(let.expr, ir.Dot) for let in program.values.values()):
        return "fma"
    return next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")


__all__ = ["estimate_nests", "visited"]
