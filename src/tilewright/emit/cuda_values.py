"""Tile values as C++: constants, positions, loads, arithmetic, reductions, products, stores, serial loops.

Statements are transcribed one by one; what several statements make together is told by `accumulate`. A value without
axes is a C++ scalar, any other a `tw::Tile` over the axes that it has, in the order of `Layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.emit.cuda_fragments import Fragments
from tilewright.emit.cuda_layouts import AccRows, Chunks, Layouts, axis_name
from tilewright.emit.cuda_maps import ctype, functor, literal, reducer
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_text import Text, cname
from tilewright.emit.cuda_warp import WarpDots
from tilewright.language import ir
from tilewright.language.accumulate import Accumulation, find_accumulations, fused_dots, uses
from tilewright.language.dtypes import DType

if TYPE_CHECKING:
    from tilewright.emit.cuda_ahead import Ahead

_WIDEST = 16
"""Bytes of the widest access."""

APPROXIMATED = ("erf", "exp", "sigmoid", "tanh")
"""Operators of the library's `approx.cuh`."""

_CACHES = {
    "cs": "tw::STREAM", "cg": "tw::L2_ONLY", "ca": "tw::PLAIN",
    "evict_first": "tw::HINT_FIRST", "evict_last": "tw::HINT_LAST",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A tensor or buffer: a C++ pointer to its first element, one stride per dimension, and what accesses may rely on.

    `align` is a number of bytes that the pointer and every stride but a unit one are multiples of; `origin` the
    position of the first element along each dimension, None where that is 0. `readonly`: nobody writes to it. `shared`:
    it lies in a block's shared memory. `ends`:
    the C++ name of the `tw::Ends` that tells where a tensor with rows of neighbours begins and ends in memory.
    """

    pointer: str
    dtype: DType
    strides: tuple[str, ...]
    align: int = 1
    readonly: bool = False
    origin: tuple[str | None, ...] = ()
    ends: str = ""
    shared: bool = False


@dataclass(frozen=True)
class Staged:
    """An operand of dots in shared memory: its C++, the axis that the result keeps, whether rows run along the sum."""

    panel: str
    axis: str
    down: bool


@dataclass
class Values:
    """Writes statements in the scope of one team of threads; `team` is the C++ name of its `tw::Team`.

    `registers` are buffers that are C++ tiles (`alloc @place=register`) with the axes that they have.
    """

    out: Text
    scope: Scope
    layouts: Layouts
    places: dict[str, Place]
    team: str = "team"
    types: dict[str, ir.TileType] = field(default_factory=dict)
    registers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pieces: dict[str, tuple[str, str]] = field(default_factory=dict)  # axis -> (its parent, number of the piece)
    rings: Callable[[Values, ir.Loop], None] | None = None  # writes loops that copy operands to shared memory
    staged: dict[str, Staged] = field(default_factory=dict)  # operands of dots that lie in shared memory
    parts: Callable[[Values, ir.Loop], None] | None = None  # writes loops that are dealt to blocks and warps
    matrix: WarpDots = field(default_factory=WarpDots)  # dots on registers of a warp by the matrix unit
    ahead: Ahead | None = None  # loads that are made some steps ahead
    space: str = "axis"  # the C++ namespace of the axes' distributions
    blocks: int = 1  # of a cluster, which share the loops that are bound to it
    short: bool = False  # whether all results are rounded to 16 bits
    fragments: Fragments | None = None  # operands of dots that go straight to registers
    _mutable: frozenset[str] = frozenset()
    _loaded: set[str] = field(default_factory=set)  # values that are 0 past the edges of their tiles
    _parts: dict[str, Accumulation] = field(default_factory=dict)  # reductions that are added thread by thread
    _waiting: set[str] = field(default_factory=set)  # loads that are asked for before any of them is used
    _shared: bool = False  # inside a loop that the blocks of a cluster share

    def emit(self, body: tuple[ir.Stmt, ...]) -> None:
        """Write statements, in order; an addition takes over the dot that only it reads."""
        self._mutable |= {s.name for s in ir.walk(body) if isinstance(s, ir.Assign)}
        counts = uses(body)
        put = {s.value for s in body if isinstance(s, ir.Store) and s.ref.buffer in self.registers}
        if any(counts[name] == 1 for name in put):  # some only wait for a later loop: all are asked for at once
            self._waiting |= put
        fused = fused_dots(body)
        sums = {a.total for a in self._parts.values()}
        for stmt in body:
            match stmt:
                case ir.Let(name, type_) if name in self.staged:
                    self.types[name] = type_
                case ir.Let(name, type_) if self.fragments is not None and name in self.fragments.operands:
                    self.types[name] = type_
                    self.fragments.load(self, stmt)
                case ir.Let(name) if name in self._parts:
                    self._accumulate(stmt, self._parts[name])
                case ir.Let(name) if name in sums:
                    self.types[name] = stmt.type
                case ir.Assign(_, value) if value in sums:
                    pass
                case ir.Let(name) if name in fused.delayed and not self._spread(stmt):
                    pass
                case ir.Let(name) if name in fused.additions and not self._spread(fused.additions[name][0]):
                    self._added(stmt, *fused.additions[name])
                case _:
                    self.statement(stmt)

    def statement(self, stmt: ir.Stmt) -> None:
        """Write one statement. AssertionError for those that this class leaves to others (Sync, Copy, Role, Alloc)."""
        match stmt:
            case ir.Let(name):
                stmt = self.matrix.along_twins(stmt)
                self.types[name] = stmt.type
                self._let(stmt)
            case ir.Assign(name, value):
                self.out.line(f"{cname(name)} = {self.name(value)};")
            case ir.Store():
                self._store(stmt)
            case ir.Loop():
                self.loop(stmt)
            case ir.When(cond, axis, inner):
                with self.out.block(f"if ({self.condition(cond, axis)})"):
                    self.emit(inner)
            case ir.Alloc(name, dtype, _, _) if name in self.registers:
                self.out.line(f"{self.tile(ir.TileType(dtype, self.registers[name]))} {cname(name)};")
            case _:
                raise AssertionError(f"{type(stmt).__name__} is not a matter of values")

    # ----------------------------------------------------------------------------------------- names and types
    def name(self, value: str) -> str:
        """The C++ name of a value."""
        return cname(value)

    def tile(self, type_: ir.TileType) -> str:
        """The C++ type of a value."""
        if not type_.axes:
            return ctype(type_.dtype)
        axes = ", ".join(self.axis(a) for a in self.layouts.order(type_.axes))
        return f"tw::Tile<{ctype(type_.dtype)}, {axes}>"

    def axis(self, name: str) -> str:
        """The C++ type that says how an axis is dealt to the threads of this team."""
        return f"{self.space}::{axis_name(name)}"

    def part(self, axis: str) -> str:
        """The declaration of the `tw::Part` that an axis with values on it needs, its tile being in scope."""
        now = self.scope[axis]
        type_ = f"tw::Part<{self.axis(axis)}, {self._edge(axis)}>"
        own = f"const {type_} {cname(axis)}({now.start}, {now.stop}, {self.team});"
        if (twin := self.matrix.twins.get(axis)) is None:
            return own
        self.scope.ranges[twin] = now
        return f"{own} {self.part(twin)}"

    def condition(self, cond: str, axis: str) -> str:
        """Whether this is the first (last) tile of an axis."""
        now = self.scope[axis]
        first, last = f"{now.start} == {now.low}", f"{now.start} + {now.step} >= {now.high}"
        return {"first": first, "last": last, "not_first": f"!({first})", "not_last": f"!({last})"}[cond]

    # ------------------------------------------------------------------------------------------------- values
    def _let(self, let: ir.Let) -> None:
        text = self._value(let)
        word = "auto" if let.name in self._mutable else "const auto"
        if not let.type.axes:
            word = ctype(let.type.dtype) if let.name in self._mutable else f"const {ctype(let.type.dtype)}"
        self.out.line(f"{word} {cname(let.name)} = {text};")
        if isinstance(let.expr, ir.Dot):
            self._products(let, cname(let.name))
            if self._spread(let):
                self._joined(let.expr.axis, "tw::Add{}", cname(let.name))

    def _value(self, let: ir.Let) -> str:
        type_ = let.type
        match let.expr:
            case ir.Full(value):
                return self._full(value, type_)
            case ir.Coord(axis):
                if not type_.axes:
                    return self.scope[axis].start
                return f"tw::coord<{self.tile(type_)}>({cname(axis)})"
            case ir.Load(ref):
                self._loaded.add(let.name)
                return self._load(ref, let)
            case ir.Map(op, args):
                given = ", ".join(self._operand(a) for a in args)
                if op == "cast" and args[0] in self._loaded:
                    self._loaded.add(let.name)
                return self.map(self._function(op, type_.dtype), given, type_)
            case ir.Reduce(op, arg, axis):
                given = f"{reducer(op)}, {self.name(arg)}, {cname(axis)}, {self.team}"
                return f"tw::reduce<{self.tile(type_)}>({given})"
            case ir.Dot():
                self._mutable |= {let.name}
                return self._full(0, type_)
            case ir.Permute(arg):
                return self.name(arg)
        raise AssertionError(let)

    def _function(self, op: str, result: DType) -> str:
        """The function object of an operator: an approximation where all results are rounded to 16 bits."""
        approximate = self.short and op in APPROXIMATED and result.name == "f32"
        return f"tw::Approx{op.capitalize()}{{}}" if approximate else functor(op, result)

    def map(self, op: str, given: str, type_: ir.TileType) -> str:
        """An elementwise operator applied."""
        return f"tw::map<{self.tile(type_)}>({op}, {given})" if type_.axes else f"{op}({given})"

    def _operand(self, name: str) -> str:
        return self.name(name) if name in self.types else f"(tw::i64){self.scope[name].stop}"

    def _full(self, value: ir.Atom, type_: ir.TileType) -> str:
        if not isinstance(value, str):
            text = literal(value, type_.dtype)
        elif value in self.types:
            text = self.name(value)
        else:
            text = self.scope[value].stop if value in self.scope.ranges else cname(value)
        return f"tw::full<{self.tile(type_)}>({text})" if type_.axes else text

    # ------------------------------------------------------------------------------------------------ products
    def _spread(self, dot: ir.Let) -> bool:
        """Whether the parts of a dot's sums lie in several threads."""
        return isinstance(dot.expr, ir.Dot) and self._parts_of(dot.name, dot.expr.axis) > 0

    def _products(self, let: ir.Let, into: str) -> None:
        dot = let.expr
        assert isinstance(dot, ir.Dot)
        if self.fragments is not None and dot.a in self.fragments.operands:
            self.fragments.multiply(self, dot, into)
            return
        if dot.a in self.staged:
            self._panels(dot, into)
            return
        zeros = {dot.a, dot.b} <= self._loaded and (let.name not in self.matrix.calls or dot.axis in self.scope.dims)
        along = f"tw::unmasked({cname(dot.axis)})" if zeros else cname(dot.axis)
        call = self.matrix.calls.get(let.name, "tw::dot")
        self.out.line(f"{call}({into}, {self.name(dot.a)}, {self.name(dot.b)}, {along});")

    def _panels(self, dot: ir.Dot, into: str) -> None:
        """Products of panels: the operand along the rows of the result comes first."""
        a, b = self.staged[dot.a], self.staged[dot.b]
        if self.layouts.order((a.axis, b.axis))[0] != a.axis:
            a, b = b, a
        how = "multiply" if isinstance(self.layouts.of[a.axis], AccRows) else "multiply_add"
        down = f"{str(a.down).lower()}, {str(b.down).lower()}"
        self.out.line(f"tw::{how}<{down}>({into}, {a.panel}, {b.panel}, {self.team});")

    def _bits(self, axis: str) -> int:
        """How many bits of a thread's number tell positions of an axis apart; 0 for an axis of panels."""
        return self.layouts.of[axis].bits if axis in self.layouts.of else 0

    def _parts_of(self, name: str, axis: str) -> int:
        """Bits of a thread's number that tell the parts of a sum along an axis apart; 0 where the unit joins them."""
        return 0 if name in self.matrix.calls else self._bits(axis)

    def _added(self, add: ir.Let, dot: ir.Let, addend: str) -> None:
        """`add = addend + dot`, product by product."""
        self.types[add.name] = add.type
        self.out.line(f"{self.tile(add.type)} {cname(add.name)} = {self.name(addend)};")
        self._products(dot, cname(add.name))

    def _accumulate(self, let: ir.Let, sums: Accumulation) -> None:
        """A reduction, or a dot, added to what each thread has of its loop's result."""
        into = self._into(let.name, sums)
        match let.expr:
            case ir.Reduce(op, arg, axis):
                self.out.line(f"tw::fold({reducer(op)}, {into}, {self.name(arg)}, {cname(axis)});")
            case ir.Dot():
                self._products(let, into)

    def _into(self, name: str, sums: Accumulation) -> str:
        return f"{cname(sums.target)}_parts" if self._is_spread(name, sums) else cname(sums.target)

    def _is_spread(self, name: str, sums: Accumulation) -> bool:
        """Whether the terms of a loop's result lie in several threads."""
        return self._parts_of(name, sums.axis) > 0 or self._shared

    def _joined(self, axis: str, op: str, name: str) -> None:
        if self.fragments is not None and isinstance(self.layouts.of[axis], Chunks):
            self.fragments.join(self, axis, name)
        elif self._bits(axis):
            self.out.line(f"tw::join<{self.axis(axis)}>({op}, {name}, {self.team});")
        if self._shared:
            self.out.line(f"tw::join_blocks<{self.blocks}>({op}, {name}, {self.team}, meeting, turn);")

    # -------------------------------------------------------------------------------------------------- memory
    def _load(self, ref: ir.Ref, let: ir.Let) -> str:
        if ref.buffer in self.registers:
            return self._registers(ref, let.type)
        place = self.places[ref.buffer]
        held = self.matrix.held(let, self.scope.axes)
        at, terms, most = self._address(place, ref, let.type.axes, held)
        if not let.type.axes:
            return f"{at[0]}[{at[1]}]" if at[1] else f"*{at[0]}"
        cache = _CACHES.get(str(ir.note(let.notes, "cache")), "tw::READ_ONLY" if place.readonly else "tw::PLAIN")
        if let.name in self._waiting and place.readonly:
            cache = "tw::AHEAD"
        if place.readonly and place.align < _WIDEST and self._whole_words(place, ref, let.type.axes):
            most, cache = _WIDEST // place.dtype.bytes, "tw::UNALIGNED"
        if self.ahead is not None and self.ahead.holds(let):
            return self.ahead.taken(self, let, most, terms)
        ends = place.ends if place.readonly and place.ends and self._cut(place, ref, cache, most) else "tw::Unknown{}"
        return f"tw::load<{self.tile(let.type)}, {most}, {cache}>({', '.join([ends, _sum(at), *terms])})"

    def _cut(self, place: Place, ref: ir.Ref, cache: str, most: int) -> bool:
        """Whether an access may reach past the tensor: of unaligned rows, or where a tile ends inside of one."""
        unit = [i for i, s in zip(ref.index, place.strides, strict=True) if s == "1" and i in self.layouts.of]
        edges = [self._edge(str(i)) % most for i in unit]
        return cache == "tw::UNALIGNED" or any(edges)

    def _edge(self, axis: str) -> int:
        """0 where every tile of an axis exists whole, else a power of two of which each ends at a multiple."""
        now = self.scope[axis]
        return 0 if now.size == self.layouts.of[axis].points else now.grain

    def send(self, let: ir.Let, slot: str) -> None:
        """A load on its way to where it will be read from."""
        assert isinstance(let.expr, ir.Load)
        place = self.places[let.expr.ref.buffer]
        at, terms, most = self._address(place, let.expr.ref, let.type.axes, self.matrix.held(let, self.scope.axes))
        given = ", ".join([slot, self.team, _sum(at), *terms])
        self.out.line(f"tw::send<{self.tile(let.type)}, {most}>({given});")

    def _whole_words(self, place: Place, ref: ir.Ref, axes: tuple[str, ...]) -> bool:
        """Whether threads hold runs of 16 bytes along the unit stride, wherever these begin."""
        unit = [i for i, s in zip(ref.index, place.strides, strict=True) if s == "1" and i in axes]
        return bool(unit) and self.layouts.of[str(unit[0])].run * place.dtype.bytes == _WIDEST

    def _registers(self, ref: ir.Ref, type_: ir.TileType) -> str:
        for axis, (parent, number) in self.pieces.items():
            if axis in type_.axes and parent in self.registers[ref.buffer]:
                axes = f"{self.axis(axis)}, {self.axis(parent)}"
                return f"tw::piece<{self.tile(type_)}, {axes}>({cname(ref.buffer)}, {number})"
        return cname(ref.buffer)

    def _keep(self, buffer: str, value: str, type_: ir.TileType) -> None:
        """A value into the registers of a buffer: all of them, or the piece that it covers."""
        for axis, (parent, number) in self.pieces.items():
            if axis in type_.axes and parent in self.registers[buffer]:
                self.out.line(
                    f"tw::put_piece<{self.axis(axis)}, {self.axis(parent)}>({cname(buffer)}, {value}, {number});"
                )
                return
        self.out.line(f"{cname(buffer)} = {value};")

    def _store(self, stmt: ir.Store) -> None:
        value, buffer = self.name(stmt.value), stmt.ref.buffer
        if buffer in self.registers:
            self._keep(buffer, value, self.types[stmt.value])
            return
        place = self.places[buffer]
        at, terms, most = self._address(place, stmt.ref, self.types[stmt.value].axes)
        cache = _CACHES.get(str(ir.note(stmt.notes, "cache")), "tw::PLAIN")
        if ir.note(stmt.notes, "nontemporal"):
            cache = "tw::STREAM"
        if place.shared:
            cache = "tw::SHARED"
        once = "if (rank == 0) " if self.blocks > 1 and not self._shared else ""
        self.out.line(f"{once}tw::store<{most}, {cache}>({', '.join([_sum(at), value, self.team, *terms])});")

    def address(self, place: Place, ref: ir.Ref, axes: tuple[str, ...]) -> tuple[str, dict[str, str]]:
        """C++ of the point where a tile with these axes begins, and of the term of each axis."""
        at, terms, _ = self._address(place, ref, axes)
        return _sum(at), dict(zip(self.layouts.order(axes), terms, strict=True))

    def _address(
        self, place: Place, ref: ir.Ref, axes: tuple[str, ...], held: frozenset[str] = frozenset()
    ) -> tuple[tuple[str, str], list[str], int]:
        """(pointer, offset of the point), the terms of the axes, and how many neighbours an access may take.

        Along `held` axes what lies past an edge is not masked: the last of what exists is read in its place.
        """
        fixed: list[str] = []
        terms: dict[str, str] = {}
        picked: list[str] = []
        most = 1
        for d, index in enumerate(ref.index):
            stride = place.strides[d]
            origin = place.origin[d] if place.origin else None
            if isinstance(index, str) and index in self.types and self.types[index].axes:
                picked.append(f"tw::picked({self.name(index)}, {stride})")
                continue
            if isinstance(index, str) and index in axes:
                call = "tw::held" if index in held and stride != "1" else "tw::by"
                terms[index] = f"{call}({cname(index)}, {'tw::unit' if stride == '1' else stride})"
                if stride == "1":
                    most = self._neighbours(place, index)
            elif (point := self.point(index)) != "0":
                fixed.append(_times(point, stride))
            if origin not in (None, "0"):
                fixed.append(f"-{_times(str(origin), stride)}")
        masks = [f"tw::by({cname(a)}, 0)" for a in self.layouts.order(axes) if a not in terms]
        ordered = [terms[a] for a in self.layouts.order(terms)]
        offset = " + ".join(fixed).replace("+ -", "- ")
        return (place.pointer, offset), [*ordered, *masks, *picked], most

    def _neighbours(self, place: Place, axis: str) -> int:
        """Elements along a stride of one that an access may take: what alignment of rows and tiles allows."""
        now, most = self.scope[axis], max(1, 16 // place.dtype.bytes)
        most = min(most, place.align // place.dtype.bytes or 1, self.layouts.of[axis].run)
        while now.align % most:
            most //= 2
        return most

    def point(self, index: ir.Index) -> str:
        """C++ of where an index begins."""
        if isinstance(index, int):
            return str(index)
        return self.name(index) if index in self.types else self.scope[index].start

    # --------------------------------------------------------------------------------------------------- loops
    def loop(self, loop: ir.Loop) -> None:
        """A serial loop. Sums whose terms lie in several threads are joined once, behind it."""
        if self.fragments is not None and ir.note(loop.notes, "bind") == "warp":
            self.fragments.parts(self, loop)
            return
        if self.rings is not None and any(isinstance(s, ir.Copy) for s in loop.body):
            self.rings(self, loop)
            return
        if self.parts is not None and ir.note(loop.notes, "how") is not None:
            self.parts(self, loop)
            return
        if self.ahead is not None and self.ahead.starts(loop):
            self.ahead.begin(self)
        found = find_accumulations(loop.body)
        outer, alone = self._parts, self._shared
        self._shared = is_shared(loop)
        self.begin_sums(found)
        self._parts = {**outer, **found}
        self._axes(loop, 0)
        self._parts = outer
        self.end_sums(found)
        self._shared = alone

    def accumulating(self, body: tuple[ir.Stmt, ...]) -> None:
        """The statements of a loop's body, sums added in place (those whose terms do not lie in several threads)."""
        outer = self._parts
        self._parts = {**outer, **find_accumulations(body)}
        self.emit(body)
        self._parts = outer

    def begin_sums(self, found: Mapping[str, Accumulation]) -> None:
        """Each thread's own part of every sum, before the loop that adds to it."""
        for name, a in found.items():
            if self._is_spread(name, a):
                tile = self.tile(self.types[a.target])
                self.out.line(f"auto {self._into(name, a)} = tw::nothing<{tile}>({_operator(a.op)});")

    def end_sums(self, found: Mapping[str, Accumulation]) -> None:
        """The parts of all threads joined with what was there before, after the loop."""
        for name, a in found.items():
            if self._is_spread(name, a):
                target, parts = cname(a.target), self._into(name, a)
                self._joined(a.axis, _operator(a.op), parts)
                joined = self.map(_operator(a.op), f"{target}, {parts}", self.types[a.target])
                self.out.line(f"{target} = {joined};")

    def _axes(self, loop: ir.Loop, depth: int) -> None:
        if depth == len(loop.axes):
            steps = self.ahead if self.ahead is not None and self.ahead.steps(loop) else None
            if steps:
                steps.before(self)
            self.emit(loop.body)
            if steps:
                steps.after(self)
            return
        axis = loop.axes[depth]
        low, high = self.scope.bounds(axis, {n: cname(n) for n in self.types})
        if axis.name in self.layouts.of and self._of_registers(axis, loop):
            self._piecewise(loop, axis, depth)
            return
        at = cname(axis.name) if axis.each else f"{axis.name}_at"
        unroll = ir.note(loop.notes, "unroll", 1) if depth == len(loop.axes) - 1 else 1
        if unroll != 1:
            self.out.line(f"#pragma unroll {unroll}")
        step = 1 if axis.each else axis.step or 1
        first, stride = (f"{low} + rank * {step}", step * self.blocks) if is_shared(loop) else (low, step)
        with self.out.block(f"for (int {at} = {first}; {at} < {high}; {at} += {stride})"):
            self.scope.enter(axis, at, low, high)
            if axis.name in self.layouts.of:
                self.out.line(self.part(axis.name))
            self._axes(loop, depth + 1)

    def _of_registers(self, axis: ir.Axis, loop: ir.Loop) -> bool:
        loads = [s.expr.ref for s in loop.body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
        stores = [s.ref for s in loop.body if isinstance(s, ir.Store)]
        return any(axis.over in self.registers.get(ref.buffer, ()) for ref in (*loads, *stores))

    def _piecewise(self, loop: ir.Loop, axis: ir.Axis, depth: int) -> None:
        """A loop over pieces of what lies in registers: written out, as registers have no addresses."""
        parent, number, step = self.scope[axis.over], f"{axis.name}_nth", axis.step or 1
        count, blocks = self.layouts.of[axis.over].points // step, self.blocks if is_shared(loop) else 1
        self.out.line("#pragma unroll")
        with self.out.block(f"for (int {number} = 0; {number} < {count}; ++{number})"):
            nth = number if blocks == 1 else f"({number} * {blocks} + rank)"
            at = f"{parent.start} + {nth} * {step}" if parent.start != "0" else f"{nth} * {step}"
            self.scope.enter(axis, at, parent.start, parent.stop)
            if parent.size != count * blocks * step:
                self.scope.open(axis.name)  # of the last tiles some do not exist
            self.pieces[axis.name] = (axis.over, number)
            self.out.line(self.part(axis.name))
            self._axes(loop, depth + 1)


def is_shared(loop: ir.Loop) -> bool:
    """Whether the tiles of a loop are dealt to the blocks of a cluster."""
    return ir.note(loop.notes, "bind") == "cluster"


def _operator(op: str) -> str:
    """The function object that joins two parts of a `sum`, `max` or `min` (or of an `add`)."""
    return reducer(op)


def _sum(at: tuple[str, str]) -> str:
    return f"{at[0]} + {at[1]}" if at[1] else at[0]


def _times(point: str, stride: str) -> str:
    if stride == "1":
        return point
    return stride if point == "1" else f"{point} * {stride}"


__all__ = ["Place", "Staged", "Values", "is_shared"]
