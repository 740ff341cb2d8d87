"""A scheduled program as a tree of metapipelines, with the time of each firing; scheduled by events, inside out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.errors import IllegalDesign
from tilewright.language import ir, structure
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.dataflow.cost import Work, work
from tilewright.simulate.dataflow.pipeline import Channel, Pipeline, Stage
from tilewright.simulate.dataflow.schedule import Schedule, simulate

Lengths = dict[str, int]

MOST_TRIPS = 1 << 16
"""Iterations of one loop that are simulated; that many take some seconds."""


@dataclass(frozen=True)
class Piece:
    """Cycles of a piece of a program, the bytes and flops that it takes, and its pipeline where it is one."""

    cycles: float
    memory_cycles: float = 0.0
    flops: float = 0.0
    schedule: Schedule | None = None


class Timing:
    """The time of a scheduled program at given sizes.

    Loops whose bounds are values are taken at their full range. `extra` adds cycles to each firing of the stage that
    a value is made in: what other chips take (an all-reduce).
    """

    def __init__(
        self,
        kernel: ir.Kernel,
        sizes: Mapping[str, int],
        array: DataflowArray,
        extra: Mapping[str, float] | None = None,
    ) -> None:
        self.kernel, self.sizes, self.array, self.extra = kernel, dict(sizes), array, dict(extra or {})
        self.tensors = {p.name: p.dtype for p in kernel.params if p.dims is not None}
        allocs = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Alloc)]
        self.buffers = {a.name: a.dtype for a in allocs}
        self.types = {name: let.type for name, let in structure.lets(kernel).items()}
        self.axes = structure.axes(kernel)
        self.copies = 1
        self._known: dict[tuple[int, tuple[tuple[str, int], ...]], Piece] = {}

    def whole(self) -> Piece:
        """The time of the program: its loops one after the other."""
        return self.block(self.kernel.body, {}, 1)

    # -------------------------------------------------------------------------------------- extents
    def extent(self, dim: ir.Dim, lengths: Lengths) -> int:
        """Elements of a dimension, or of the tile of an axis now."""
        if isinstance(dim, int):
            return dim
        return lengths[dim] if dim in lengths else self.sizes[dim]

    def trips(self, loop: ir.Loop, lengths: Lengths) -> list[Lengths]:
        """The length of each axis in each iteration of a loop, the last axis fastest."""
        found = [lengths]
        for axis in loop.axes:
            found = [{**outer, axis.name: n} for outer in found for n in self.tiles(axis, outer)]
        return found

    def tiles(self, axis: ir.Axis, lengths: Lengths) -> list[int]:
        """Lengths of the tiles of one axis: full ones, then a short one."""
        whole = self.extent(axis.over, lengths)
        start = axis.start if isinstance(axis.start, int) else 0
        whole = min(whole, axis.stop if isinstance(axis.stop, int) else whole) - start
        step = 1 if axis.each else axis.step or 1
        return [min(step, whole - at) for at in range(0, whole, step)]

    # ---------------------------------------------------------------------------------------- blocks
    def block(self, body: tuple[ir.Stmt, ...], lengths: Lengths, units: int) -> Piece:
        """Statements in order; where they are roles, a pipeline that fires once."""
        if any(isinstance(s, ir.Role) for s in body):
            return self.pipeline("program", body, [lengths])
        own = self.work(body, lengths, units)
        inner = [self.loop(s, lengths) for s in body if isinstance(s, ir.Loop)]
        nested = [s.schedule for s in inner if s.schedule is not None]
        return Piece(
            max(own.compute, own.port, own.memory) + sum(s.cycles for s in inner),
            own.memory + sum(s.memory_cycles for s in inner),
            own.flops + sum(s.flops for s in inner),
            max(nested, key=lambda s: s.makespan, default=None),
        )

    def work(self, body: tuple[ir.Stmt, ...], lengths: Lengths, units: int) -> Work:
        """What the straight-line statements of a body take."""
        return work(
            body, lambda d: self.extent(d, lengths), self.tensors, self.buffers, self.types, self.array, units
        )  # fmt: skip

    def loop(self, loop: ir.Loop, lengths: Lengths) -> Piece:
        """A loop: a pipeline of its roles, copies at once, or one iteration after the other."""
        key = (id(loop), tuple(sorted(lengths.items())))
        if key not in self._known:
            self._known[key] = self._loop(loop, lengths)
        return self._known[key]

    def _loop(self, loop: ir.Loop, lengths: Lengths) -> Piece:
        trips = self.trips(loop, lengths)
        if any(isinstance(s, ir.Role) for s in loop.body):
            return self.pipeline(loop.axes[-1].name, loop.body, trips)
        spatial = ir.note(loop.notes, "bind") == "core"
        self.copies = len(trips) if spatial else self.copies
        spans = [self.block(loop.body, each, 1) for each in trips]
        self.copies = 1 if spatial else self.copies
        memory, flops = sum(s.memory_cycles for s in spans), sum(s.flops for s in spans)
        slowest = max(spans, key=lambda s: s.cycles, default=Piece(0))
        cycles = max(slowest.cycles, memory) if spatial else sum(s.cycles for s in spans)
        return Piece(cycles, memory, flops, slowest.schedule)

    # -------------------------------------------------------------------------------------- pipelines
    def pipeline(self, name: str, body: tuple[ir.Stmt, ...], trips: list[Lengths]) -> Piece:
        """The roles of a body as stages that fire once for each trip."""
        roles = [s for s in body if isinstance(s, ir.Role)]
        if not trips:
            return Piece(0)
        if len(trips) > MOST_TRIPS:
            raise IllegalDesign(
                f"{self.kernel.name}: the loop over {name} has {len(trips):,} iterations, each an event of every "
                f"stage; {MOST_TRIPS:,} are simulated: take a larger tile.{name} in a design, or smaller sizes"
            )
        known: dict[tuple[int, tuple[tuple[str, int], ...]], Piece] = {}
        stages, memory, flops = [], 0.0, 0.0
        for n, role in enumerate(roles):
            spans = []
            for lengths in trips:
                key = (n, tuple(sorted(lengths.items())))
                known[key] = known.get(key) or self.role(role, lengths)
                spans.append(known[key])
            memory, flops = memory + sum(s.memory_cycles for s in spans), flops + sum(s.flops for s in spans)
            stages.append(self.stage(role, spans))
        pipeline = Pipeline(tuple(stages), tuple(channels(body, frozenset(self.tensors))), name)
        schedule = simulate(pipeline)
        return Piece(schedule.makespan, memory, flops, schedule)

    def role(self, role: ir.Role, lengths: Lengths) -> Piece:
        """One firing of a stage."""
        units = ir.note(role.notes, "units", 1)
        assert isinstance(units, int)
        span = self.block(role.body, lengths, units)
        extra = sum(self.extra.get(s.name, 0) for s in role.body if isinstance(s, ir.Let))
        wait = self.array.latency if self.waits(role) else 0
        return Piece(span.cycles + extra + wait, span.memory_cycles, span.flops, span.schedule)

    def waits(self, role: ir.Role) -> bool:
        """Whether a stage loads from main memory and computes: nothing runs ahead of its loads."""
        loads = any(isinstance(s, ir.Let) and isinstance(s.expr, ir.Load) and s.expr.ref.buffer in self.tensors
                    for s in role.body)  # fmt: skip
        return loads and not is_access(role, frozenset(self.tensors))

    def stage(self, role: ir.Role, spans: list[Piece]) -> Stage:
        """A role as a stage; one with loops inside holds memory for all that they move, from its start."""
        inner = spans[0].schedule
        hold = tuple(s.memory_cycles * self.copies for s in spans)
        times = tuple(max(s.cycles, held) for s, held in zip(spans, hold, strict=True))
        latency = self.array.latency if is_access(role, frozenset(self.tensors)) else 0
        resource = "memory" if any(hold) else None
        return Stage(role.name, times, latency, resource, hold, None if inner is None else inner.pipeline)


def is_access(role: ir.Role, tensors: frozenset[str]) -> bool:
    """Whether a stage only moves tiles from main memory into buffers."""

    def moves(stmt: ir.Stmt) -> bool:
        if isinstance(stmt, ir.Copy):
            return stmt.src.buffer in tensors
        if isinstance(stmt, ir.Store):
            return stmt.ref.buffer not in tensors
        return isinstance(stmt, ir.Let) and isinstance(stmt.expr, (ir.Load, ir.Full, ir.Coord, ir.Map))

    loads = any(isinstance(s, ir.Copy) or (isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)
                                           and s.expr.ref.buffer in tensors) for s in role.body)  # fmt: skip
    return loads and all(moves(s) for s in role.body)


def channels(body: tuple[ir.Stmt, ...], tensors: frozenset[str]) -> list[Channel]:
    """Who waits for whom in a pipeline: its own buffers have credits; what lies outside is carried or kept in order."""
    allocs = {s.name: s for s in body if isinstance(s, ir.Alloc)}
    roles = [s for s in body if isinstance(s, ir.Role)]
    touched = [_touched(r) for r in roles]
    found = []
    for j, source in enumerate(touched):
        for i, target in enumerate(touched):
            for name in sorted(source.keys() & target.keys()):
                if i == j or not (source[name] or target[name]):
                    continue
                if name in allocs:
                    depth = ir.number(allocs[name].notes, "stages", 1)
                    found += [Channel(j, i, depth, name=name)] if source[name] and not target[name] else []
                elif j < i:
                    found.append(Channel(j, i, None, name=name))
                    found += [] if name in tensors else [Channel(i, j, None, lag=1, name=name)]
    return found


def _touched(role: ir.Role) -> dict[str, bool]:
    """Buffers that a role uses, and whether it writes them."""
    found: dict[str, bool] = {}
    for stmt in ir.walk(role.body):
        match stmt:
            case ir.Let(_, _, ir.Load(ref)):
                found.setdefault(ref.buffer, False)
            case ir.Store(ref):
                found[ref.buffer] = True
            case ir.Copy(dst, src):
                found.setdefault(src.buffer, False)
                found[dst.buffer] = True
    return found
