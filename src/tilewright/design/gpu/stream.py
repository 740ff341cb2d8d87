"""Designs of streams: dots over whole dimensions, of rows that stay with a range that passes by (attention).

The range is dealt to blocks and warps in parts (`part.AXIS`) where what it carries can be joined. Each warp has its
keys to itself: it multiplies by mma.sync what it loads, or by FMA where elements are wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.shape import VECTOR, Shape, power
from tilewright.language import ir, structure
from tilewright.language.recurrences import carried

ROWS = 16
"""Rows of a result of mma.sync: what stays with a warp."""

_KEYS = 16
"""Points of the range in one step of mma.sync, of which the second dot sums."""

_WIDE = 256
"""Elements that a step of 16 keys may read of each key with registers to spare for all that is on its way."""

MOST_STAGES = 8
_AHEAD = 64 << 10  # bytes that a block has on their way, twice what an SM needs at the rate of memory
_SHORT_STEP = 4 << 10  # bytes of a step that four warps on an SM spend more time on than memory does
_LEAST = 1024  # points that a part is not halved below
_SHORT = 128  # elements of a key and a value together, of which a step has few wide loads
_WARPS = 4
_RESIDENT = 4  # blocks of so many warps that fit on an SM
_OVERHEAD_S = 2.5e-6  # a block until its first loads arrive, and from its last ones on
_JOIN_S, _JOINED = 0.7e-6, 8  # one round trip to the states of other blocks, and how many are on their way at once
_BLOCK_RATE = 28e9  # bytes a second that one block keeps in flight


def default_stream(s: Shape) -> dict[str, Choice]:
    """Parts dealt to blocks and warps where the states can be joined; else rows dealt to all threads of a block."""
    loop = dealt_loop(s.nest)
    if loop is None or _why_not_joined(s.nest, loop) is not None:
        return _together(s)
    atom = "mma" if _why_no_fragments(s.kernel, s.nest, s.facts) is None else "fma"
    decisions: dict[str, Choice] = {"warps": _WARPS, **{f"atom.{d.name}": atom for d in s.nest.dots}}
    spare = rows = ROWS if atom == "mma" and math.prod(power(s.size(a)) for a in s.parallel) > ROWS // 2 else ROWS // 2
    for axis in s.parallel:
        decisions[f"tile.{axis.name}"] = tile = min(power(s.size(axis)), spare)
        spare //= tile
    if atom == "mma" and rows < ROWS:  # few rows lie along the columns of mma, in half the registers
        decisions["swap"] = True
        if spare == rows:
            decisions[f"tile.{s.parallel[0].name}"] = 2
    wide = sum(s.facts.sizes.get(d, 1) for d in s.whole)
    step = _KEYS * max(1, min(4, _power_below(_WIDE // max(1, wide)))) if atom == "mma" else _KEYS // 2
    for axis in s.serial:
        decisions[f"tile.{axis.name}"] = min(step, max(_KEYS if atom == "mma" else 1, power(s.size(axis))))
    (axis,) = loop.axes
    unit = _WARPS * (1 if axis.each else int(str(decisions[f"tile.{axis.name}"])))
    decisions[f"part.{axis.name}"] = _part(s, axis, unit, decisions)
    alone = _one_step(s, axis, unit, decisions)
    decisions |= alone or {"turns": True, **_under_way(s, axis, unit, s.widths() | decisions)}
    decisions["lanes"] = (*s.whole, *(a.name for a in s.serial), *(a.name for a in reversed(s.parallel)))
    written = {x.ref.buffer for x in ir.walk(s.kernel.body) if isinstance(x, ir.Store)}
    if atom == "fma":  # elements of 8 bits are widened first: 16 bytes of them are 16 registers
        streams = [let.expr.ref.buffer for let in _ahead(s.kernel, s.nest) if isinstance(let.expr, ir.Load)]
        narrow = [t for t in streams if s.kernel.param(t).dtype.bytes == 1]
        decisions |= {f"vec.{t}": min(VECTOR // 4, s.widths().get(f"vec.{t}", 1)) for t in narrow}
    stored = [name for name in s.widths() if name.removeprefix("vec.") in written]
    return decisions | {name: _result_run(s.kernel, decisions, name.removeprefix("vec."), s.facts) for name in stored}


def _one_step(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> dict[str, Choice]:
    """Parts of one step for each warp, where there are no more of these than SMs: then nothing comes ahead of its use.

    All loads of a warp are under way at once; a box of the copy engine would take 2 us to begin with (note 0018).
    Nothing where parts are longer, or where this was not measured: pages, 8 bits, machines other than Hopper.
    """
    mma = "mma" in decisions.values() and _has_copy_engine(s.facts)
    wide = sum(s.facts.sizes.get(d, 1) for d in s.whole)
    few = 2 * _tiles(s, decisions) <= s.facts.machine.cores
    if not (mma and few) or axis.each or wide > _WIDE or _bytes(s) == 1:
        return {}
    found = next((n for n in (_WARPS * _KEYS, unit) if _one_each(s, axis, n, decisions) == n), None)
    if found is None:
        return {}
    return {f"tile.{axis.name}": found // _WARPS, f"part.{axis.name}": found, "resident": _RESIDENT - 1}


def _under_way(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> dict[str, Choice]:
    """How what streams by comes: a step at a time, or some steps ahead by the copy engine.

    Where tiles are few, a block on each SM has to have enough under way alone, and so has one that reads 8 bits, which
    are widened first; warps that take short steps are twice as many. Else several blocks of an SM have enough, and
    short rows want all loads of a step asked for at once; of short steps the next one is held in registers.
    """
    loads = _ahead(s.kernel, s.nest)
    mma = "mma" in decisions.values() and _has_copy_engine(s.facts)  # measured on Hopper, and nowhere else
    tensors = [let.expr.ref.buffer for let in loads if isinstance(let.expr, ir.Load)]
    few = 2 * _tiles(s, decisions) <= s.facts.machine.cores
    warps = _WARPS
    wide = sum(s.facts.sizes.get(d, 1) for d in s.whole)
    if mma and wide <= _SHORT and not few and (held := _held(s, axis, unit, decisions, tensors)):
        return held
    if mma and wide <= _WIDE and (few or _bytes(s) == 1):
        step = sum(_step_bytes(let, Design.of(decisions), s.facts) for let in loads)
        if few and step <= _SHORT_STEP:
            warps, unit = 2 * warps, 2 * unit
        stages = max(2, min(MOST_STAGES, _AHEAD // (warps * step)))
        ahead: dict[str, Choice] = {"stages": stages, **{f"engine.{t}": "tma" for t in tensors}}
        if few:
            ahead[f"part.{axis.name}"] = _one_each(s, axis, unit, decisions)
        room = int(s.facts.machine.limit("shared_bytes_per_block")) // (warps * stages * step)
        ahead |= {"warps": warps, "resident": max(1, min(3 * _WARPS // warps, room))}
        design = Design.of(decisions | ahead)
        if not any(True for rule in (_engines, _rings) for _ in rule(s.kernel, s.nest, design, s.facts)):
            return ahead
    if mma and wide <= _SHORT:
        return {"resident": 3, **{f"cache.{t}": "strong" for t in tensors}}
    return {"resident": _RESIDENT} if mma and wide <= _WIDE else {}


def _held(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice], tensors: list[str]) -> dict[str, Choice]:
    """The next step in registers, where steps are short: pages, or rows of 8 bits; nothing else, as not measured."""
    narrow = _bytes(s) == 1
    if narrow == axis.each:
        return {}
    held: dict[str, Choice] = {"stages": 1, "resident": _RESIDENT, **{f"engine.{t}": "registers" for t in tensors}}
    if narrow:
        part = max(2 * unit, int(str(decisions[f"part.{axis.name}"])))
        held |= {"warps": 2 * _WARPS, "resident": _RESIDENT // 2, f"part.{axis.name}": part}
    design = Design.of(decisions | held)
    broken = any(True for rule in (_engines, _rings) for _ in rule(s.kernel, s.nest, design, s.facts))
    return {} if broken else held


def _has_copy_engine(facts: Facts) -> bool:
    """Whether the machine copies boxes of tensors by itself."""
    return "wgmma" in {a.name.partition(".")[0] for a in facts.machine.atoms}


def _tiles(s: Shape, decisions: dict[str, Choice]) -> int:
    return math.prod(-(-s.size(a) // int(str(decisions.get(f"tile.{a.name}", 1)))) for a in s.nest.loop.axes)


def _one_each(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> int:
    """The shortest parts of which there is at most one for each SM."""
    parts, tiles = (unit << n for n in range(24)), _tiles(s, decisions)
    return next(p for p in parts if tiles * -(-s.size(axis) // p) <= s.facts.machine.cores)


def _result_run(kernel: ir.Kernel, decisions: dict[str, Choice], tensor: str, facts: Facts) -> int:
    """Neighbours of a result in a thread where the states of warps are joined: all threads of a block have a share."""
    (store,) = (s for s in ir.walk(kernel.body) if isinstance(s, ir.Store) and s.ref.buffer == tensor)
    axes = structure.lets(kernel)[store.value].type.axes
    points = math.prod(int(str(decisions.get(f"tile.{a}", 0))) or facts.sizes.get(a, 1) for a in axes)
    threads = 32 * int(str(decisions["warps"]))
    return max(1, min(VECTOR // kernel.param(tensor).dtype.bytes, power(points) // threads))


def _together(s: Shape) -> dict[str, Choice]:
    """Lanes along whole dimensions, then along the rows of the result; what streams by lies in registers."""
    longest = max((s.facts.sizes.get(d, 1) for d in s.whole), default=1)
    lanes = max(1, min(32, power(-(-longest // s.run))))
    decisions: dict[str, Choice] = {"warps": 4, **{f"atom.{d.name}": "fma" for d in s.nest.dots}}
    spare = 128 // lanes
    for axis in reversed(s.parallel):
        decisions[f"tile.{axis.name}"] = tile = min(power(s.size(axis)), spare)
        spare //= tile
    for axis in s.serial:
        decisions[f"tile.{axis.name}"] = 8
    decisions["lanes"] = (*s.whole, *(a.name for a in reversed(s.parallel)))
    return decisions


def _power_below(n: int) -> int:
    return 1 << max(0, n.bit_length() - 1)


def _part(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> int:
    """Points of the range for one block: as many as make all blocks end soonest, by bytes and whole waves."""
    size, machine = s.size(axis), s.facts.machine
    tiles = _tiles(s, decisions)
    inner = math.prod(s.size(a) for a in s.serial if a is not axis)
    each = inner * sum(s.facts.sizes.get(d, 1) for d in s.whole) * _bytes(s)
    slots = machine.cores * _RESIDENT
    read = machine.memory.read or machine.memory.bandwidth or 1e12

    def seconds(part: int) -> float:
        parts = -(-size // part)
        blocks = tiles * parts
        waves, busy = -(-blocks // slots), min(blocks, slots)
        join = _JOIN_S * -(-parts // _JOINED) if parts > 1 else 0.0
        return waves * (_OVERHEAD_S + part * each / min(read / busy, _BLOCK_RATE)) + join

    choices = [unit << n for n in range(12)]
    most = next((c for c in choices if c >= size), choices[-1])
    best = min((c for c in choices if c <= most), key=lambda c: (seconds(c), c))
    # Ranges that end as data say are of different lengths: the longest one is not to be what all wait for.
    uneven = _ends_by_data(s, axis) and best * inner // 2 >= _LEAST and best // 2 >= unit
    return best // 2 if uneven else best


def _ends_by_data(s: Shape, axis: ir.Axis) -> bool:
    """Whether how far a loop goes is read from a tensor."""
    lets = structure.lets(s.kernel)
    todo, seen = [str(axis.stop)], set[str]()
    while todo:
        let = lets.get(todo.pop())
        if let is not None and let.name not in seen:
            seen.add(let.name)
            if isinstance(let.expr, ir.Load):
                return True
            todo += ir.operands(let.expr)
    return False


def _bytes(s: Shape) -> int:
    """Of an element of what streams by."""
    return max((let.type.dtype.bytes for let in _ahead(s.kernel, s.nest)), default=2)


# ------------------------------------------------------------------------------------------------------ legality
def dealt_loop(nest: structure.Nest) -> ir.Loop | None:
    """The only serial loop of a nest's body, over one axis."""
    return nest.serial[0] if len(nest.serial) == 1 and len(nest.serial[0].axes) == 1 else None


def _why_not_joined(nest: structure.Nest, loop: ir.Loop) -> str | None:
    at = nest.loop.body.index(loop)
    found = carried(loop, {s.name: s for s in nest.loop.body[:at] if isinstance(s, ir.Let)})
    return found if isinstance(found, str) else None


def _why_no_fragments(kernel: ir.Kernel, nest: structure.Nest, facts: Facts) -> str | None:
    """Why dots cannot be multiplied by mma.sync on registers."""
    lets = structure.lets(kernel)
    rows = {a.name for a in nest.loop.axes if not a.each}
    for dot in nest.dots:
        assert isinstance(dot.expr, ir.Dot)
        first, second = lets[dot.expr.a], lets[dot.expr.b]
        load = structure.source(lets, second.name)
        if (
            not {first.type.dtype.name, second.type.dtype.name} <= {"bf16", "f16"}
            or first.type.dtype != second.type.dtype
        ):
            return f"{dot.name} multiplies {first.type.dtype} by {second.type.dtype}, not two of bf16 or f16"
        if not isinstance(load.expr, ir.Load) or len(second.type.axes) != 2:
            return f"{second.name} is no matrix as it lies in memory"
        if set(first.type.axes) - {dot.expr.axis} != rows:
            return f"{first.name} does not have the rows {', '.join(sorted(rows))}"
        unknown = [a for a in second.type.axes if a in kernel.dims and not facts.sizes.get(a)]
        if unknown:
            return f"the size of {unknown[0]} is not known"
    return None


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
        if (why := _why_not_joined(nest, loop)) is not None:
            yield f"part.{name}: its states cannot be joined: {why}; drop the decision"
        warps, step = design.number("warps", 4), 1 if loop.axes[0].each else design.number(f"tile.{name}", 1)
        if not isinstance(points, int) or points < 1 or points % (warps * step):
            yield f"part.{name}={points}: takes a multiple of {warps * step}: {step} for each of {warps} warps"
    if design.get("persistent") or any(dict(design.prefixed(p)) for p in ("keep", "early", "split")):
        yield "part: goes without persistent, keep, early and split; drop these"
    yield from _engines(kernel, nest, design, facts)
    yield from _fragments(kernel, nest, design, facts)
    yield from _rings(kernel, nest, design, facts)


def _engines(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders the copy engine from bringing what is on its way."""
    engines = dict(design.prefixed("engine"))
    if not engines:
        return
    loads = {let.expr.ref.buffer: let for let in _ahead(kernel, nest) if isinstance(let.expr, ir.Load)}
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
    if not _has_copy_engine(facts):
        yield f"engine=tma: {facts.machine.name} has no copy engine for tensors; take cp_async"
    if not any(atom == "mma" for _, atom in design.prefixed("atom")):
        yield "engine=tma: rows of 128 bytes are what mma reads; take cp_async"


def _rings(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    """What hinders operands from being on their way some steps ahead."""
    stages = design.get("stages")
    if stages is None:
        return
    loads = _ahead(kernel, nest)
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
    states = [let for let in nest.loop.body if isinstance(let, ir.Let) and let.name in _carried(nest)]
    each = stages * sum(_step_bytes(let, design, facts) for let in loads)
    bytes_ = design.number("warps", 4) * (each + sum(_step_bytes(let, design, facts) for let in states))
    room = int(facts.machine.limit("shared_bytes_per_block")) - 2048
    if bytes_ > room:
        yield f"stages={stages}: {bytes_} bytes of shared memory, and {room} is the most: take fewer stages or warps"


def _ahead(kernel: ir.Kernel, nest: structure.Nest) -> list[ir.Let]:
    """Loads of the innermost loop that dots read."""
    lets, dots = structure.lets(kernel), [d.expr for d in nest.dots if isinstance(d.expr, ir.Dot)]
    read = {structure.source(lets, n).name for d in dots for n in (d.a, d.b)}
    inner = [s for loop in ir.walk((nest.serial[0],)) if isinstance(loop, ir.Loop) for s in loop.body]
    return [s for s in inner if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.name in read]


def loads_ahead(kernel: ir.Kernel) -> list[ir.Load]:
    """Loads of the innermost loop that dots read: those that may be on their way some steps ahead."""
    nest = structure.nests(kernel)[0]
    return [let.expr for let in _ahead(kernel, nest) if isinstance(let.expr, ir.Load)] if nest.serial else []


def _carried(nest: structure.Nest) -> set[str]:
    return {s.name for s in ir.walk(nest.serial[0].body) if isinstance(s, ir.Assign)}


def _step_bytes(let: ir.Let, design: Design, facts: Facts) -> int:
    """Of one tile, at the most: whole dimensions are padded to rows of 128 bytes."""
    row = 128 // let.type.dtype.bytes
    points = (design.number(f"tile.{a}") or -(-facts.sizes.get(a, 1) // row) * row for a in let.type.axes)
    return math.prod(points) * let.type.dtype.bytes


def _fragments(kernel: ir.Kernel, nest: structure.Nest, design: Design, facts: Facts) -> Iterator[str]:
    atoms = {str(design.get(f"atom.{d.name}", "fma")) for d in nest.dots}
    if "mma" not in atoms:
        return
    if atoms != {"mma"}:
        yield "atom: all dots of a warp are multiplied by mma, or none"
    if (why := _why_no_fragments(kernel, nest, facts)) is not None:
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
        step = design.number(f"tile.{dot.expr.axis}", _KEYS)
        if step % _KEYS:
            yield f"tile.{dot.expr.axis}={step}: takes a multiple of {_KEYS}, what one mma sums"


def registers_of_warp(kernel: ir.Kernel, design: Design, facts: Facts) -> Iterator[tuple[str, int]]:
    """Elements of each value that a lane holds where a warp works alone."""
    lanes = set(design.names("lanes"))
    mma = any(atom == "mma" for _, atom in design.prefixed("atom"))
    for let in structure.lets(kernel).values():
        sizes = {a: design.number(f"tile.{a}") or facts.sizes.get(a, 1) for a in let.type.axes}
        spread = 32 if mma else min(32, math.prod(power(n) for a, n in sizes.items() if a in lanes))
        yield let.name, math.prod(sizes.values()) // spread


__all__ = ["broken_parts", "dealt_loop", "default_stream", "loads_ahead", "registers_of_warp"]
