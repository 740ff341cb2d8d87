"""Values of a warpgroup between two products: rows of accumulators, reduced over quads, by the functions of 16 bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tilewright.emit.cuda_layouts import AccCols, AccRows, Dist, Layouts, axis_name
from tilewright.emit.cuda_maps import reducer
from tilewright.emit.cuda_plan import Plan
from tilewright.emit.cuda_text import cname
from tilewright.emit.cuda_values import Values
from tilewright.language import ir

_FAST = {"exp2": "ApproxExp2", "exp": "ApproxExp", "div": "ApproxDiv", "erf": "ApproxErf", "tanh": "ApproxTanh",
         "sigmoid": "ApproxSigmoid"}  # fmt: skip


def chain_layouts(plan: Plan) -> Layouts:
    """Rows and columns of accumulators: one row axis, and an axis for the columns of each product."""
    row = next(s for s in plan.statements if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "warpgroup")
    name = row.axes[-1].name
    of: dict[str, Dist] = {name: AccRows(4, 1, 1)}
    for s in plan.statements:
        if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot):
            for a in s.type.axes:
                if a != name:
                    of[a] = AccCols(4, 1, plan.extent(a) // 8)
    return Layouts(of)


def joint(plan: Plan) -> bool:
    """Whether a warp of the producer goes through the items: columns end where numbers of many rows say.

    One thread that reads them in turn takes longer than consumers take for a whole tile.
    """
    lets = [s for s in plan.statements if isinstance(s, ir.Let)]
    rings = [s for s in plan.statements if isinstance(s, ir.Loop) and not s.parallel and ir.note(s.notes, "stages")]
    bounds = closure({str(x) for r in rings for x in (r.axes[0].start, r.axes[0].stop)}, lets, {})
    return any(s.name in bounds and isinstance(s.expr, ir.Load) and s.type.axes for s in lets)


@dataclass
class ChainValues(Values):
    """Writes statements of one warpgroup; `rings_of` are buffers in shared memory, `short` allows fast functions."""

    rings_of: frozenset[str] = frozenset()
    short: bool = True
    aliases: dict[str, str] = field(default_factory=dict)  # values that are others under another name
    positions: dict[str, str] = field(default_factory=dict)  # values that are positions of the block's rows: their axis
    loaded: dict[str, ir.Ref] = field(
        default_factory=dict
    )  # values that are numbers of the block's rows: where they lie
    lets: dict[str, ir.Let] = field(default_factory=dict)
    rows: tuple[str, int] | None = None  # where a warpgroup's own rows begin, as C++, and how many; None: the block's
    ends: frozenset[str] = frozenset()  # the axis of columns
    filled: frozenset[str] = frozenset()  # values that are -inf in columns past the end, so that nothing masks those

    def begin(self, kernel: ir.Kernel, plan: Plan) -> None:
        """Look at a program: buffers in registers have the axes of one warpgroup's part."""
        row = next(s for s in plan.statements if isinstance(s, ir.Loop) and ir.note(s.notes, "bind") == "warpgroup")
        axis, packed = row.axes[-1], {a.over for a in row.axes[:-1]}
        self.lets = {s.name: s for s in plan.statements if isinstance(s, ir.Let)}
        for s in plan.statements:
            if isinstance(s, ir.Alloc) and ir.note(s.notes, "place") == "register":
                self.registers[s.name] = tuple(
                    axis.name if d == axis.over else str(d) for d in s.dims if d not in packed
                )

    def name(self, value: str) -> str:
        """The C++ name of a value, or of what it is another name of."""
        while value in self.aliases:
            value = self.aliases[value]
        return cname(value)

    def resolved(self, value: str) -> str:
        """The value itself."""
        while value in self.aliases and self.aliases[value] in self.lets:
            value = self.aliases[value]
        return value

    # -------------------------------------------------------------------------------------- once a block
    def needed(self, body: tuple[ir.Stmt, ...], copies: bool, ring: ir.Loop) -> set[str]:
        """Values of `body` that one role reads: those of loop bounds and copies, or those of its statements."""
        wanted: set[str] = set()
        axis = ring.axes[0]
        wanted |= {str(x) for x in (axis.start, axis.stop)}
        for s in ir.walk(body):
            if isinstance(s, ir.Copy):
                wanted |= {str(i) for r in (s.dst, s.src) for i in r.index}
        if not copies:
            free = ir.note(ring.notes, "free")
            wanted |= {str(x) for x in free} if isinstance(free, tuple) else set()
            inner = [s for r in body for s in ir.walk(ir.blocks(r))]
            wanted |= {str(n) for s in inner if isinstance(s, ir.Let) for n in ir.operands(s.expr)}
            wanted |= {s.value for s in inner if isinstance(s, ir.Store)}
        return self.closed(wanted, body)

    def closed(self, wanted: set[str], body: tuple[ir.Stmt, ...]) -> set[str]:
        """Those of `wanted` that `body` computes, with what they are computed of."""
        own = {s.name: s for s in body if isinstance(s, ir.Let)}
        todo, found = [n for n in wanted if n in own], set[str]()
        while todo:
            n = todo.pop()
            if n not in found:
                found.add(n)
                todo += [x for x in ir.operands(own[n].expr) if x in own]
        return found

    def shared(self, let: ir.Let) -> None:
        """A value that is computed once: of what the rows of a block have, extremes are all that is asked for."""
        self.types[let.name] = let.type
        match let.expr:
            case ir.Coord(axis) if let.type.axes:
                self.positions[let.name] = axis
            case ir.Load(ref) if let.type.axes:
                self.loaded[let.name] = ref
            case ir.Reduce(op, arg, axis) if arg in self.positions:
                first, past = self._block_rows(axis)
                extreme = first if op == "min" else f"{past} - 1"
                self.out.line(f"const tw::i64 {cname(let.name)} = {extreme};")
            case ir.Reduce(op, arg, axis) if arg in self.loaded:
                self.out.line(f"const auto {cname(let.name)} = {self._over_rows(op, self.loaded[arg], axis)};")
            case _:
                self.statement(let)

    def _block_rows(self, axis: str) -> tuple[str, str]:
        """The first row of a block, or of a warpgroup, and the one past the last, as C++."""
        now = self.scope[axis]
        first, count = self.rows or (now.start, now.step)
        return first, f"min({first} + {count}, {self.scope[self.scope.axes[axis].over].stop})"

    def _over_rows(self, op: str, ref: ir.Ref, axis: str) -> str:
        """C++ of an extreme of what a tensor holds for the rows."""
        place, (first, past) = self.places[ref.buffer], self._block_rows(axis)
        at = [first if index == axis else self.addresses.point(index) for index in ref.index]
        from_ = " + ".join(f"(tw::i64)({x}) * {stride}" for x, stride in zip(at, place.strides, strict=True))
        stride = place.strides[ref.index.index(axis)]
        most = self.rows[1] if self.rows else self.scope[axis].step
        return f"tw::over_rows<{most}>({reducer(op)}, {place.pointer} + {from_}, {stride}, {past} - ({first}))"

    def joined(self, let: ir.Let, axis: str) -> None:
        """What threads kept to themselves, added up."""
        self.types[let.name] = let.type
        assert isinstance(let.expr, ir.Load)
        self.out.line(f"auto {cname(let.name)} = {cname(let.expr.ref.buffer)};")
        self.out.line(f"tw::join<axis::{axis_name(axis)}>(tw::Add{{}}, {cname(let.name)}, {self.team});")

    # ------------------------------------------------------------------------------------------- values
    def _value(self, let: ir.Let) -> str:
        if let.name in self.filled:
            columns = next(a for a in let.type.axes if a in self.ends)
            return f"tw::filled({self._plain(let)}, -tw::infinity(), {cname(columns)})"
        return self._plain(let)

    def _plain(self, let: ir.Let) -> str:
        type_ = let.type
        match let.expr:
            case ir.Map(op, args) if self.short and op in _FAST and type_.dtype.name == "f32":
                return self.map(f"tw::{_FAST[op]}{{}}", ", ".join(self._operand(a) for a in args), type_)
            case ir.Reduce(op, arg, axis) if ir.note(let.notes, "how") == "split":
                return f"tw::within<{self.tile(type_)}>({reducer(op)}, {self.name(arg)}, {self.columns(axis)})"
            case ir.Reduce("max", arg, axis) if (scaled := self._scaled(arg, axis)) is not None:
                x, scale = scaled
                given = f"{self.name(x)}, {self.name(scale)}, {self.columns(axis)}, {self.team}"
                return f"tw::largest_scaled<{self.tile(type_)}>({given})"
            case ir.Reduce(op, arg, axis) if len(self.lets[self.resolved(arg)].type.axes) == 2:
                given = f"{reducer(op)}, {self.name(arg)}, {self.columns(axis)}, {self.team}"
                return f"tw::across<{self.tile(type_)}>({given})"
        return super()._value(let)

    def columns(self, axis: str) -> str:
        """C++ of the columns that a reduction or a product goes over."""
        return f"tw::unmasked({cname(axis)})" if self.filled else cname(axis)

    def _scaled(self, arg: str, axis: str) -> tuple[str, str] | None:
        """What a value is a multiple of, and the factor, where that is one number."""
        let = self.lets[self.resolved(arg)]
        if self.filled or not isinstance(let.expr, ir.Map) or let.expr.op != "mul" or len(let.type.axes) != 2:
            return None
        for x, scale in (let.expr.args, let.expr.args[::-1]):
            if (
                x in self.lets
                and axis in self.lets[x].type.axes
                and scale in self.lets
                and not self.lets[scale].type.axes
            ):
                return x, scale
        return None


def filled_past_end(body: Iterable[ir.Stmt], axis: str, operands: Iterable[str]) -> frozenset[str]:
    """Values that may be -inf in columns past the end, if then no reduction and no product needs a mask; else none.

    -inf changes no maximum; less a value of the row it is -inf still; and its power is 0, which changes no sum.
    """
    lets = [s for s in body if isinstance(s, ir.Let)]
    axes = {s.name: s.type.axes for s in lets}
    fills = frozenset(s.expr.arg for s in lets if isinstance(s.expr, ir.Reduce) and s.expr.op == "max")
    is_: dict[str, str] = dict.fromkeys(fills, "-inf")
    for s in lets:
        match s.expr:
            case ir.Map("sub" | "add", (x, y)) if is_.get(x) == "-inf" and axis not in axes.get(y, ()):
                is_.setdefault(s.name, "-inf")
            case ir.Map("exp2" | "exp", (x,)) if is_.get(x) == "-inf":
                is_.setdefault(s.name, "0")
    reductions = [s.expr for s in lets if isinstance(s.expr, ir.Reduce) and s.expr.axis == axis]
    fits = all(is_.get(r.arg) == {"max": "-inf", "sum": "0"}.get(r.op, "") for r in reductions)
    return fills if fits and all(is_.get(n) == "0" for n in operands) else frozenset()


def closure(wanted: set[str], lets: Iterable[ir.Let], aliases: dict[str, str]) -> set[str]:
    """The values among `lets` that `wanted` are computed of, themselves included."""
    by_name = {s.name: s for s in lets}
    todo, found = list(wanted), set()
    while todo:
        n = todo.pop()
        if n in by_name and n not in found:
            found.add(n)
            todo += [aliases[n]] if n in aliases else ir.operands(by_name[n].expr)
    return found


def live_lets(body: Iterable[ir.Stmt], aliases: dict[str, str]) -> set[str]:
    """Values of a body that something reads in the end, where some are others under another name."""
    lets = {s.name: s for s in body if isinstance(s, ir.Let)}
    todo = [s.value for s in body if isinstance(s, ir.Store)]
    todo += [n for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Dot) for n in ir.operands(s.expr)]
    found: set[str] = set()
    while todo:
        n = todo.pop()
        while n in aliases:
            n = aliases[n]
        if n in lets and n not in found:
            found.add(n)
            todo += ir.operands(lets[n].expr)
    return found


__all__ = ["ChainValues", "chain_layouts", "closure", "filled_past_end", "live_lets"]
