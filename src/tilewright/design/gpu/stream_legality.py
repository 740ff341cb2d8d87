"""Which designs of a stream are legal: how its range is dealt out, what is on its way, and what mma.sync multiplies."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.shape import VECTOR
from tilewright.design.gpu.stream import (
    KEYS,
    MOST_STAGES,
    ROWS,
    dealt_loop,
    has_copy_engine,
    lets_ahead,
    names_carried,
    step_bytes,
    why_no_fragments,
    why_not_joined,
)
from tilewright.language import ir, structure


def broken_parts(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders a range from being dealt out as a design says."""
    nest = structure.nests(kernel)[0]
    loop = dealt_loop(nest)
    parts = dict(design.prefixed("part"))
    if not parts:
        if any(atom == "mma" for _, atom in design.prefixed("atom")) and not dict(design.prefixed("engine")):
            yield "atom=mma: operands lie in panels (engine.TENSOR) or belong to a warp alone (part.AXIS); add either"
        return
    for name, points in parts.items():
        if loop is None or loop.axes[0].name != name:
            yield f"part.{name}: {kernel.name} has no serial loop over {name} alone in its nest; drop the decision"
            return
        if (why := why_not_joined(nest, loop)) is not None:
            yield f"part.{name}: its states cannot be joined: {why}; drop the decision"
        warps, step = design.number("warps", 4), 1 if loop.axes[0].each else design.number(f"tile.{name}", 1)
        if not isinstance(points, int) or points < 1 or points % (warps * step):
            yield f"part.{name}={points}: takes a multiple of {warps * step}: {step} for each of {warps} warps"
    if design.get("persistent") or any(dict(design.prefixed(p)) for p in ("keep", "early", "split")):
        yield "part: goes without persistent, keep, early and split; drop these"
    yield from broken_engines(kernel, nest, design, facts)
    yield from _fragments(kernel, nest, design, facts)
    yield from broken_rings(kernel, nest, design, facts)


def broken_engines(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders the copy engine from bringing what is on its way."""
    engines = dict(design.prefixed("engine"))
    if not engines:
        return
    loads = {let.expr.ref.buffer: let for let in lets_ahead(kernel, nest) if isinstance(let.expr, ir.Load)}
    if set(engines) != set(loads) or len(set(engines.values())) != 1:
        yield f"engine: one for all of {', '.join(sorted(loads))}, or for none"
        return
    engine = next(iter(engines.values()))
    if engine not in ("tma", "cp_async", "registers"):
        yield f"engine={engine}: takes tma, cp_async or registers"
    if design.get("stages") is None:
        yield f"engine={engine}: brings what is on its way; add stages, or drop the decision"
    if engine == "registers" and (design.get("stages") != 1 or "mma" not in dict(design.prefixed("atom")).values()):
        yield "engine=registers: hold the next step of what mma reads; take stages=1 and atom=mma, or another engine"
    if engine != "tma":
        return
    if not has_copy_engine(facts):
        yield f"engine=tma: {facts.machine.name} has no copy engine for tensors; take cp_async"
    if not any(atom == "mma" for _, atom in design.prefixed("atom")):
        yield "engine=tma: rows of 128 bytes are what mma reads; take cp_async"


def broken_rings(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders operands from being on their way some steps ahead."""
    stages = design.get("stages")
    if stages is None:
        return
    loads = lets_ahead(kernel, nest)
    if not isinstance(stages, int) or not 1 <= stages <= MOST_STAGES:
        yield f"stages={stages}: takes 1 to {MOST_STAGES}, or none"
        return
    if not loads:
        yield "stages: no dot of the loop reads what it loads; drop the decision"
    if sum(isinstance(s, ir.Loop) for s in ir.walk(nest.serial[0].body)) > 1:
        yield "stages: steps lie in more than two loops; drop the decision"
    for let in loads:
        assert isinstance(let.expr, ir.Load)
        tensor = let.expr.ref.buffer
        if tensor not in facts.aligned or design.number(f"vec.{tensor}", 1) * let.type.dtype.bytes < VECTOR:
            yield f"stages: {tensor} is not read {VECTOR} bytes at once from rows that start so; drop the decision"
    if "registers" in dict(design.prefixed("engine")).values():
        return
    states = [let for let in nest.loop.body if isinstance(let, ir.Let) and let.name in names_carried(nest)]
    each = stages * sum(step_bytes(let, design, facts) for let in loads)
    bytes_ = design.number("warps", 4) * (each + sum(step_bytes(let, design, facts) for let in states))
    room = int(facts.machine.limit("shared_bytes_per_block")) - 2048
    if bytes_ > room:
        yield f"stages={stages}: {bytes_} bytes of shared memory, and {room} is the most: take fewer stages or warps"


def _fragments(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    atoms = {str(design.get(f"atom.{d.name}", "fma")) for d in nest.dots}
    if "mma" not in atoms:
        return
    if atoms != {"mma"}:
        yield "atom: all dots of a warp are multiplied by mma, or none"
    if (why := why_no_fragments(kernel, nest, facts)) is not None:
        yield f"atom=mma: {why}; take fma"
        return
    rows = math.prod(design.number(f"tile.{a.name}", 1) for a in nest.loop.axes if not a.each)
    most = ROWS // 2 if design.get("swap") else ROWS
    if rows > most:
        yield f"tiles of {rows} rows: a warp has {most}; take smaller tiles"
    if design.get("swap") and rows < 2:
        yield "swap: pairs of rows lie in a lane, and there is one; take a tile of two rows"
    for dot in nest.dots:
        assert isinstance(dot.expr, ir.Dot)
        step = design.number(f"tile.{dot.expr.axis}", KEYS)
        if step % KEYS:
            yield f"tile.{dot.expr.axis}={step}: takes a multiple of {KEYS}, what one mma sums"


__all__ = ["broken_engines", "broken_parts", "broken_rings"]
