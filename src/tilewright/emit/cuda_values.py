"""Tile values as C++: constants, positions, loads, arithmetic, reductions, products, stores.

Statements are transcribed one by one; what several statements make together is told by `accumulate`. A value without
axes is a C++ scalar, any other a `tw::Tile` over the axes that it has, in the order of `Layouts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilewright.emit.cuda_fragments import Fragments
from tilewright.emit.cuda_layouts import AccRows, Layouts, axis_name
from tilewright.emit.cuda_loops import Loops
from tilewright.emit.cuda_maps import ctype, functor, literal, reducer, shifting
from tilewright.emit.cuda_pairs import Pairs, find_pairs
from tilewright.emit.cuda_places import WIDEST, Address, Addresses, Place, Staged
from tilewright.emit.cuda_scope import Scope
from tilewright.emit.cuda_text import Text, cname
from tilewright.emit.cuda_warp import WarpDots
from tilewright.language import ir
from tilewright.language.accumulate import fused_dots, uses
from tilewright.language.dtypes import DType

if TYPE_CHECKING:
    from tilewright.emit.cuda_ahead import Ahead
    from tilewright.emit.cuda_held import Held

APPROXIMATED = ("erf", "exp", "exp2", "sigmoid", "tanh")
"""Operators of the library's `approx.cuh`."""

_CACHES = {
    "cs": "tw::STREAM", "cg": "tw::L2_ONLY", "ca": "tw::PLAIN",
    "evict_first": "tw::HINT_FIRST", "evict_last": "tw::HINT_LAST", "strong": "tw::AHEAD",
}  # fmt: skip


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
    ahead: Ahead | Held | None = None  # loads that are made some steps ahead
    space: str = "axis"  # the C++ namespace of the axes' distributions
    blocks: int = 1  # of a cluster, which share the loops that are bound to it
    short: bool = False  # whether all results are rounded to 16 bits
    fragments: Fragments | None = None  # operands of dots that go straight to registers
    loops: Loops = field(default_factory=Loops)  # serial loops, and the sums of those being written
    _mutable: frozenset[str] = frozenset()
    _constants: dict[str, ir.Atom] = field(default_factory=dict)  # values that are one number, or a size
    _loaded: set[str] = field(default_factory=set)  # values that are 0 past the edges of their tiles
    _waiting: set[str] = field(default_factory=set)  # loads that are asked for before any of them is used
    _pairs: Pairs = field(default_factory=Pairs)  # of the body being written: neighbours that are moved at once

    def emit(self, body: tuple[ir.Stmt, ...]) -> None:
        """Write statements, in order; an addition takes over the dot that only it reads."""
        self._mutable |= {s.name for s in ir.walk(body) if isinstance(s, ir.Assign)}
        counts = uses(body)
        put = {s.value for s in body if isinstance(s, ir.Store) and s.ref.buffer in self.registers}
        if any(counts[name] == 1 for name in put):  # some only wait for a later loop: all are asked for at once
            self._waiting |= put
        types = self.types | {s.name: s.type for s in body if isinstance(s, ir.Let)}
        outer, self._pairs = self._pairs, find_pairs(body, self.places, types)
        fused = fused_dots(body)
        sums = {a.total for a in self.loops.sums.values()}
        for stmt in body:
            match stmt:
                case ir.Let(name, type_) if name in self.staged:
                    self.types[name] = type_
                case ir.Let(name, type_) if self.fragments is not None and name in self.fragments.operands:
                    self.types[name] = type_
                    self.fragments.load(self, stmt)
                case ir.Let(name) if name in self.loops.sums:
                    self.loops.add(self, stmt)
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
        self._pairs = outer

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
                self.loops.write(self, stmt)
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
        type_ = f"tw::Part<{self.axis(axis)}, {self.addresses.edge(axis)}>"
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
        if self.ahead is not None and isinstance(let.expr, ir.Map):
            self.ahead.used(self, let.expr.args)
        if isinstance(let.expr, ir.Dot):
            self.products(let, cname(let.name))
            if self._spread(let):
                self.loops.join(self, let.expr.axis, "tw::Add{}", cname(let.name))

    def _value(self, let: ir.Let) -> str:
        type_ = let.type
        match let.expr:
            case ir.Full(value):
                self._constants[let.name] = value
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
                divided = shifting(op, type_.dtype, self._constants.get(args[-1]))
                return self.map(divided or self._function(op, type_.dtype), given, type_)
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
        return isinstance(dot.expr, ir.Dot) and self.parts_of(dot.name, dot.expr.axis) > 0

    def products(self, let: ir.Let, into: str) -> None:
        """The products of a dot, added to what `into` holds."""
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
        if self.ahead is not None:
            self.ahead.used(self, (dot.a, dot.b))

    def _panels(self, dot: ir.Dot, into: str) -> None:
        """Products of panels: the operand along the rows of the result comes first."""
        a, b = self.staged[dot.a], self.staged[dot.b]
        if self.layouts.order((a.axis, b.axis))[0] != a.axis:
            a, b = b, a
        how = "multiply" if isinstance(self.layouts.of[a.axis], AccRows) else "multiply_add"
        down = f"{str(a.down).lower()}, {str(b.down).lower()}"
        kind = f"tw::{dot.precision}, " if dot.precision and how == "multiply" else ""
        self.out.line(f"tw::{how}<{kind}{down}>({into}, {a.panel}, {b.panel}, {self.team});")

    def bits(self, axis: str) -> int:
        """How many bits of a thread's number tell positions of an axis apart; 0 for an axis of panels."""
        return self.layouts.of[axis].bits if axis in self.layouts.of else 0

    def parts_of(self, name: str, axis: str) -> int:
        """Bits of a thread's number that tell the parts of a sum along an axis apart; 0 where the unit joins them."""
        return 0 if name in self.matrix.calls else self.bits(axis)

    def _added(self, add: ir.Let, dot: ir.Let, addend: str) -> None:
        """`add = addend + dot`, product by product."""
        self.types[add.name] = add.type
        self.out.line(f"{self.tile(add.type)} {cname(add.name)} = {self.name(addend)};")
        self.products(dot, cname(add.name))

    # -------------------------------------------------------------------------------------------------- memory
    @property
    def addresses(self) -> Addresses:
        """Where tiles lie, in the scope at hand."""
        return Addresses(self.scope, self.layouts, self.types, self.name)

    def _load(self, ref: ir.Ref, let: ir.Let) -> str:
        if ref.buffer in self.registers:
            return self._registers(ref, let.type)
        place, axes = self.places[ref.buffer], let.type.axes
        at = self.addresses.of(place, ref, axes, self.matrix.held(let, self.scope.axes))
        if not axes:
            return at.element
        most = at.most
        cache = _CACHES.get(str(ir.note(let.notes, "cache")), "tw::READ_ONLY" if place.readonly else "tw::PLAIN")
        if let.name in self._waiting and place.readonly:
            cache = "tw::AHEAD"
        if place.readonly and place.align < WIDEST and self.addresses.whole_words(place, ref, axes):
            most, cache = WIDEST // place.dtype.bytes, "tw::UNALIGNED"
        if let.name in self._pairs.loads and cache != "tw::UNALIGNED":
            return self._load_pair(let, cache, at)
        if self.ahead is not None and self.ahead.holds(let):
            return self.ahead.taken(self, let, most, list(at.terms))
        cut = cache == "tw::UNALIGNED" or self.addresses.reaches_past(place, ref, most)
        ends = place.ends if place.readonly and place.ends and cut else "tw::Unknown{}"
        return f"tw::load<{self.tile(let.type)}, {most}, {cache}>({', '.join([ends, at.point, *at.terms])})"

    def _load_pair(self, let: ir.Let, cache: str, at: Address) -> str:
        """One of two neighbours: the first one's access brings both."""
        first = self._pairs.loads[let.name]
        if first == let.name:
            given = ", ".join([at.point, *at.terms])
            self.out.line(f"const auto {cname(first)}_pair = tw::load_pair<{self.tile(let.type)}, {cache}>({given});")
        return f"{cname(first)}_pair.{'first' if first == let.name else 'second'}"

    def send(self, let: ir.Let, slot: str) -> None:
        """A load on its way to where it will be read from."""
        assert isinstance(let.expr, ir.Load)
        place = self.places[let.expr.ref.buffer]
        at = self.addresses.of(place, let.expr.ref, let.type.axes, self.matrix.held(let, self.scope.axes))
        given = ", ".join([slot, self.team, at.point, *at.terms])
        self.out.line(f"tw::send<{self.tile(let.type)}, {at.most}>({given});")

    def hold(self, let: ir.Let, there: str, whole: str) -> str:
        """C++ of the words of a load that is made ahead of its step, where it is asked for; of a whole tile or not."""
        let = self.matrix.along_twins(let)
        assert isinstance(let.expr, ir.Load)
        place = self.places[let.expr.ref.buffer]
        at = self.addresses.of(place, let.expr.ref, let.type.axes, self.matrix.held(let, self.scope.axes))
        return f"tw::hold<{self.tile(let.type)}, {at.most}>({', '.join([there, whole, at.point, *at.terms])})"

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
        if self._pairs.delayed(stmt):
            return
        first = self._pairs.stores.get(stmt)
        place = self.places[buffer]
        at = self.addresses.of(place, first.ref if first else stmt.ref, self.types[stmt.value].axes)
        cache = _CACHES.get(str(ir.note(stmt.notes, "cache")), "tw::PLAIN")
        if ir.note(stmt.notes, "nontemporal"):
            cache = "tw::STREAM"
        if place.shared:
            cache = "tw::SHARED"
        once = "if (rank == 0) " if self.blocks > 1 and not self.loops.shared else ""
        if first:
            given = ", ".join([at.point, self.name(first.value), value, self.team, *at.terms])
            self.out.line(f"{once}tw::store_pair<{cache}>({given});")
            return
        self.out.line(f"{once}tw::store<{at.most}, {cache}>({', '.join([at.point, value, self.team, *at.terms])});")


__all__ = ["Values"]
