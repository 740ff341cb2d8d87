"""Blocks of a program that is no plain product on an NVIDIA GPU: how many, what each moves, how many an SM holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.design.cost.gpu_product import size_of
from tilewright.design.cost.occupancy import blocks_per_sm, limits_of
from tilewright.design.cost.program import Program
from tilewright.design.cost.usage import Usage
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir, structure
from tilewright.machines.machine import Machine

_MOVER, _MASKS, _HOLDER = 32, 11, 16
"""Registers of a thread that moves 16 bytes at a time; more where it masks edges; beside a row that a thread holds."""
_ALIKE = 24 << 10
"""Bytes that all blocks read, as weights of a row, and that stay in L1 beside what passes through it."""


@dataclass(frozen=True)
class Grid:
    """The blocks of one nest: how many, bytes that one of them loads and stores, and those that it stores.

    `cluster` blocks share the loops over a row. `waste` is what is computed over what is wanted: tiles are computed
    whole, also where an axis ends within one.
    """

    blocks: int
    bytes: float
    stored: float
    cluster: int = 1
    waste: float = 1.0


def grids(program: Program, design: Design, facts: Facts, share: float) -> list[Grid]:
    """A grid for each nest; `share` is the part of serial axes that blocks walk where data says how far."""
    return [_grid(program, nest, design, facts, share) for nest in program.nests]


def _grid(program: Program, nest: structure.Nest, design: Design, facts: Facts, share: float) -> Grid:
    """A block for each tile, and what it loads and stores: elements of its tiles, other axes in full."""
    tiles = {a.name: 1 if a.each else tile(design, a.name) for a in nest.loop.axes}
    sizes = {a.name: size_of(program, facts, a.name) for a in nest.loop.axes}
    blocks = math.prod(-(-sizes[a] // tiles[a]) for a in tiles)
    total = stored = alike = 0.0
    for ref, value, times, stores in _accesses(program, nest, facts):
        axes = program.values[value].type.axes if value in program.values else ()
        extents = [min(tiles[a], sizes[a]) if a in tiles else size_of(program, facts, a) for a in axes]
        walked = share if any(a not in tiles and a not in program.whole for a in axes) else 1.0
        moved = walked * times * math.prod(extents) * program.kernel.param(ref.buffer).dtype.bytes
        total, stored = total + moved, stored + stores * moved
        alike += 0.0 if stores or set(axes) & set(tiles) else moved
    if alike <= _ALIKE and blocks > facts.machine.cores:  # L1 keeps it for the blocks that follow
        total -= alike * (1.0 - facts.machine.cores / blocks)
    shared = cluster_of(nest, design)
    split = parts_of(program, nest, design, facts) * shared
    groups = max(1, design.number("warpgroups", 1))
    waste = math.prod(_computed(sizes[a], tiles[a], groups) / sizes[a] for a in tiles if sizes[a])
    return Grid(blocks * split, total / split, stored / split, shared, waste)


def _computed(size: int, high: int, groups: int) -> int:
    """Rows that tiles of `high` rows compute of `size`: the last one only those of warpgroups that have any, but a
    single tile takes its time however few rows it has."""
    whole, rest = divmod(size, high)
    share = max(1, high // groups)
    return whole * high + (-(-rest // share) * share if whole else high)


def _accesses(program: Program, nest: structure.Nest, facts: Facts) -> list[tuple[ir.Ref, str, int, bool]]:
    """What a nest loads and stores: the names of the values, how many rounds read it again, whether it is stored."""
    found = [(s.ref, s.value, 1, True) for s in ir.walk((nest.loop,)) if isinstance(s, ir.Store)]
    for rounds, loads in _loads(program, nest.loop.body, facts, 1):
        found += [(let.expr.ref, let.name, rounds, False) for let in loads if isinstance(let.expr, ir.Load)]
    return [access for access in found if access[0].buffer not in program.scratch]


def _loads(
    program: Program, body: tuple[ir.Stmt, ...], facts: Facts, rounds: int
) -> list[tuple[int, list[ir.Let]]]:  # fmt: skip
    """The loads of a body, with the rounds of loops over single positions that make them again."""
    found = [(rounds, [s for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)])]
    for inner in (s for s in body if isinstance(s, ir.Loop)):
        again = math.prod(size_of(program, facts, a.name) for a in inner.axes if a.each)
        found += _loads(program, inner.body, facts, rounds * again)
    return found


def cluster_of(nest: structure.Nest, design: Design) -> int:
    """Blocks of a cluster that share the loops over a row."""
    axes = [a.name for s in ir.walk((nest.loop,)) if isinstance(s, ir.Loop) and not s.parallel for a in s.axes]
    return max([1, *(design.number(f"split.{a}", 1) for a in axes)])


def parts_of(program: Program, nest: structure.Nest, design: Design, facts: Facts) -> int:
    """Blocks that share a tile of a nest, each with a part of a serial loop's range."""
    dealt = dict(design.prefixed("part"))
    found = [a for loop in nest.serial for a in loop.axes if a.name in dealt]
    return math.prod(max(1, -(-size_of(program, facts, a.name) // design.number(f"part.{a.name}"))) for a in found)


def resident(program: Program, design: Design, facts: Facts, usage: Usage | None) -> int:
    """Blocks that an SM holds at once, by their threads; of warpgroups, whose rings take its shared memory, one."""
    machine = facts.machine
    if design.get("warpgroups") is not None:
        return 1
    if usage is not None:
        return max(1, usage.resident(machine))
    at_least = max(1, design.number("resident", 1))
    return max(at_least, blocks_per_sm(limits_of(machine), threads_of(design), _registers(program, design, facts), 0))


def _registers(program: Program, design: Design, facts: Facts) -> int:
    """Registers of a thread: what it keeps of a row lies there, an element in each while it is used."""
    held = 0
    for nest in program.nests:
        share, rows = cluster_of(nest, design), math.prod(tile(design, a.name) for a in nest.loop.axes)
        for alloc in (s for s in nest.loop.body if isinstance(s, ir.Alloc)):
            row = [facts.sizes.get(d, 1) if isinstance(d, str) else d for d in alloc.dims if d in facts.sizes]
            held += -(-rows * math.prod(row) // (share * threads_of(design)))
    masked = any(size_of(program, facts, a) % tile(design, a) for a in program.axes)
    return min(255, max(_MOVER, _HOLDER + held) + (_MASKS if masked else 0))


def threads_of(design: Design) -> int:
    """Threads of a block."""
    return 32 * max(1, design.number("warps", 4))


def tile(design: Design, axis: str) -> int:
    """Points of an axis that a block, or a step of a loop, covers."""
    return max(1, design.number(f"tile.{axis}", 1))


def l2_bytes(machine: Machine) -> int:
    """Bytes of the L2 cache; 0 where they are not known."""
    return next((level.bytes or 0 for level in machine.levels if level.name == "l2"), 0)


__all__ = ["Grid", "cluster_of", "grids", "l2_bytes", "parts_of", "resident", "threads_of", "tile"]
