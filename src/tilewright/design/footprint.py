"""What a design takes: the shape of tiles in registers, vectors held at once, scratch, and how much code is written.

Estimates from the program and the decisions alone, before anything is emitted. They follow the emitter's
own rules (which axis has the lanes, how wide a vector is) and leave out what they say they leave out.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from tilewright.design.atoms import AT_ONCE, PAIRED, PORTION, TILED
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.language import ir, structure

# Instructions of one elementwise operation, where it is not one.
_MAP_COST = {"exp": 14, "exp2": 12, "log": 20, "tanh": 24, "sigmoid": 18, "erf": 40, "rsqrt": 4, "mod": 6}
# Instructions of a load or store: the address, and the access itself.
_ACCESS_COST = 2


@dataclass(frozen=True)
class Footprint:
    """What `kernel` takes under `design`; sizes that `facts` does not know count as large."""

    kernel: ir.Kernel
    design: Design
    facts: Facts

    # ------------------------------------------------------------------------------------ structure
    @cached_property
    def axes(self) -> dict[str, ir.Axis]:
        """Loop axes by name."""
        return structure.axes(self.kernel)

    @cached_property
    def values(self) -> dict[str, ir.Let]:
        """Values by name."""
        return structure.lets(self.kernel)

    @cached_property
    def whole(self) -> tuple[str, ...]:
        """Dims that values lie along as a whole."""
        used = {a for let in self.values.values() for a in let.type.axes}
        return tuple(d for d in self.kernel.dims if d in used and d not in self.axes)

    @cached_property
    def dots(self) -> dict[str, tuple[ir.Let, ir.Dot]]:
        """Dots by the names of their values."""
        return {n: (let, let.expr) for n, let in self.values.items() if isinstance(let.expr, ir.Dot)}

    # ------------------------------------------------------------------------------- tiles in vectors
    def extent(self, axis: str) -> int:
        """Points that one tile covers: the tile, the size of a whole dim, 1 where positions are single."""
        if axis in self.axes:
            return 1 if self.axes[axis].each else self.design.number(f"tile.{axis}", 1)
        return self.facts.sizes.get(axis, self.facts.lanes)

    def width(self, axis: str) -> int:
        """Lanes of a vector along `axis`: a power of two, as short as its tile allows."""
        width = self.facts.lanes
        while width // 2 >= max(1, self.extent(axis)):
            width //= 2
        return width

    def lane_of(self, axes: tuple[str, ...]) -> str | None:
        """The axis of `axes` that lies across lanes."""
        return next((a for a in self.design.names("lanes") if a in axes and self.extent(a) > 1), None)

    def parts(self, axes: tuple[str, ...], lane: str | None) -> int:
        """Registers that hold a tile of these axes with that lane axis (each scalar takes one)."""
        return math.prod(-(-self.extent(a) // self.width(a)) if a == lane else self.extent(a) for a in axes)

    def vectors(self, let: ir.Let) -> int:
        """Registers that hold a value."""
        axes = let.type.axes
        if isinstance(let.expr, ir.Full):
            return 1  # every element is one scalar
        if let.name in self._accumulated and isinstance(let.expr, ir.Dot) and self.is_inner(let, let.expr):
            # Its sums stay spread over the lanes of the summed axis, in as many accumulators as it is split over.
            return self.parts(axes, None) * self.design.number(f"split.{let.expr.axis}", 1)
        return self.parts(axes, self.lane_of(axes))

    def is_inner(self, let: ir.Let, dot: ir.Dot) -> bool:
        """Whether the summed axis of a dot has the lanes: each element is then a vector of partial sums."""
        return self.lane_of((dot.axis, *let.type.axes)) == dot.axis

    # -------------------------------------------------------------------------------------- registers
    @cached_property
    def registers(self) -> int:
        """Vector registers that are live at once in the busiest loop: what it updates, and its largest other value.

        Operands of dots are not counted: they are read from memory one by one.
        """
        return max((self._held(body) for body in self._loop_bodies()), default=0)

    def _loop_bodies(self) -> list[tuple[ir.Stmt, ...]]:
        return [s.body for s in ir.walk(self.kernel.body) if isinstance(s, ir.Loop)]

    def _held(self, body: tuple[ir.Stmt, ...]) -> int:
        carried = {s.name for s in body if isinstance(s, ir.Assign)}
        # A sum that goes straight into the carried tile, and what streams into it, need no registers of their own.
        into = {s.value for s in body if isinstance(s, ir.Assign)} | self._accumulated | self._only_in_dots
        others = [self.vectors(s) for s in body if isinstance(s, ir.Let) and s.name not in into]
        return sum(self._carried_vectors(name) for name in carried) + max(others, default=0)

    def _carried_vectors(self, name: str) -> int:
        """Registers of a loop-carried tile, spread over the lanes of a sum that feeds it where one does."""
        feeders = self._feeders(name)
        if any(self.design.get(f"atom.{let.name}") in TILED for let in feeders):
            return 0  # it lies in tile registers
        axes = self.values[name].type.axes
        number = max(self.parts(axes, self.lane_of(axes)), *(self.vectors(let) for let in feeders))
        return PORTION if number > AT_ONCE and any(self._in_portions(let) for let in feeders) else number

    def _in_portions(self, let: ir.Let) -> bool:
        """Whether a dot takes several pairs of terms of some sums before it comes to others.

        For a lone pair each sum would be loaded and stored again: one instruction between the two.
        """
        if not isinstance(let.expr, ir.Dot) or self.design.get(f"atom.{let.name}") not in PAIRED:
            return False
        return not self.is_inner(let, let.expr) and self.extent(let.expr.axis) > 2

    def _feeders(self, name: str) -> list[ir.Let]:
        """A carried value, and the dots that are added to it."""
        found = [self.values[name]]
        for s in ir.walk(self.kernel.body):
            if isinstance(s, ir.Assign) and s.name == name and isinstance(total := self.values[s.value].expr, ir.Map):
                found += [self.values[a] for a in total.args if a in self.dots]
        return found

    def _is_seen_through(self, name: str) -> bool:
        """Whether a value is another one permuted, or one of 8 bits widened, which is done where it is read."""
        return isinstance(self.values[name].expr, ir.Permute) or structure.source(self.values, name).name != name

    @cached_property
    def _only_in_dots(self) -> frozenset[str]:
        """Values that nothing but dots read, directly, permuted or widened."""
        readers: dict[str, set[str]] = {n: set() for n in self.values}
        for let in self.values.values():
            for name in ir.operands(let.expr):
                if name in readers:
                    readers[name].add(let.name)
        stored = {s.value for s in ir.walk(self.kernel.body) if isinstance(s, (ir.Store, ir.Assign))}

        def streamed(name: str) -> bool:
            return (
                name not in stored
                and bool(readers[name])
                and all(r in self.dots or (self._is_seen_through(r) and streamed(r)) for r in readers[name])
            )

        return frozenset(n for n in self.values if streamed(n))

    # ---------------------------------------------------------------------------------------- scratch
    @cached_property
    def scratch_bytes(self) -> int:
        """Bytes for one thread of the buffers in which unfinished tiles of a block wait."""
        return sum(self._waiting_bytes(nest) for nest in structure.nests(self.kernel)) + self._kept_bytes()

    def _kept_bytes(self) -> int:
        """Rows of values that a later loop reads back; a size that is not known counts as a tile."""
        kept = [self.values[name].type for name, wanted in self.design.prefixed("keep") if wanted is True]
        return sum(t.dtype.bytes * math.prod(self._row(a) for a in t.axes) for t in kept)

    def _row(self, axis: str) -> int:
        serial = {a.name for nest in structure.nests(self.kernel) for loop in nest.serial for a in loop.axes}
        whole = self.facts.sizes.get(self.axes[axis].over, 0) if axis in serial else 0
        return max(self.extent(axis), whole)

    def _waiting_bytes(self, nest: structure.Nest) -> int:
        main = nest.main
        if main is None or self.design.get(f"block.{main.axes[0].name}") is None:
            return 0
        names = {s.name for s in ir.walk(main.body) if isinstance(s, ir.Assign)}
        types = [self.values[n].type for n in names]
        return sum(t.dtype.bytes * math.prod(self._block(a) for a in t.axes) for t in types)

    def _block(self, axis: str) -> int:
        return self.design.number(f"block.{axis}", self.extent(axis))

    # --------------------------------------------------------------------------------------- the code
    @cached_property
    def instructions(self) -> int:
        """About how many instructions are written: full tiles, ragged ones and unrolled copies; packing left out."""
        return sum(self._written(s) for s in self.kernel.body)

    def _written(self, stmt: ir.Stmt) -> int:
        match stmt:
            case ir.Loop(axes, body):
                return self._copies(stmt) * sum(map(self._written, body)) + 8 * len(axes)
            case ir.Let():
                return 0 if stmt.name in self._only_in_dots else self._let(stmt)
            case ir.Store(_, value):
                return _ACCESS_COST * self.vectors(self.values[value])
            case _:
                return sum(map(self._written, ir.blocks(stmt)))

    def _copies(self, loop: ir.Loop) -> int:
        """Versions of a loop's body: unrolled ones, one for single tiles, one for the ragged end."""
        tiled = [a for a in loop.axes if not a.each and self.extent(a.name) > 1]
        if loop.parallel:
            return 2 if tiled and not any(isinstance(s, ir.Loop) for s in ir.walk(loop.body)) else 1
        unroll = self.design.number(f"unroll.{loop.axes[-1].name}", 1)
        return (unroll if unroll > 1 else 0) + 1 + (1 if tiled else 0)

    def _let(self, let: ir.Let) -> int:
        if self.design.get(f"keep.{let.name}"):
            return 2 * self.vectors(let) * _ACCESS_COST  # stored by one loop, loaded by another
        match let.expr:
            case ir.Dot() as dot:
                return self._dot(let, dot)
            case ir.Map(op, _):
                return self.vectors(let) * _MAP_COST.get(op, 1)
            case ir.Load():
                return self.vectors(let) * _ACCESS_COST
            case ir.Reduce(_, arg, axis):
                source = self.values[arg].type.axes
                lane = self.lane_of(source)
                fold = 2 * int(math.log2(self.width(axis))) * self.parts(let.type.axes, None) if lane == axis else 0
                return self.parts(source, lane) + fold
            case _:
                return self.vectors(let)

    def _dot(self, let: ir.Let, dot: ir.Dot) -> int:
        """Multiplications, the loads of the operand that streams by, and a broadcast for each of its elements."""
        pair = {"bf16x2": 2, "vnni": 2, "amx_bf16": 32, "amx_int8": 64}.get(str(self.design.get(f"atom.{let.name}")), 1)
        lane = self.lane_of((dot.axis, *let.type.axes))
        steps = self.parts((dot.axis,), lane) / pair
        operands = [self.values[n].type.axes for n in (dot.a, dot.b)]
        loads = sum(math.prod(self.extent(a) for a in axes if a not in (dot.axis, lane)) for axes in operands)
        out = self.parts(let.type.axes, lane)
        fold = 2 * out if lane == dot.axis and let.name not in self._accumulated else 0
        return math.ceil(steps * (out + _ACCESS_COST * loads)) + fold

    @cached_property
    def _accumulated(self) -> frozenset[str]:
        """Dots whose only use is an addition: their sums go into its other operand."""
        uses = Counter(a for let in self.values.values() for a in ir.operands(let.expr))
        adds = [let.expr.args for let in self.values.values() if isinstance(let.expr, ir.Map) and let.expr.op == "add"]
        return frozenset(d for d in self.dots if uses[d] == 1 and any(d in args for args in adds))
