"""The analytical model of everything that is no plain product on NVIDIA GPUs: rows, gathers, attention.

    seconds = launch + fill + |memory, L2, arithmetic, turns of all waves|

Read from the structure of the program: a block for each tile of a nest's parallel axes; it loads what its tiles index,
serial axes in full. Each block draws at most what an SM can; SMs without a block draw nothing. A block waits for what
it loads and stores, however little that is: many small ones take turns on the places that the SMs have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """The blocks of one nest: how many, and bytes that one of them loads and stores."""

    blocks: int
    bytes: float


def estimate_nests(program: Program, design: Design, facts: Facts) -> Estimate:
    """Seconds of one call on `facts.machine` (kind nvidia), operands not in L2."""
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
    memory, l2 = moved / min(rates.copy, active * per_sm), loaded / (active * per_sm)
    fill = rates.latency_s + rates.drain_s
    turns = fill * max(0.0, blocks / (machine.cores * _resident(design, machine)) - 1)
    overlapping = (
        Term("memory", memory, "s"), Term("L2", l2, "s"), Term("arithmetic", arithmetic, "s"),
        Term("turns", turns, "s"),
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
    seconds = rates.launch_s + fill + join + joined(*(t.value for t in overlapping))
    return Estimate(seconds, largest(terms), (*terms, *counts))


def _resident(design: Design, machine: Machine) -> int:
    """Blocks that an SM holds at once, by their threads."""
    threads = 32 * max(1, design.number("warps", 4))
    return max(1, blocks_per_sm(limits_of(machine), threads, _REGISTERS, 0))


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
    total = 0.0
    for ref, value in _accesses(nest):
        axes = program.values[value].type.axes if value in program.values else ()
        extents = [min(tiles[a], sizes[a]) if a in tiles else size_of(program, facts, a) for a in axes]
        walked = share if any(a not in tiles and a not in program.whole for a in axes) else 1.0
        total += walked * math.prod(extents) * program.kernel.param(ref.buffer).dtype.bytes
    parts = parts_of(program, nest, design, facts)
    return Grid(blocks * parts, total / parts)


def parts_of(program: Program, nest: structure.Nest, design: Design, facts: Facts) -> int:
    """Blocks that share a tile of a nest, each with a part of a serial loop's range."""
    dealt = dict(design.prefixed("part"))
    found = [a for loop in nest.serial for a in loop.axes if a.name in dealt]
    return math.prod(max(1, -(-size_of(program, facts, a.name) // design.number(f"part.{a.name}"))) for a in found)


def _accesses(nest: structure.Nest) -> list[tuple[ir.Ref, str]]:
    """What a nest loads and stores, with the names of the values."""
    found = [(s.ref, s.value) for s in ir.walk((nest.loop,)) if isinstance(s, ir.Store)]
    lets = [s for s in ir.walk((nest.loop,)) if isinstance(s, ir.Let)]
    return found + [(s.expr.ref, s.name) for s in lets if isinstance(s.expr, ir.Load)]


def _atom(program: Program, design: Design, facts: Facts) -> str:
    """What does the arithmetic: the matrix unit only where dots have it."""
    if not any(isinstance(let.expr, ir.Dot) for let in program.values.values()):
        return "fma"
    return next((str(v) for _, v in design.prefixed("atom")), "wgmma" if has_wgmma(facts.machine) else "mma")


def _tile(design: Design, axis: str) -> int:
    return max(1, design.number(f"tile.{axis}", 1))


__all__ = ["estimate_nests", "visited"]
