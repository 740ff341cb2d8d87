"""The rules of the IR, each with its reason: a table, run on authored and scheduled programs alike.

A rule looks at one statement and what it sees (`Scope`), and yields a message for each thing that is wrong. A
rule that needs names to be known says nothing where they are not: rule `defined` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tilewright.errors import VerifyError
from tilewright.language import ir
from tilewright.language.notes import SYNC_ACTIONS, check_note
from tilewright.language.printer import KEYWORDS, head, show_ref, show_type
from tilewright.language.scopes import Scope, scopes
from tilewright.language.type_rules import ref_problems, type_problems

Check = Callable[[ir.Stmt, Scope], Iterator[str]]


@dataclass(frozen=True)
class Violation:
    """A statement, `where`, that breaks `rule`: what is wrong with it, and why the rule exists."""

    rule: str
    where: str
    message: str
    reason: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.where}: {self.message} ({self.reason})"


@dataclass(frozen=True)
class Rule:
    """A rule: its name, why it exists, and the check of one statement."""

    name: str
    reason: str
    check: Check


def verify(kernel: ir.Kernel) -> list[Violation]:
    """Every violation in `kernel`, in program order; an empty list for a good program."""
    found = [Violation("signature", f"kernel {kernel.name}", m, _SIGNATURE_REASON) for m in _signature(kernel)]
    for stmt, scope in scopes(kernel):
        for rule in RULES:
            found += [Violation(rule.name, head(stmt), message, rule.reason) for message in rule.check(stmt, scope)]
    return found


def check(kernel: ir.Kernel) -> ir.Kernel:
    """`kernel` itself; VerifyError that lists the violations if there are any."""
    found = verify(kernel)
    if found:
        listed = "\n  ".join(map(str, found))
        raise VerifyError(f"kernel {kernel.name} breaks {len(found)} rule(s) of the IR:\n  {listed}")
    return kernel


# ---------------------------------------------------------------------------------------- signature

_SIGNATURE_REASON = "a name means one thing in the whole program"


def _signature(kernel: ir.Kernel) -> Iterator[str]:
    names = [p.name for p in kernel.params]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"two parameters are called {name}"
    for name in sorted(set(names) & set(kernel.dims)):
        yield f"{name} is a parameter and a dimension"
    for name in sorted({*names, *kernel.dims} & KEYWORDS):
        yield f"{name} is a word of the language"
    for key, value in kernel.notes:
        if problem := check_note(kernel, key, value):
            yield problem


# -------------------------------------------------------------------------------------------- rules


def _defines(stmt: ir.Stmt) -> tuple[str, ...]:
    match stmt:
        case ir.Let(name=name) | ir.Alloc(name=name):
            return (name,)
        case ir.Loop(axes=axes):
            return tuple(axis.name for axis in axes)
    return ()


def _unique(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    new = _defines(stmt)
    for name in dict.fromkeys(new):
        taken = name in scope.values or name in scope.axes or name in scope.buffers or name in scope.dims
        if taken or scope.scalar_dtype(name) is not None or new.count(name) > 1:
            yield f"{name} is defined already"
        if name in KEYWORDS:
            yield f"{name} is a word of the language"


def _defined(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    for name in _values_read(stmt, scope):
        if name not in scope.values:
            yield f"no value {name} is in scope here"
    for ref in refs(stmt):
        if ref.buffer not in scope.buffers:
            yield f"no tensor or buffer {ref.buffer} is in scope here"
    for name in _axes_read(stmt):
        if name not in scope.axes and name not in scope.dims:
            yield f"no axis or dimension {name} is in scope here"


def _values_read(stmt: ir.Stmt, scope: Scope) -> tuple[str, ...]:
    match stmt:
        case ir.Let(expr=ir.Map() | ir.Reduce() | ir.Dot() | ir.Permute() as expr):
            return ir.operands(expr)
        case ir.Let(expr=ir.Full(value=str(name))):
            known = name in scope.dims or scope.scalar_dtype(name) is not None
            return () if known else (name,)
        case ir.Assign(name, value):
            return (name, value)
        case ir.Store(value=value):
            return (value,)
    return ()


def _axes_read(stmt: ir.Stmt) -> tuple[str, ...]:
    match stmt:
        case ir.Let(type=tile_type, expr=ir.Coord(axis) | ir.Reduce(axis=axis) | ir.Dot(axis=axis)):
            return (*tile_type.axes, axis)
        case ir.Let(type=tile_type):
            return tile_type.axes
        case ir.When(axis=axis):
            return (axis,)
    return ()


def refs(stmt: ir.Stmt) -> tuple[ir.Ref, ...]:
    """The places that a statement reads or writes."""
    match stmt:
        case ir.Let(expr=ir.Load(ref)) | ir.Store(ref=ref):
            return (ref,)
        case ir.Copy(dst, src, _):
            return (dst, src)
    return ()


def _tile_axes(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if not isinstance(stmt, ir.Let):
        return
    axes = stmt.type.axes
    for axis in sorted({a for a in axes if axes.count(a) > 1}):
        yield f"the type has axis {axis} twice"
    for axis in axes:
        if scope.is_point(axis):
            yield f"{axis} is a single position (each); a tile has no such axis"


def _types(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if isinstance(stmt, ir.Let):
        yield from type_problems(stmt, scope)


def _refs(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    for ref in refs(stmt):
        yield from ref_problems(ref, scope)


def _stores(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    match stmt:
        case ir.Store(ref, value, _) if value in scope.values and ref.buffer in scope.buffers:
            tile, place = scope.values[value].type, ir.TileType(scope.buffers[ref.buffer].dtype, scope.ref_axes(ref))
            if tile.axes != place.axes or tile.dtype.kind != place.dtype.kind:
                yield f"{value} is {show_type(tile)}, the place {show_type(place)}; permute or cast it first"
        case ir.Copy(dst, src, _) if dst.buffer in scope.buffers and src.buffer in scope.buffers:
            have, want = scope.buffers[src.buffer].dtype, scope.buffers[dst.buffer].dtype
            if set(scope.ref_axes(dst)) != set(scope.ref_axes(src)):
                yield f"{show_ref(src)} has other axes than {show_ref(dst)}"
            if have.kind != want.kind:
                yield f"{src.buffer} is {have}, {dst.buffer} {want}; load, cast and store instead"


def _assigns(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if not isinstance(stmt, ir.Assign) or stmt.name not in scope.values or stmt.value not in scope.values:
        return
    old, new = scope.values[stmt.name], scope.values[stmt.value]
    if old.type != new.type:
        yield f"{stmt.name} is {show_type(old.type)}, {stmt.value} {show_type(new.type)}"


def _joined(loop: ir.Loop) -> bool:
    """Whether partial results of a parallel loop are joined by the machine."""
    return any(key in ("how", "split") for key, _ in loop.notes)


def _races(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    match stmt:
        case ir.Assign(name=name) if name in scope.values:
            yield from _race(scope, scope.values[name].depth, frozenset(), f"{name} comes from outside and is updated")
        case ir.Store(ref, _, _) if ref.buffer in scope.buffers:
            written = scope.deps(ref.index)
            yield from _race(scope, scope.buffers[ref.buffer].depth, written, f"{show_ref(ref)} is written")
        case ir.Copy(dst, src, _) if dst.buffer in scope.buffers:
            # Iterations that all copy the same elements to the same place do no harm.
            same = scope.loop_axes(0) - scope.deps(src.index)
            written = scope.deps(dst.index) | same
            yield from _race(scope, scope.buffers[dst.buffer].depth, written, f"{show_ref(dst)} is written")


def _race(scope: Scope, depth: int, separate: frozenset[str], what: str) -> Iterator[str]:
    for loop in scope.loops[depth:]:
        if loop.parallel and not _joined(loop):
            for axis in loop.axes:
                if axis.name not in separate | scope.once:
                    yield f"{what} by every iteration of parallel axis {axis.name}"


def _loops(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if not isinstance(stmt, ir.Loop):
        return
    known = {*scope.axes, *scope.dims}
    scattered = {a.name for a in (*scope.axes.values(), *stmt.axes) if a.apart != 1}
    for axis in stmt.axes:
        if axis.over not in known:
            yield f"axis {axis.name} is over {axis.over}, which is no dimension or axis here"
        if axis.step is not None and (axis.step < 1 or axis.each):
            yield f"axis {axis.name} has step {axis.step}; a step is positive, and `each` has none"
        if axis.over in scattered:
            yield f"axis {axis.name} is over {axis.over}, whose positions lie apart and are no range"
        if axis.apart != 1 and (axis.apart < 1 or axis.step is None or not stmt.parallel or scope.loops):
            yield f"axis {axis.name} lies {axis.apart} apart; only tiles of an outermost parallel loop do, with a step"
        for bound in (axis.start, axis.stop):
            if isinstance(bound, str) and not _is_integer_scalar(bound, scope):
                yield f"bound {bound} of axis {axis.name} is not an integer scalar in scope"
        known.add(axis.name)


def _is_integer_scalar(name: str, scope: Scope) -> bool:
    if name in scope.values:
        tile_type = scope.values[name].type
        return tile_type.dtype.kind == "int" and not tile_type.axes
    scalar = scope.scalar_dtype(name)
    return name in scope.dims or (scalar is not None and scalar.kind == "int")


def _whens(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if isinstance(stmt, ir.When):
        if stmt.cond not in ir.CONDITIONS:
            yield f"{stmt.cond} is no condition; use one of {', '.join(ir.CONDITIONS)}"
        if stmt.axis not in scope.axes:
            yield f"{stmt.axis} is no axis of a loop around this"


def _allocs(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    if not isinstance(stmt, ir.Alloc):
        return
    inner = {axis.name for s in ir.walk(scope.kernel.body) if isinstance(s, ir.Loop) for axis in s.axes}
    for dim in stmt.dims:
        if isinstance(dim, str) and dim not in inner and dim not in scope.dims:
            yield f"dimension {dim} is no dimension or axis of the program"
        if isinstance(dim, int) and dim < 1:
            yield f"dimension {dim} is not positive"


def _notes(stmt: ir.Stmt, scope: Scope) -> Iterator[str]:
    for key, value in getattr(stmt, "notes", ()):
        if problem := check_note(stmt, key, value):
            yield problem
    if isinstance(stmt, ir.Sync) and stmt.action not in SYNC_ACTIONS:
        yield f"{stmt.action} is no action of a barrier; use one of {', '.join(SYNC_ACTIONS)}"


RULES = (
    Rule("unique", "a name means one thing wherever it can be seen", _unique),
    Rule("defined", "a statement can only use what ran before it, in its block or around it", _defined),
    Rule("tile-axes", "the axes of a tile are distinct ranges of loops around it, or whole dimensions", _tile_axes),
    Rule("types", "the type written is the type computed; back ends choose code by it", _types),
    Rule("refs", "an axis may only address the dimension that it is a range of, so that it stays inside", _refs),
    Rule("stores", "a place takes elements of its kind, along its axes, in its order", _stores),
    Rule("assigns", "a loop-carried tile keeps its type, or it could not stay in one place", _assigns),
    Rule("races", "parallel iterations run in any order and at once", _races),
    Rule("loops", "a loop covers a range that is known when it starts", _loops),
    Rule("whens", "a condition asks which iteration of a loop around it this is", _whens),
    Rule("allocs", "the extent of a buffer is known when it is made", _allocs),
    Rule("notes", "a decision that nobody reads would be lost in silence", _notes),
)
