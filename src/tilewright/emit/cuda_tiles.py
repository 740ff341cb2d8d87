"""Values in the layout of the matrix unit's accumulators, through the primitives of the tile library."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from tilewright.emit.cuda_plan import Plan, c_type
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir

_APPROXIMATED = ("erf", "sigmoid", "tanh")
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
        self.joining = False  # whether all parts of a sum are there
        self.sums: dict[str, str] = {}  # sums that memory adds up by itself -> what this block adds

    # ------------------------------------------------------------------------------------- registers
    def alloc(self, alloc: ir.Alloc) -> None:
        """Declare a buffer in registers: an array of row tiles."""
        if alloc.name in self.plan.leaving:
            self.slot_to_leave(alloc)
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

    def slot_to_leave(self, alloc: ir.Alloc) -> None:
        """The next slot of a warpgroup's own, once the engine has read what lay there."""
        name, ring = cname(alloc.name), self.plan.rings[alloc.name]
        own = ring.slots // self.plan.groups  # of every warpgroup, whether they take turns or not
        self.text.line(
            f"unsigned char* const {name}_now = {name} + (group * {own} + leaving++ % {own}) * {ring.slot_bytes};"
        )
        self.text.line(f"if (threadIdx.x % 128 == 0) wait_stores<{own - 1}>();")
        self.text.line("meet(2 + group, 128);")

    def _is_row(self, axis: str) -> bool:
        chain = [self.row]
        while chain[-1] in self.plan.axes:
            chain.append(self.plan.axes[chain[-1]].over)
        return axis in chain

    def register(self, name: str) -> str:
        """C++ of a register buffer at the row tile at hand."""
        by_row = any(self._is_row(str(d)) for d in self.held[name].dims)
        return f"{cname(name)}[turn]" if by_row and self.trips > 1 else cname(name)

    def hold(self) -> None:
        """Nothing may touch accumulators before this line."""
        for name in dict.fromkeys(self.live):
            if self.trips > 1:
                self.text.line(f"for (int turn = 0; turn < {self.trips}; ++turn) hold({cname(name)}[turn].v);")
            else:
                self.text.line(f"hold({cname(name)}.v);")
        self.live.clear()

    @contextmanager
    def each_row(self, loop: ir.Loop, named: bool = True) -> Iterator[None]:
        """The row tiles of this warpgroup, one after the other, written out; a lone one needs no name."""
        axis = loop.axes[0]
        m, over = cname(axis.name), cname(axis.over)
        dealt = ir.note(loop.notes, "bind") == "warpgroup"
        groups = self.groups if dealt else 1
        trips = self.plan.trips(axis) // groups
        mine = " + 64 * group" if groups > 1 else ""
        if trips == 1 and not named:
            yield
            return
        if trips == 1:
            with self.text.block(""):
                self.text.line(f"const int {m} = {over}{mine};")
                yield
            return
        self.text.line("#pragma unroll")
        with self.text.block(f"for (int turn = 0; turn < {trips}; ++turn)"):
            self.text.line(f"const int {m} = {over}{mine} + {64 * groups} * turn;")
            yield

    # ----------------------------------------------------------------------------------------- types
    def axis_type(self, axis: str) -> str:
        """C++ of how the positions of an axis are dealt to threads."""
        if axis == self.row:
            return "AccRows<4, 1, 1>"
        return f"AccCols<4, 1, {self.plan.extent(axis) // 8}>"

    def tile_type(self, dtype: str, axes: tuple[str, ...]) -> str:
        """C++ of a tile; rows come first, whatever the order of the axes."""
        if not axes:
            return c_type(dtype)
        ordered = sorted(axes, key=lambda a: a != self.row)
        return f"Tile<{', '.join((c_type(dtype), *map(self.axis_type, ordered)))}>"

    # ------------------------------------------------------------------------------------ statements
    def stmt(self, stmt: ir.Let | ir.Store) -> None:
        """A value, or a store."""
        if isinstance(stmt, ir.Store):
            self.store(stmt)
            return
        name, type_ = cname(stmt.name), self.tile_type(stmt.type.dtype.name, stmt.type.axes)
        match stmt.expr:
            case ir.Load(ref) if ref.buffer in self.held:
                self.text.line(f"const auto {name} = {self.piece(ref, type_)};")
            case ir.Load(ref) if ref.buffer in self.plan.parts and self.plan.atomic and not self.joining:
                self.sums[stmt.name] = ""
            case ir.Map("add", (x, y)) if x in self.sums:
                self.sums[stmt.name] = y
            case ir.Load(ref) if ref.buffer in self.plan.parts:
                call = "take_out" if self.plan.atomic else f"take<{self.shared(ref.buffer)}>"
                self.text.line(f"{type_} {name};")
                self.text.line(f"{call}({name}.v, {self.part(ref.buffer)}, threadIdx.x % 128, 128);")
            case ir.Load(ref):
                self.text.line(f"const auto {name} = {self.load(ref, type_, stmt)};")
            case ir.Full(value):
                self.text.line(f"const {type_} {name} = {self.full(value, type_)};")
            case ir.Map(op, args):
                function = f"Cast<{c_type(stmt.type.dtype.name)}>" if op == "cast" else self.function(op)
                if stmt.type.axes:
                    self.text.line(f"const auto {name} = map<{type_}>({function}(), {', '.join(map(cname, args))});")
                else:
                    self.text.line(f"const {type_} {name} = {function}()({', '.join(map(cname, args))});")
            case _:
                raise AssertionError(f"{stmt.name}: {type(stmt.expr).__name__} beside the matrix unit")

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
        return f"full<{type_}>({number})" if type_.startswith("Tile") else number

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
        row = f"({cname(self.row)} - {cname(str(rows))}) * {size // self.plan.extent(rows)}"
        if self.shared(buffer) == "true":
            return f"(float*)(shared + {self.plan.part_offsets[buffer]}) + {index} * {size} + {row}"
        place = f"(float*)args.words[{self.plan.words.scratch_word(buffer)}]"
        block = f"(i64)({self.block_number()}) * {1 if self.plan.atomic else self.plan.splits}"
        return f"{place} + ({block} + {index}) * {size} + {row}"

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
        return f"Part<{distribution}, {edge}>({cname(axis)}, {size}, team)"

    def load(self, ref: ir.Ref, type_: str, let: ir.Let) -> str:
        """C++ of a load from a tensor."""
        base, terms = self.terms(ref)
        cache = _CACHES.get(str(ir.note(let.notes, "cache")), "PLAIN")
        if not let.type.axes:
            return f"*({base})"
        return f"load<{type_}, {self.plan.vector(ref.buffer)}, {cache}>(Unknown{{}}, {base}, {terms})"

    def store(self, store: ir.Store) -> None:
        """A store to registers, to a part of a sum, or to a tensor."""
        buffer, value = store.ref.buffer, cname(store.value)
        if buffer in self.held:
            self.text.line(f"{self.register(buffer)} = {value};")
        elif buffer in self.plan.leaving:
            ring = self.plan.rings[buffer]
            element = c_type(ring.alloc.dtype.name)
            turned = self._is_row(str(ring.alloc.dims[-1]))
            call = f"store_columns<{element}, {ring.rows}>" if turned else f"store_rows<{element}, {ring.wide}>"
            self.text.line(f"{call}({cname(buffer)}_now, {value}.v, threadIdx.x % 128);")
        elif buffer in self.plan.parts and self.plan.atomic:
            mine = cname(self.sums[store.value])
            self.text.line(f"add_to({self.part(buffer)}, {mine}.v, threadIdx.x % 128, 128);")
        elif buffer in self.plan.parts and self.shared(buffer) == "true":
            barrier = next(b.name for b in self.plan.barriers.values() if b.bytes)
            call = f"give<{self.plan.shares}>({self.part(buffer)}, {cname(barrier)}"
            self.text.line(f"{call}, {value}.v, rank, threadIdx.x % 128, 128);")
        elif buffer in self.plan.parts:
            self.text.line(f"give({self.part(buffer)}, {value}.v, threadIdx.x % 128, 128);")
        else:
            base, terms = self.terms(store.ref)
            cache = _CACHES.get(str(ir.note(store.notes, "cache")), "PLAIN")
            self.text.line(f"store<{self.plan.vector(buffer)}, {cache}>({base}, {value}, team, {terms});")


def _over_atoms(loop: ir.Loop) -> bool:
    from tilewright.emit.cuda_dots import is_rows

    return is_rows(loop)
