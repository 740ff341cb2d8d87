"""Values in the layout of the matrix unit's accumulators, through the primitives of the tile library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from tilewright.emit.cuda_plan import Plan, c_type
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir
from tilewright.language.accumulate import undisturbed, uses

_APPROXIMATED = ("erf", "sigmoid", "tanh")
_SHORT = 64
"""Columns of a value that stands where it is read."""
_CACHES = {"cs": "STREAM", "evict_first": "STREAM", "cg": "L2_ONLY"}


class Tiles:
    """Writes loads, arithmetic and stores of values whose rows are dealt to a warpgroup."""

    def __init__(self, plan: Plan, text: Text) -> None:
        self.plan, self.text = plan, text
        self.groups = plan.groups
        self.trips = 1
        stores = {s.ref.buffer for s in plan.statements if isinstance(s, ir.Store)} & plan.tensors
        leaving = {s.dst.buffer for s in plan.statements if isinstance(s, ir.Copy)} & plan.tensors
        self.short = all(plan.kernel.param(t).dtype.bits == 16 for t in stores | leaving)
        self.row = next((s.axes[0].name for s in plan.statements if isinstance(s, ir.Loop) and _over_atoms(s)), "")
        self.split: ir.Axis | None = None
        self.live: list[str] = []  # accumulators that the matrix unit writes
        self.held: dict[str, ir.Alloc] = {}
        self.registers = {
            s.name for s in plan.statements if isinstance(s, ir.Alloc) and ir.note(s.notes, "place") == "register"
        }
        self.leaving: dict[str, tuple[str, str]] = {}  # buffers that a copy will lead out -> how, and what they hold
        self.joining = False  # whether all parts of a sum are there
        self.texts: dict[str, str] = {}  # values without a line of their own -> what stands for them
        self.still: frozenset[str] = frozenset()  # values that are what registers hold for as long as they are read
        self.next: set[str] = set()  # those that the statement behind them reads
        self.shows: set[str] = set()  # values that stand where they are read
        self.once: set[str] = set()  # values that one elementwise operator reads
        self.into: dict[str, str] = {}  # values that are computed into registers -> those
        self.sums: dict[str, str] = {}  # sums that memory adds up by itself -> what this block adds

    # ------------------------------------------------------------------------------------- registers
    def alloc(self, alloc: ir.Alloc) -> None:
        """Declare a buffer in registers: an array of row tiles."""
        if ir.note(alloc.notes, "place") != "register":
            return
        self.held[alloc.name] = alloc
        rows = next((d for d in alloc.dims if self._is_row(str(d))), None)
        if rows is None:  # the same for all rows
            self.text.line(f"{self.tile_type(alloc.dtype.name, tuple(map(str, alloc.dims)))} {cname(alloc.name)};")
            return
        self.trips = max(1, self.plan.extent(rows) // 64 // self.groups)
        share = self.plan.share
        mine = share is not None and self._is_shared(alloc.name)
        axes = tuple(self.row if d == rows else share.name if share and mine else str(d) for d in alloc.dims)
        many = f"[{self.trips}]" if self.trips > 1 else ""
        self.text.line(f"{self.tile_type(alloc.dtype.name, axes)} {cname(alloc.name)}{many};")

    def _is_shared(self, buffer: str) -> bool:
        """Whether a block of a cluster touches just its own share of a buffer."""
        refs = [s.ref for s in self.plan.statements if isinstance(s, ir.Store)]
        refs += [s.expr.ref for s in self.plan.statements if isinstance(s, ir.Let) and isinstance(s.expr, ir.Load)]
        share = self.plan.share
        return share is not None and all(share.name in self._lineage(r) for r in refs if r.buffer == buffer)

    def _lineage(self, ref: ir.Ref) -> set[str]:
        found = [str(i) for i in ref.index]
        for name in found:  # grows while it is walked
            if name in self.plan.axes:
                found.append(self.plan.axes[name].over)
        return set(found)

    def _is_row(self, axis: str) -> bool:
        chain = [self.row]
        while chain[-1] in self.plan.axes:
            chain.append(self.plan.axes[chain[-1]].over)
        return axis in chain

    def register(self, name: str) -> str:
        """C++ of a register buffer at the row tile at hand."""
        by_row = any(self._is_row(str(d)) for d in self.held[name].dims)
        return f"{cname(name)}[turn]" if by_row and self.trips > 1 else cname(name)

    def hold(self, waits: bool) -> None:
        """Nothing may touch accumulators before this line, which waits for the last products first if need be."""
        live = list(dict.fromkeys(self.live))
        self.live.clear()
        if waits and self.trips == 1 and live:
            self.text.line(f"finish({', '.join(map(cname, live))});")
            return
        if waits:
            self.text.line("wgmma_wait<0>();")
        for name in live:
            if self.trips > 1:
                self.text.line(f"for (int turn = 0; turn < {self.trips}; ++turn) hold({cname(name)}[turn].v);")
            else:
                self.text.line(f"hold({cname(name)}.v);")

    def dealt(self, loop: ir.Loop) -> bool:
        """Whether several warpgroups share the rows of a loop."""
        return ir.note(loop.notes, "bind") == "warpgroup" and self.groups > 1

    def turns(self, loop: ir.Loop) -> int:
        """How many row tiles of a loop a warpgroup has."""
        return self.plan.trips(loop.axes[0]) // (self.groups if self.dealt(loop) else 1)

    @contextmanager
    def each_row(self, loop: ir.Loop) -> Iterator[None]:
        """The row tiles of this warpgroup, one after the other, written out; a lone one needs its name once."""
        axis = loop.axes[0]
        m, over = cname(axis.name), cname(axis.over)
        groups, trips = self.groups if self.dealt(loop) else 1, self.turns(loop)
        mine = " + 64 * group" if groups > 1 else ""
        if trips == 1:
            # Loops of columns have blocks of their own; what only comes to registers leaves no names behind.
            values = any(isinstance(s, ir.Store) and s.ref.buffer not in self.registers for s in loop.body)
            with self.text.block("") if values else nullcontext():
                if mine:
                    self.text.once(f"const int {m} = {over}{mine};")
                else:
                    self.plan.same[axis.name] = axis.over
                yield
            return
        self.text.line("#pragma unroll")
        with self.text.block(f"for (int turn = 0; turn < {trips}; ++turn)"):
            self.text.line(f"const int {m} = {over}{mine} + {64 * groups} * turn;")
            yield

    # ----------------------------------------------------------------------------------------- types
    def axis_type(self, axis: str) -> str:
        """C++ of how the positions of an axis are dealt to threads."""
        return "Rows" if axis == self.row else f"Columns<{self.plan.extent(axis)}>"

    def tile_type(self, dtype: str, axes: tuple[str, ...]) -> str:
        """C++ of a tile; rows come first, whatever the order of the axes."""
        if not axes:
            return c_type(dtype)
        ordered = sorted(axes, key=lambda a: a != self.row)
        if len(axes) == 2 and ordered[0] == self.row:
            return f"Sums<{c_type(dtype)}, {self.plan.extent(ordered[1])}>"
        return f"Tile<{', '.join((c_type(dtype), *map(self.axis_type, ordered)))}>"

    # ------------------------------------------------------------------------------------ statements
    def begin(self, body: tuple[ir.Stmt, ...]) -> None:
        """What registers hold is read where it stands, and computed where it will stand, if a body allows it."""
        self.still |= undisturbed(body, self.registers)
        counts = uses(body)
        maps = [s for s in body if isinstance(s, ir.Let) and isinstance(s.expr, ir.Map)]
        reader = {x: s.name for s in maps for x in ir.operands(s.expr)}
        self.once |= {x for x in reader if counts[x] == 1}
        lets = [s.name if isinstance(s, ir.Let) else "" for s in body if not _number(s)]
        self.next |= {x for x, y in itertools.pairwise(lets) if x and reader.get(x) == y}
        for let, store in itertools.pairwise(body):
            if not isinstance(let, ir.Let) or not isinstance(store, ir.Store) or store.ref.buffer not in self.registers:
                continue
            if store.value == let.name and counts[let.name] == 1:
                self.into[let.name] = store.ref.buffer

    def name(self, value: str) -> str:
        """C++ of a value: its name, a number, or registers as they stand."""
        return self.texts.get(value, cname(value))

    def stmt(self, stmt: ir.Let | ir.Store) -> None:
        """A value, or a store."""
        if isinstance(stmt, ir.Store):
            self.store(stmt)
            return
        type_ = self.tile_type(stmt.type.dtype.name, stmt.type.axes)
        text = self.value(stmt, type_)
        if stmt.name in self.once and self.shown(stmt) and len(text) <= _SHORT:
            self.texts[stmt.name] = text
            self.shows.add(stmt.name)
        if not text or (self.texts.get(stmt.name) == text and stmt.name not in self.into):
            return
        if stmt.name in self.into:
            self.text.line(f"{self.register(self.into[stmt.name])} = {text};")
        else:
            self.text.line(f"const {'auto' if stmt.type.axes else type_} {cname(stmt.name)} = {text};")

    def shown(self, let: ir.Let) -> bool:
        """Whether a value stands where it is read: at once, or as a part of registers that stay as they are."""
        match let.expr:
            case ir.Load(ref):
                return ref.buffer in self.held and let.name in self.still
            case ir.Map(_, args):
                return bool(let.type.axes) and let.name in self.next and not any(x in self.shows for x in args)
        return False

    def value(self, let: ir.Let, type_: str) -> str:
        """C++ of a value; nothing for those that memory adds up by itself."""
        match let.expr:
            case ir.Load(ref) if ref.buffer in self.held:
                text = self.piece(ref, type_)
                if let.name in self.still and text == self.register(ref.buffer):
                    # ptxas deals registers of joined sums otherwise where they are not copied; it takes no instruction.
                    self.texts[let.name] = text = f"{type_}({text})" if self.split else text
                return text
            case ir.Load(ref) if ref.buffer in self.plan.parts and self.plan.atomic and not self.joining:
                self.sums[let.name] = ""
                return ""
            case ir.Map("add", (x, y)) if x in self.sums:
                self.sums[let.name] = y
                return ""
            case ir.Load(ref) if ref.buffer in self.plan.parts:
                call = f"take_sum<{type_}>" if self.plan.atomic else f"take_part<{type_}, {self.shared(ref.buffer)}>"
                return f"{call}({self.part(ref.buffer)})"
            case ir.Load(ref):
                return self.load(ref, type_, let)
            case ir.Full(value):
                text = self.full(value, type_)
                if type_ == "float" and not isinstance(value, str):
                    self.texts[let.name] = text
                return text
            case ir.Map(op, args):
                function = f"Cast<{c_type(let.type.dtype.name)}>" if op == "cast" else self.function(op)
                given = ", ".join(map(self.name, args))
                return f"map<{type_}>({function}(), {given})" if let.type.axes else f"{function}()({given})"
        raise AssertionError(f"{let.name}: {type(let.expr).__name__} beside the matrix unit")

    def function(self, op: str) -> str:
        """C++ of an elementwise operator: an approximation where all results are rounded to 16 bits."""
        name = op.capitalize()
        return f"Approx{name}" if self.short and op in _APPROXIMATED else name

    def full(self, value: ir.Atom, type_: str) -> str:
        """A constant, a size or a scalar."""
        if isinstance(value, str):
            number = cname(value)
        elif isinstance(value, float):
            huge = f"({'-' if value < 0 else ''}__builtin_huge_valf())"
            number = f"{value!r}f" if math.isfinite(value) else huge
        else:
            number = str(value)
        return f"full<{type_}>({number})" if type_.startswith(("Tile", "Sums")) else number

    def piece(self, ref: ir.Ref, type_: str) -> str:
        """What a register buffer holds at the row tile at hand: all columns, or some of them."""
        alloc = self.held[ref.buffer]
        column = next((str(i) for i in ref.index if i != self.row), None)
        share = self.plan.share
        if column is None or column in alloc.dims or (share is not None and column == share.name):
            return self.register(ref.buffer)
        return f"piece<{type_}>({self.register(ref.buffer)}.v, {cname(column)}_n)"

    def shared(self, buffer: str) -> str:
        """Whether parts lie in shared memory, in C++."""
        return str(ir.note(self.plan.parts[buffer].notes, "place") == "shared").lower()

    def part(self, buffer: str) -> str:
        """C++ of where one warpgroup's row tile of one part lies."""
        alloc = self.plan.parts[buffer]
        assert self.split is not None
        size = self.plan.elements(alloc) // (self.plan.shares if self.shared(buffer) == "true" else 1)
        index = "0" if self.plan.atomic else f"{cname(self.split.name)} / {self.plan.extent(self.split.name)}"
        rows = next(d for d in alloc.dims if self._is_row(str(d)))
        begin = self.plan.start(self.row)
        mine = (
            f" + ({begin} - {cname(str(rows))}) * {size // self.plan.extent(rows)}" if begin != cname(str(rows)) else ""
        )
        if self.shared(buffer) == "true":
            return f"(float*)(shared + {self.plan.part_offsets[buffer]}) + {index} * {size}{mine}"
        place = f"(float*)args.words[{self.plan.words.scratch_word(buffer)}]"
        block = f"(i64)({self.block_number()}) * {1 if self.plan.atomic else self.plan.splits}"
        return f"{place} + ({block} + {index}) * {size}{mine}"

    def block_number(self) -> str:
        """C++ of the number of this block's tile of the result."""
        return f"tile * {self.plan.cluster} + rank" if self.plan.cluster > 1 else "tile"

    def terms(self, ref: ir.Ref) -> tuple[str, str]:
        """C++ of the first element's address without the tile's axes, and of a term for each axis."""
        base, terms = cname(ref.buffer), []
        for d, index in enumerate(ref.index):
            stride = self.plan.stride(ref.buffer, d)
            axis = self.plan.axes.get(str(index))
            if axis is None or axis.each:
                place = str(index) if isinstance(index, int) else cname(index)
                base += f" + (i64){place} * {stride}"
            else:
                terms.append(f"by({self._part_name(str(index))}, {stride})")
        return base, ", ".join(terms)

    def _part_name(self, axis: str) -> str:
        """C++ of the positions of an axis."""
        distribution, size, edge = self.axis_type(axis), self.plan.size(self.plan.root(axis)), self.plan.edge(axis)
        over = self.plan.axes[axis].over
        if over in self.plan.axes and (whole := self.plan.extent(over)) < self.plan.extent(axis):
            # A tile of fewer rows than the atom: rows past it are another tile's.
            size, edge = f"min({cname(over)} + {whole}, {size})", edge or whole & -whole
        return f"Part<{distribution}, {edge}>({self.plan.start(axis)}, {size}, team)"

    def load(self, ref: ir.Ref, type_: str, let: ir.Let) -> str:
        """C++ of a load from a tensor."""
        base, terms = self.terms(ref)
        cache = _CACHES.get(str(ir.note(let.notes, "cache")), "PLAIN")
        if not let.type.axes:
            return f"*({base})"
        return f"load<{type_}, {self.plan.vector(ref.buffer)}, {cache}>(Unknown{{}}, {base}, {terms})"

    def store(self, store: ir.Store) -> None:
        """A store to registers, to a part of a sum, or to a tensor."""
        buffer, value = store.ref.buffer, self.name(store.value)
        if store.value in self.into:
            return
        if buffer in self.held:
            self.text.line(f"{self.register(buffer)} = {value};")
        elif buffer in self.plan.leaving:
            ring = self.plan.rings[buffer]
            element = c_type(ring.alloc.dtype.name)
            turned = self._is_row(str(ring.alloc.dims[-1]))
            how = f"columns<{element}, {ring.rows}>" if turned else f"rows<{element}, {ring.wide}>"
            self.leaving[buffer] = how, value
        elif buffer in self.plan.parts and self.plan.atomic:
            mine = self.name(self.sums[store.value])
            self.text.line(f"add_part({self.part(buffer)}, {mine});")
        elif buffer in self.plan.parts and self.shared(buffer) == "true":
            barrier = next(b.name for b in self.plan.barriers.values() if b.bytes)
            self.text.line(f"{cname(barrier)}.give({self.part(buffer)}, {value});")
        elif buffer in self.plan.parts:
            self.text.line(f"give_part({self.part(buffer)}, {value});")
        else:
            base, terms = self.terms(store.ref)
            cache = _CACHES.get(str(ir.note(store.notes, "cache")), "PLAIN")
            self.text.line(f"store<{self.plan.vector(buffer)}, {cache}>({base}, {value}, team, {terms});")


def _number(stmt: ir.Stmt) -> bool:
    """Whether a statement only names a number."""
    return isinstance(stmt, ir.Let) and isinstance(stmt.expr, ir.Full) and not stmt.type.axes


def _over_atoms(loop: ir.Loop) -> bool:
    from tilewright.emit.cuda_dots import is_rows

    return is_rows(loop)
