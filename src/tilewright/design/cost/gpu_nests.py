"""The analytical model of everything that is no plain product on NVIDIA GPUs: rows, gathers, attention.

    seconds = launch + fill + max(|memory, L2|, |arithmetic, elements|, turns of all waves)

Read from the structure of the program: a block for each tile of a nest's parallel axes; it loads what its tiles index,
serial axes in full. Each block draws at most what an SM can; SMs without a block draw nothing. A block waits for what
it loads and stores, however little that is: many small ones take turns on the places that the SMs have, and where an
SM has place for one block only, nothing hides its turn. What is stored last stays in L2: half of it, as each half
holds what the other one has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.gpu_epilogue import INSTRUCTIONS, LANES, SPECIAL
from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.gpu_rates import flops_per_cycle, has_wgmma, joined, powered, rates_of
from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.program import Program
from tilewright.design.cost.roofline import Roofline
from tilewright.design.cost.term import Estimate, Term, largest
from tilewright.design.cost.waves import Waves
from tilewright.design.cost.work import bytes_of, flops_of
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir, structure
from tilewright.machines.machine import Machine

_REGISTERS = 43  # of a thread that moves 16 bytes at a time and masks edges


@dataclass(frozen=True)
class Grid:
    """The blocks of one nest: how many, bytes that one of them loads and stores, and those that it stores."""

    blocks: int
    bytes: float
    stored: float


def estimate_nests(program: Program, design: Design, facts: Facts, *, last: bool = True) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2.

    `last`: what it leaves in L2 is written back when nobody counts it any more; not so if a kernel follows at once.
    """
    machine, rates = facts.machine, rates_of(facts.machine)
    share = visited(program, design, facts)
    grids = [_grid(program, nest, design, facts, share) for nest in program.nests]
    blocks, loaded = sum(g.blocks for g in grids), sum(g.blocks * g.bytes for g in grids)
    active, waves = min(machine.cores, blocks), Waves(blocks, machine.cores)
    per_sm = min(rates.l2_bytes_per_cycle * rates.clock, rates.in_flight_bytes / rates.latency_s)
    atom = _atom(program, design, facts)
    moved, flops = float(bytes_of(program.kernel, facts.sizes)), share * flops_of(program.kernel, facts.sizes)
    peak = flops_per_cycle(machine, atom) * rates.clock
    busy = flops / (peak * machine.cores * waves.efficiency)
    arithmetic = busy if atom == "fma" else powered(busy, rates)
    left = min(sum(g.blocks * g.stored for g in grids), moved, _l2_bytes(machine) / 2) if last else 0.0
    memory, l2 = (moved - left) / min(rates.copy, active * per_sm), loaded / (active * per_sm)
    fill, resident = rates.latency_s + rates.drain_s, _resident(design, machine)
    turns = fill * max(0.0, blocks / (machine.cores * resident) - 1)
    beside = 0.0 if atom == "fma" else share * elements(program, design, facts) / (active * rates.clock)
    overlapping = (
        Term("memory", memory, "s"), Term("L2", l2, "s"), Term("arithmetic", arithmetic, "s"),
        Term("elements", beside, "s"), Term("turns", turns, "s"),
    )  # fmt: skip
    terms = (Term("launch", rates.launch_s, "s"), Term("fill", fill, "s"), *overlapping)
    roof = Roofline(flops, moved, peak * machine.cores, rates.read)
    counts = (
        Term("memory bytes", moved, "byte"), Term("L2 bytes", loaded, "byte"), Term("blocks", blocks, "1"),
        Term("waves", waves.count, "1"), Term("wave efficiency", waves.efficiency, "1"),
        Term("intensity", roof.intensity, "flop/byte"), Term("roofline", roof.seconds, "s at least"),
    )  # fmt: skip
    # Parts of a range are joined by the last block: a fence, a ticket, and a look at what the others left.
    split = any(parts_of(program, nest, design, facts) > 1 for nest in program.nests)
    join = 3 * rates.latency_s if split else 0.0
    streams, work, waits = joined(memory, l2), joined(arithmetic, beside), turns if resident > 1 else 0.0
    # The rates of products were fitted with copies before them whose parts are joined; by itself, the largest decides.
    bound = max(streams, work, waits) if last else joined(memory, l2, work, waits)
    seconds = rates.launch_s + fill + join + bound + (turns if resident == 1 else 0.0)
    return Estimate(seconds, largest(terms), (*terms, *counts))


def _resident(design: Design, machine: Machine) -> int:
    """Blocks that an SM holds at once, by their threads; of warpgroups, whose rings take its shared memory, one."""
    if design.get("warpgroups") is not None:
        return 1
    threads = 32 * max(1, design.number("warps", 4))
    return max(1, blocks_per_sm(limits_of(machine), threads, _REGISTERS, 0))


def _l2_bytes(machine: Machine) -> int:
    return next((level.bytes or 0 for level in machine.levels if level.name == "l2"), 0)


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
        times *= size if axis.each else -(-size // _tile(design, axis.name))
    own, special = (1, 0) if reduced or not isinstance(stmt.expr, ir.Map) else INSTRUCTIONS.get(stmt.expr.op, (1, 0))
    return times * (own / LANES + special / SPECIAL)


def visited(program: Program, design: Design, facts: Facts) -> float:
    """The share of a serial axis that blocks walk where it ends at their own position, as under a causal mask.

    S rows at the end of T walk T - S + (S + tile) / 2 of it in the mean; 1 where no loop ends so.
    """
    for axis in (a for loop in _loops(program) if not loop.parallel for a in loop.axes):
        own = _position(program, axis.stop) if isinstance(axis.stop, str) else None
        if own is not None:
            whole, rows, tile = size_of(program, facts, axis.name), size_of(program, facts, own), _tile(design, own)
            return max(0.0, min(1.0, (whole - max(0, rows - tile) / 2) / whole)) if whole else 1.0
    return 1.0


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


def _grid(program: Program, nest: structure.Nest, design: Design, facts: Facts, share: float) -> Grid:
    """A block for each tile, and what it loads and stores: elements of its tiles, other axes in full."""
    tiles = {a.name: 1 if a.each else _tile(design, a.name) for a in nest.loop.axes}
    sizes = {a.name: size_of(program, facts, a.name) for a in nest.loop.axes}
    blocks = math.prod(-(-sizes[a] // tiles[a]) for a in tiles)
    total = stored = 0.0
    for ref, value, stores in _accesses(nest):
        axes = program.values[value].type.axes if value in program.values else ()
        extents = [min(tiles[a], sizes[a]) if a in tiles else size_of(program, facts, a) for a in axes]
        walked = share if any(a not in tiles and a not in program.whole for a in axes) else 1.0
        moved = walked * math.prod(extents) * program.kernel.param(ref.buffer).dtype.bytes
        total, stored = total + moved, stored + stores * moved
    parts = parts_of(program, nest, design, facts)
    return Grid(blocks * parts, total / parts, stored / parts)


def parts_of(program: Program, nest: structure.Nest, design: Design, facts: Facts) -> int:
    """Blocks that share a tile of a nest, each with a part of a serial loop's range."""
    dealt = dict(design.prefixed("part"))
    found = [a for loop in nest.serial for a in loop.axes if a.name in dealt]
    return math.prod(max(1, -(-size_of(program, facts, a.name) // design.number(f"part.{a.name}"))) for a in found)


def _accesses(nest: structure.Nest) -> list[tuple[ir.Ref, str, bool]]:
    """What a nest loads and stores, with the names of the values, and whether it is stored."""
    found = [(s.ref, s.value, True) for s in ir.walk((nest.loop,)) if isinstance(s, ir.Store)]
    lets = [s for s in ir.walk((nest.loop,)) if isinstance(s, ir.Let)]
    return found + [(s.expr.ref, s.name, False) for s in lets if isinstance(s.expr, ir.Load)]


def _atom(program: Program, design: Design, facts: Facts) -> str:
    """What does the arithmetic: the matrix unit only where dots have it."""
    if not any(isinstance(let.expr, ir.Dot) for let in program.values.values()):
        return "fma"
    return next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")


def _tile(design: Design, axis: str) -> int:
    return max(1, design.number(f"tile.{axis}", 1))


__all__ = ["estimate_nests", "visited"]
