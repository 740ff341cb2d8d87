"""A design as numbers: a vector of one length for every program, design and machine, for models that learn.

Axes are told apart by their role, never by name: the last three parallel axes of the largest nest, innermost first,
and its last serial axis. Sizes and counts enter as logarithms to base two of one more, so that 0 means absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.atoms import ATOMS
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.legality import DEALT
from tilewright.design.view import View
from tilewright.language import ir, structure

_PARALLEL, _SERIAL = 3, 2
_PER_AXIS = ("size", "tile", "apart", "block", "unroll", "split", "part", "lane", "tail", "tiles")
_LAYOUTS = ("panel", "pair", "quad", "tile")
_WHOLE = (
    "order", "inner", "local", "unpack", "nontemporal", "keep", "prefetch", "threads", *DEALT, "registers",
    "instructions", "scratch", "lanes", "cores", "file",
)  # fmt: skip

NAMES: tuple[str, ...] = (
    *(
        f"{role}{n}.{what}"
        for role, most in (("p", _PARALLEL), ("s", _SERIAL))
        for n in range(most)
        for what in _PER_AXIS
    ),
    *(f"pack.{layout}" for layout in _LAYOUTS),
    *(f"atom.{atom}" for atom in ATOMS),
    *_WHOLE,
)
"""What each number of an encoding says."""


def encode(kernel: ir.Kernel, design: Design, facts: Facts) -> tuple[float, ...]:
    """The numbers that NAMES names, for a design whose decisions are well-formed."""
    view = View(kernel, design, facts)
    parallel, serial = _axes(view)
    numbers = [
        *(x for axis in _padded(parallel, _PARALLEL) for x in _axis(view, axis)),
        *(x for axis in _padded(serial, _SERIAL) for x in _axis(view, axis)),
        *(_log(sum(c == layout for _, c in design.prefixed("pack"))) for layout in _LAYOUTS),
        *_atoms(view),
        *_whole(view),
    ]
    assert len(numbers) == len(NAMES)
    return tuple(map(float, numbers))


def _axes(v: View) -> tuple[list[str], list[str]]:
    """Parallel and serial tiled axes of the nest with most statements, innermost first."""
    nests = v.nests
    if not nests:
        return [], []
    nest = max(nests, key=lambda n: sum(1 for _ in ir.walk(n.loop.body)))
    inside = [s for s in ir.walk(nest.loop.body) if isinstance(s, ir.Loop)]
    serial = dict.fromkeys(a.name for loop in inside for a in loop.axes if not a.each)
    return [a.name for a in nest.loop.axes if not a.each][::-1], list(serial)[::-1]


def _padded(names: list[str], length: int) -> list[str | None]:
    return [*names[:length], *([None] * (length - len(names)))]


def _axis(v: View, axis: str | None) -> Iterator[float]:
    """Size, tile, its distance, block, unrolling, accumulators, place among lanes, what the last tile leaves empty."""
    if axis is None:
        yield from [0.0] * len(_PER_AXIS)
        return
    size, tile, lanes = v.facts.size(v.kernel, v.axes[axis]), v.extent(axis), v.design.names("lanes")
    tiles = -(-size // tile)
    yield _log(size)
    yield _log(tile)
    yield _log(v.design.number(f"apart.{axis}", 1) - 1)
    yield _log(v.design.number(f"block.{axis}"))
    yield _log(v.design.number(f"unroll.{axis}", 1) - 1)
    yield _log(v.design.number(f"split.{axis}", 1) - 1)
    yield _log(v.design.number(f"part.{axis}"))
    yield 1.0 / (1 + lanes.index(axis)) if axis in lanes else 0.0
    yield 1.0 - size / (tiles * tile) if size else 0.0
    yield _log(tiles)


def _atoms(v: View) -> Iterator[float]:
    """The share of the dots that each atom does."""
    used = [v.design.get(f"atom.{dot}", "fma") for dot in v.dots]
    for atom in ATOMS:
        yield used.count(atom) / len(used) if used else 0.0


def _whole(v: View) -> Iterator[float]:
    """What is said of the design as a whole, and the machine."""
    decided = v.design
    written = [tuple(a.name for a in n.loop.axes if not a.each) for n in structure.nests(v.kernel)]
    yield float(bool(decided.names("order")) and decided.names("order") not in written)
    yield float(bool(decided.names("inner")))
    for decision in ("local", "unpack", "nontemporal", "keep"):
        yield _log(sum(bool(c) for _, c in decided.prefixed(decision)))
    yield _log(max((int(c) for _, c in decided.prefixed("prefetch") if isinstance(c, int)), default=0))
    cores = v.facts.machine.cores
    yield min(cores, decided.number("threads", cores)) / cores
    yield from (float(decided.get("dealt") == how) for how in DEALT)
    yield v.registers / v.facts.registers
    yield _log(v.instructions)
    yield _log(v.scratch_bytes)
    yield _log(v.facts.lanes)
    yield _log(cores)
    yield _log(v.facts.registers)


def _log(value: float) -> float:
    return math.log2(1.0 + max(0.0, value))


__all__ = ["NAMES", "encode"]
