"""Rules of legality for dots: how their operands are packed, and what the instructions that multiply ask for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.atoms import ATOMS, PAIRED, TILED
from tilewright.design.panels import TILE_BYTES, WORDS
from tilewright.design.view import View, shown
from tilewright.language import ir
from tilewright.language.dtypes import dtype


# ------------------------------------------------------------------------------------------ packing
def packs(v: View) -> Iterator[str]:
    """Panels can be made of the tensor, and all its readers can read them."""
    for tensor, layout in v.design.prefixed("pack"):
        problem = _unpackable(v, tensor)
        if problem:
            yield f"pack.{tensor}={layout}: {problem}; drop it"
            continue
        if mismatch := _ungrouped(str(layout), v.tensors[tensor].dtype.bits):
            yield f"pack.{tensor}={layout}: {tensor} is {v.tensors[tensor].dtype}, and {mismatch}"
        for let, dot in v.readers_of(tensor):
            yield from _packed_reader(v, tensor, str(layout), let, dot)


def _ungrouped(layout: str, bits: int) -> str | None:
    """Why elements of so many bits are not packed in a layout."""
    fits = WORDS.get(bits)
    if layout in ("panel", fits) or (layout == "tile" and fits):
        return None
    kinds = {"pair": "only 16-bit floats go in pairs", "quad": "only bytes go four by four"}
    return f"{kinds.get(layout, 'tile registers hold 16-bit floats or bytes')}; take {fits or 'panel'}"


def _unpackable(v: View, tensor: str) -> str | None:
    """Why no panel of a tensor can be made."""
    loads = v.loads_of(tensor)
    if not loads or not all(v.dots_of(let.name) and _read_by_dots_alone(v, let.name) for let, _ in loads):
        return f"{tensor} is not just an operand of dots"
    if len({ref for _, ref in loads}) > 1:
        return f"{tensor} is loaded at different places"
    let, ref = loads[0]
    for index in ref.index:
        if isinstance(index, str) and index not in v.axes:
            return f"its index {index} is no axis of a loop"
        if isinstance(index, str) and (v.axes[index].start is not None or v.axes[index].stop is not None):
            return f"axis {index} covers only a part of its dimension"
    return None if len(let.type.axes) == 2 else f"its tiles have axes {shown(let.type.axes)}, not two"


def _read_by_dots_alone(v: View, value: str) -> bool:
    uses = [let for let in v.values.values() if value in ir.operands(let.expr)]
    stored = any(isinstance(s, (ir.Store, ir.Assign)) and s.value == value for s in ir.walk(v.kernel.body))
    return not stored and all(isinstance(let.expr, ir.Dot) for let in uses)


def _packed_reader(v: View, tensor: str, layout: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """What the dot `let` asks of the layout of its operand."""
    atom = v.design.get(f"atom.{let.name}", "fma")
    if v.is_inner(let, dot):
        yield f"pack.{tensor}={layout}: {let.name} has its lanes along {dot.axis}, across the panels; drop it"
    elif layout != "panel" and atom == "fma":
        yield f"pack.{tensor}={layout}: atom.{let.name} is fma, which reads single elements; take panel"
    elif layout == "tile" and atom not in TILED:
        yield f"pack.{tensor}={layout}: atom.{let.name} is {atom}, which reads pairs; take pair"


def locals_(v: View) -> Iterator[str]:
    """What is packed inside a cache block is a block of it."""
    for tensor, wanted in v.design.prefixed("local"):
        if not wanted:
            continue
        label = f"local.{tensor}=True"
        if v.design.get(f"pack.{tensor}") is None:
            yield f"{label}: nothing is packed; add pack.{tensor}=panel, or drop it"
        for let, dot in v.readers_of(tensor):
            value = next(v.values[n] for n in (dot.a, dot.b) if v.operand(n)[1] == tensor)
            rows = [a for a in value.type.axes if a in let.type.axes]
            if any(v.design.get(f"block.{a}") is None for a in rows):
                yield f"{label}: a block of it is packed, and there are no blocks; add block.{rows[0]}, or drop it"


def unpacks(v: View) -> Iterator[str]:
    """Elements are widened while they are packed, for both operands of a dot."""
    for tensor, wanted in v.design.prefixed("unpack"):
        if not wanted:
            continue
        if v.design.get(f"pack.{tensor}") != "panel":
            yield f"unpack.{tensor}=True: elements are widened while they are packed; add pack.{tensor}=panel"
        if v.tensors[tensor].dtype.bits != 16:
            yield f"unpack.{tensor}=True: {tensor} is {v.tensors[tensor].dtype}, which is not a 16-bit float; drop it"
        for let, dot in v.readers_of(tensor):
            others = [t for n in (dot.a, dot.b) if (t := v.operand(n)[1]) != tensor]
            if any(o is None or not v.design.get(f"unpack.{o}") for o in others):
                names = " and ".join(f"unpack.{o}" for o in others)
                yield f"unpack.{tensor}=True: {let.name} multiplies it with a narrower operand; add {names}=True"


# -------------------------------------------------------------------------------------------- atoms
def features(v: View) -> Iterator[str]:
    """The machine has the instruction."""
    for dot, atom in v.design.prefixed("atom"):
        feature = ATOMS[str(atom)]
        if feature is not None and not v.facts.machine.has(feature):
            yield f"atom.{dot}={atom}: {v.facts.machine.name} has no {feature}; take fma"


def pairs(v: View) -> Iterator[str]:
    """What vdpbf16ps and vpdpwssd ask of operands and tiles."""
    for name, atom in v.design.prefixed("atom"):
        if atom not in PAIRED:
            continue
        let, dot = v.dots[name]
        label, wanted = f"atom.{name}={atom}", PAIRED[str(atom)]
        if wrong := [n for n in (dot.a, dot.b) if v.values[n].type.dtype.name != wanted]:
            yield f"{label}: {wrong[0]} is {v.values[wrong[0]].type.dtype}, not {wanted}; take fma"
        elif atom == "vnni" and not v.is_inner(let, dot):
            yield f"{label}: bytes are widened as they are read along {dot.axis}; put {dot.axis} first in lanes"
        elif atom == "vnni" and (sources := [n for n in (dot.a, dot.b) if v.operand(n)[1] is None]):
            yield f"{label}: {sources[0]} is computed, and bytes are read from memory; take fma"
        else:
            yield from (_inner_pairs if v.is_inner(let, dot) else _outer_pairs)(v, label, let, dot)


def _inner_pairs(v: View, label: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """Lanes along the sum: both operands lie in pairs as they are."""
    k, chunk = dot.axis, 2 * v.facts.lanes
    if v.extent(k) % chunk:
        yield f"{label}: tile.{k}={v.extent(k)} is not a multiple of {chunk}, a vector of pairs; take {chunk}"
    size = v.fixed_size(k)
    if size is not None and size < chunk:
        yield f"{label}: {v.dim(k)} is always {size}, less than {chunk}, a vector of pairs; take fma"
    for operand in (dot.a, dot.b):
        tensor = v.operand(operand)[1]
        if tensor is not None and not v.runs_along(tensor, k):
            yield f"{label}: {tensor} has no stride of one along {k}; put another axis first in lanes, or take fma"


def _outer_pairs(v: View, label: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    """Lanes along the result: both operands hold neighbours of the sum side by side."""
    k, lane = dot.axis, v.lane_of(let.type.axes)
    if lane is None:
        yield f"{label}: no axis of the result lies across lanes; add one to lanes, with a tile of {v.facts.lanes}"
        return
    if v.extent(lane) % v.facts.lanes:
        yield f"{label}: tile.{lane}={v.extent(lane)} does not fill vectors of {v.facts.lanes}; take {v.facts.lanes}"
    size = v.fixed_size(lane)
    if size is not None and size < v.facts.lanes:
        yield f"{label}: {v.dim(lane)} is always {size}, less than a vector of {v.facts.lanes}; take fma"
    if v.extent(k) % 2:
        yield f"{label}: tile.{k}={v.extent(k)} is odd, and two neighbours are multiplied at once; take 2"
    for operand in (dot.a, dot.b):
        value, tensor = v.operand(operand)
        if tensor is None or v.design.get(f"pack.{tensor}") == "pair":
            continue  # what is in registers is interleaved there
        if not _pairs_in_place(v, value, tensor, k, lane):
            yield f"{label}: neighbours along {k} are not side by side in {tensor}; add pack.{tensor}=pair"


def _pairs_in_place(v: View, value: ir.Let, tensor: str, k: str, lane: str) -> bool:
    """Whether pairs can be had without packing: as one word, or from vectors along the lanes, two at a time.

    Along a sum that is no loop an operand is turned once, wherever its lanes lie in memory.
    """
    whole = k not in v.axes  # then its size is a part of the kernel
    if lane in value.type.axes:
        return whole or v.runs_along(tensor, lane)
    return (whole or (v.fixed_size(k) or 1) % 2 == 0) and v.runs_along(tensor, k)


_TILE_ROWS, _TILE_REGISTERS = 16, 8


def tiles(v: View) -> Iterator[str]:
    """What the tile registers of AMX ask of operands and tiles."""
    atoms = {n: str(atom) for n, atom in v.design.prefixed("atom") if atom in TILED}
    amx = list(atoms)
    for nest in v.nests:
        inside = [d.name for d in nest.dots]
        if set(inside) & set(amx) and not set(inside) <= set(amx):
            rest = ", ".join(f"atom.{d}" for d in inside if d not in amx)
            first = f"atom.{amx[0]}={atoms[amx[0]]}"
            yield f"{first}: tile registers are set up for a whole loop; set {rest} to it as well"
    blocks = [_tile_blocks(v, v.dots[n][0]) for n in amx]
    accumulators, held = sum(map(math.prod, blocks)), max(map(min, blocks), default=0)
    if accumulators + held >= _TILE_REGISTERS:  # one operand waits in registers, and parts of the other pass by
        yield (
            f"atom.{amx[0]}={atoms[amx[0]]}: the tiles take {accumulators} accumulators and {held} for an operand, and "
            f"{_TILE_REGISTERS - 1} of the {_TILE_REGISTERS} tile registers are free; take smaller tiles"
        )
    for name, atom in atoms.items():
        yield from _tile_operands(v, f"atom.{name}={atom}", TILED[atom], *v.dots[name])


def _tile_blocks(v: View, let: ir.Let) -> list[int]:
    """Tile registers of a result along each of its axes."""
    return [-(-v.extent(axis) // _TILE_ROWS) for axis in let.type.axes]


def _tile_operands(v: View, label: str, wanted: str, let: ir.Let, dot: ir.Dot) -> Iterator[str]:
    lane = v.lane_of((dot.axis, *let.type.axes))
    if lane is None or lane == dot.axis:
        yield f"{label}: the columns of the result lie across lanes; put one of {shown(let.type.axes)} first in lanes"
        return
    bits = dtype(wanted).bits
    depth = 8 * TILE_BYTES // bits
    if v.extent(dot.axis) > depth:  # past the end of a ragged sum only one register is padded with zeros
        yield f"{label}: tile.{dot.axis}={v.extent(dot.axis)} is more than the {depth} of a register; take {depth}"
    for axis, unit in ((dot.axis, depth), *((a, _TILE_ROWS) for a in let.type.axes)):
        if v.extent(axis) % unit:
            yield f"{label}: tile.{axis}={v.extent(axis)} does not fill tile registers of {unit}; take {unit}"
        size = v.fixed_size(axis)
        if size is not None and size < unit:
            yield f"{label}: {v.dim(axis)} is always {size}, less than a tile register of {unit}; take fma"
    for operand in (dot.a, dot.b):
        value, tensor = v.operand(operand)
        layout = WORDS[bits] if lane in value.type.axes else "tile"
        if value.type.dtype.name != wanted:
            yield f"{label}: {operand} is {value.type.dtype}, not {wanted}; take fma"
        packed = v.design.get(f"pack.{tensor}") if tensor is not None else None
        if packed == layout or (
            tensor is not None and packed is None and layout == "tile" and _in_rows(v, tensor, dot)
        ):
            continue
        yield f"{label}: tile registers are loaded from packed memory; add pack.{tensor or operand}={layout}"


def _in_rows(v: View, tensor: str, dot: ir.Dot) -> bool:
    """Whether tile registers can be loaded where a tensor lies: neighbours along the sum, rows at one distance."""
    places = [ref.index for _, ref in v.loads_of(tensor)]
    return v.runs_along(tensor, dot.axis) and all(isinstance(i, int) or i in v.axes for index in places for i in index)
