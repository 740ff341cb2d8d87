"""The default design of a stream: parts of its range for blocks and warps, and how what passes by comes to them."""

from __future__ import annotations

import math

from tilewright.design.default import Facts
from tilewright.design.design import Choice, Design
from tilewright.design.gpu.shape import VECTOR, Shape, power
from tilewright.design.gpu.stream import (
    KEYS,
    MOST_STAGES,
    ROWS,
    dealt_loop,
    has_copy_engine,
    lets_ahead,
    step_bytes,
    why_no_fragments,
    why_not_joined,
)
from tilewright.design.gpu.stream_legality import broken_engines, broken_rings
from tilewright.language import ir, structure

_WIDE = 256
"""Elements that a step of 16 keys may read of each key with registers to spare for all that is on its way."""

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
    if loop is None or why_not_joined(s.nest, loop) is not None:
        return _together(s)
    atom = "mma" if why_no_fragments(s.kernel, s.nest, s.facts) is None else "fma"
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
    step = KEYS * max(1, min(4, _power_below(_WIDE // max(1, wide)))) if atom == "mma" else KEYS // 2
    for axis in s.serial:
        decisions[f"tile.{axis.name}"] = min(step, max(KEYS if atom == "mma" else 1, power(s.size(axis))))
    (axis,) = loop.axes
    unit = _WARPS * (1 if axis.each else int(str(decisions[f"tile.{axis.name}"])))
    decisions[f"part.{axis.name}"] = _part(s, axis, unit, decisions)
    alone = _one_step(s, axis, unit, decisions)
    decisions |= alone or {"turns": True, **_under_way(s, axis, unit, s.widths() | decisions)}
    decisions["lanes"] = (*s.whole, *(a.name for a in s.serial), *(a.name for a in reversed(s.parallel)))
    written = {x.ref.buffer for x in ir.walk(s.kernel.body) if isinstance(x, ir.Store)}
    if atom == "fma":  # elements of 8 bits are widened first: 16 bytes of them are 16 registers
        streams = [let.expr.ref.buffer for let in lets_ahead(s.kernel, s.nest) if isinstance(let.expr, ir.Load)]
        narrow = [t for t in streams if s.kernel.param(t).dtype.bytes == 1]
        decisions |= {f"vec.{t}": min(VECTOR // 4, s.widths().get(f"vec.{t}", 1)) for t in narrow}
    stored = [name for name in s.widths() if name.removeprefix("vec.") in written]
    return decisions | {name: _result_run(s.kernel, decisions, name.removeprefix("vec."), s.facts) for name in stored}


def _one_step(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> dict[str, Choice]:
    """Parts of one step for each warp, where there are no more of these than SMs: then nothing comes ahead of its use.

    All loads of a warp are under way at once; a box of the copy engine would take 2 us to begin with (note 0018).
    Nothing where parts are longer, or where this was not measured: pages, 8 bits, machines other than Hopper.
    """
    mma = "mma" in decisions.values() and has_copy_engine(s.facts)
    wide = sum(s.facts.sizes.get(d, 1) for d in s.whole)
    few = 2 * _tiles(s, decisions) <= s.facts.machine.cores
    if not (mma and few) or axis.each or wide > _WIDE or _bytes(s) == 1:
        return {}
    found = next((n for n in (_WARPS * KEYS, unit) if _one_each(s, axis, n, decisions) == n), None)
    if found is None:
        return {}
    return {f"tile.{axis.name}": found // _WARPS, f"part.{axis.name}": found, "resident": _RESIDENT - 1}


def _under_way(s: Shape, axis: ir.Axis, unit: int, decisions: dict[str, Choice]) -> dict[str, Choice]:
    """How what streams by comes: a step at a time, or some steps ahead by the copy engine.

    Where tiles are few, a block on each SM has to have enough under way alone, and so has one that reads 8 bits, which
    are widened first; warps that take short steps are twice as many. Else several blocks of an SM have enough, and
    short rows want all loads of a step asked for at once; of short steps the next one is held in registers.
    """
    loads = lets_ahead(s.kernel, s.nest)
    mma = "mma" in decisions.values() and has_copy_engine(s.facts)  # measured on Hopper, and nowhere else
    tensors = [let.expr.ref.buffer for let in loads if isinstance(let.expr, ir.Load)]
    few = 2 * _tiles(s, decisions) <= s.facts.machine.cores
    warps = _WARPS
    wide = sum(s.facts.sizes.get(d, 1) for d in s.whole)
    if mma and wide <= _SHORT and not few and (held := _held(s, axis, unit, decisions, tensors)):
        return held
    if mma and wide <= _WIDE and (few or _bytes(s) == 1):
        step = sum(step_bytes(let, Design.of(decisions), s.facts) for let in loads)
        if few and step <= _SHORT_STEP:
            warps, unit = 2 * warps, 2 * unit
        stages = max(2, min(MOST_STAGES, _AHEAD // (warps * step)))
        ahead: dict[str, Choice] = {"stages": stages, **{f"engine.{t}": "tma" for t in tensors}}
        if few:
            ahead[f"part.{axis.name}"] = _one_each(s, axis, unit, decisions)
        room = int(s.facts.machine.limit("shared_bytes_per_block")) // (warps * stages * step)
        ahead |= {"warps": warps, "resident": max(1, min(3 * _WARPS // warps, room))}
        design = Design.of(decisions | ahead)
        if not any(True for rule in (broken_engines, broken_rings) for _ in rule(s.kernel, s.nest, design, s.facts)):
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
    broken = any(True for rule in (broken_engines, broken_rings) for _ in rule(s.kernel, s.nest, design, s.facts))
    return {} if broken else held


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
    return max((let.type.dtype.bytes for let in lets_ahead(s.kernel, s.nest)), default=2)


__all__ = ["default_stream"]
