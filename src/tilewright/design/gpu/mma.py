"""Designs of products through shared memory: mma.sync where elements are narrow, FMA in f32."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.product import Operand, Product, product
from tilewright.design.legality import Reason
from tilewright.language import ir

_ROW_BYTES = 128
_FEW = 8
_MMA = ("bf16", "f16", "tf32", "i8", "f8e4m3")

# Rows and columns of a tile, warps, and the rate beside the first where all waves are full.
_TILES = ((128, 256, 8, 1.0), (128, 128, 8, 0.9), (128, 64, 4, 0.75), (64, 64, 4, 0.6), (32, 64, 4, 0.4))
_FMA_TILES = ((128, 128, 8, 1.0), (64, 128, 4, 0.9), (64, 64, 4, 0.75))


def staged_product(p: Product, facts: Facts, extra: bool = False) -> dict[str, Choice] | None:
    """A design whose operands pass through shared memory; None where they should not, or cannot.

    `extra`: what follows the sums reads other tensors too.
    """
    m, n = p.size(p.m, facts), p.size(p.n, facts)
    if any(not facts.unit.get(o.tensor) for o in p.operands):
        return None
    if p.dtype not in (*_MMA, "f32") or (min(m, n) <= _FEW and all(p.runs_along_sum(o, facts) for o in p.operands)):
        return None
    turned = not all(p.runs_along_sum(o, facts) for o in p.operands)
    if p.itemsize == 1 and turned:
        return None
    atom = "fma" if p.dtype == "f32" or (p.dtype == "tf32" and turned) else "mma"
    swap = m <= 32 < n
    rows, columns, warps, _ = _tile(p, facts, m, n, atom, swap)
    if swap:
        rows, columns = columns, rows
    decisions: dict[str, Choice] = {
        f"tile.{p.m.name}": rows,
        f"tile.{p.n.name}": columns,
        f"tile.{p.k.name}": _ROW_BYTES // p.itemsize,
        "warps": warps,
        "stages": 3,
        "grid.order": "grouped",
        "grid.group": 8,
    }
    if swap:
        decisions["swap"] = True
    decisions |= {f"atom.{d.name}": atom for d in p.dots}
    aligned = {o.tensor: o.tensor in facts.aligned for o in p.operands}
    decisions |= {f"engine.{t}": "cp_async" if known else "plain" for t, known in aligned.items()}
    fitting = _fitting(p, decisions, facts)
    if fitting is None:
        return None
    decisions |= fitting
    sums = rows * columns * len(p.dots) // (32 * warps)
    # Two blocks on an SM leave 128 registers to a thread, which copies through registers and long epilogues exceed.
    lean = all(aligned.values()) and all(p.runs_along_sum(o, facts) for o in p.operands) and not extra
    if lean and atom == "mma" and sums <= 64 and warps == 8 and 2 * _bytes(p, Design.of(decisions)) <= _room(facts):
        decisions["resident"] = 2
    return decisions


def _fitting(p: Product, decisions: dict[str, Choice], facts: Facts) -> dict[str, Choice] | None:
    """The deepest tile, and the most stages, whose operands find room in shared memory."""
    widest = _ROW_BYTES // p.itemsize
    for depth, stages in itertools.product((widest, widest // 2), (3, 2)):
        chosen: dict[str, Choice] = {f"tile.{p.k.name}": depth, "stages": stages}
        if _bytes(p, Design.of({**decisions, **chosen})) <= _room(facts):
            return chosen
    return None


def _tile(p: Product, facts: Facts, m: int, n: int, atom: str, swap: bool) -> tuple[int, int, int, float]:
    """(rows, columns, warps, rate) of the tile whose waves waste least; of a swapped one rows are those of weights."""
    if swap:
        columns = 16 if m <= 16 else 32
        return (64, columns, 4, 1.0)
    each = math.prod(facts.sizes.get(a.over, 1) for a in p.each)
    # Without an instruction of their own, 8-bit floats are widened in registers.
    several = len(p.dots) > 1 or p.dtype == "f8e4m3" or any(o.tensor not in facts.aligned for o in p.operands)

    def cost(tile: tuple[int, int, int, float]) -> float:
        rows, columns, _, rate = tile
        waves = math.ceil(-(-m // rows) * -(-n // columns) * each / facts.machine.cores)
        return waves * rows * columns / rate

    tiles: tuple[tuple[int, int, int, float], ...]
    tiles = _FMA_TILES if atom == "fma" else _TILES[1:] if several else _TILES
    if any(o.tensor not in facts.aligned for o in p.operands):
        tiles = tuple((r, c, 8, rate) for r, c, _, rate in tiles if r * c >= 128 * 64)
    rows, columns, warps, rate = min(tiles, key=cost)
    return rows, max(32, columns // len(p.dots)), warps, rate


def _room(facts: Facts) -> int:
    """Bytes of shared memory that one block may have."""
    return int(facts.machine.limit("shared_bytes_per_block"))


def _bytes(p: Product, design: Design) -> int:
    depth = design.number(f"tile.{p.k.name}")
    tensors = {o.tensor: design.number(f"tile.{o.axis}") for o in p.operands}
    return sum(depth * points for points in tensors.values()) * p.itemsize * design.number("stages", 2)


# ------------------------------------------------------------------------------------------------ legality
def legal_panels(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Every reason why a design through shared memory cannot run `kernel`."""
    found = product(kernel)
    if isinstance(found, str):
        return [Reason("product", f"engine: {found}; drop the decision", "panels hold operands of plain products")]
    return [
        Reason("panels", m, "panels are dealt to warps and to copies whole") for m in _problems(found, design, facts)
    ]


def _problems(p: Product, design: Design, facts: Facts) -> Iterator[str]:
    engines = dict(design.prefixed("engine"))
    atoms = {str(atom) for _, atom in design.prefixed("atom")}
    missing = [o.tensor for o in p.operands if o.tensor not in engines]
    if missing:
        yield f"engine.{missing[0]} is missing: all operands of a product lie in shared memory, or none"
    if len(atoms) > 1 or not atoms <= {"mma", "fma"}:
        yield f"atom={', '.join(sorted(atoms))}: takes mma or fma, the same for all dots"
    if atoms == {"mma"} and p.dtype not in _MMA:
        yield f"atom=mma multiplies {', '.join(_MMA)}, not {p.dtype}; take fma"
    if atoms == {"fma"} and p.dtype not in ("f32", "tf32"):
        yield f"atom=fma multiplies panels of f32, not {p.dtype}; take mma"
    atom = min(atoms, default="")
    yield from (m for o in p.operands for m in _operand(p, o, atom, str(engines.get(o.tensor)), facts))
    yield from _tiles(p, design, atoms)
    if not 2 <= design.number("stages", 2) <= 8:
        yield f"stages={design.number('stages', 2)}: takes 2 to 8"
    if (need := _bytes(p, design)) > _room(facts):
        yield f"stages={design.number('stages', 2)}: {need} bytes of shared memory, and {_room(facts)} is the most"


def _operand(p: Product, o: Operand, atom: str, engine: str, facts: Facts) -> Iterator[str]:
    if engine not in ("cp_async", "plain"):
        yield f"engine.{o.tensor}={engine}: takes cp_async or plain"
    if engine == "cp_async" and o.tensor not in facts.aligned:
        yield f"engine.{o.tensor}=cp_async: its rows may not be aligned; take plain"
    if not facts.unit.get(o.tensor):
        yield f"engine.{o.tensor}={engine}: none of its dimensions has stride one; drop the decision"
    if p.itemsize == 1 and not p.runs_along_sum(o, facts):
        yield f"engine.{o.tensor}={engine}: elements of one byte must run along the sum; drop the decision"
    if p.dtype == "tf32" and atom == "mma" and not p.runs_along_sum(o, facts):
        yield f"atom=mma: {o.tensor} must run along the sum, for ldmatrix turns 16 bits only; take fma"


def _tiles(p: Product, design: Design, atoms: set[str]) -> Iterator[str]:
    rows, columns, depth = (design.number(f"tile.{a.name}", 1) for a in (p.m, p.n, p.k))
    if depth * p.itemsize not in (32, 64, 128, 256):
        yield f"tile.{p.k.name}={depth}: a step is 32 to 256 bytes of the sum"
    if "mma" in atoms:
        warps = design.number("warps", 4)
        grids = [(w, warps // w) for w in range(1, warps + 1) if warps % w == 0]
        if not any(rows % (16 * d) == 0 and columns % (16 * a) == 0 for d, a in grids):
            yield f"tile.{p.m.name}={rows}, tile.{p.n.name}={columns}: not fragments of 16 x 16 for {warps} warps"
    accumulators = rows * columns * len(p.dots) // (32 * design.number("warps", 4))
    if accumulators > 128:
        warps = design.number("warps", 4)
        yield f"warps={warps}: {accumulators} sums in a thread, and 128 is the most; take more warps"


__all__ = ["legal_panels", "staged_product"]
