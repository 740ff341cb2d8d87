"""The tile IR: one page of frozen nodes.

A program computes on *tiles*: values with a dtype and named axes. An axis is a contiguous range of
some dimension; a tile holds one element per point of its axes. The same nodes hold the program that
an author wrote (steps unchosen, no notes) and the scheduled program of every machine (steps chosen,
buffers placed, copies explicit, notes on nodes). `interpreter.py` defines the meaning of both.

Grammar (the printer writes it, the parser reads it, `parse(print(p)) == p`):

    kernel   = "kernel" NAME "(" [param {"," param}] ")" notes block
    param    = NAME ":" DTYPE [ "[" dim {"," dim} "]" ]          tensor, or scalar without brackets
    dim      = NAME | INT
    block    = "{" {stmt} "}"
    stmt     = NAME "=" expr ":" type notes                       Let
             | NAME ":=" NAME                                     Assign    (loop-carried update)
             | "store" ref "=" NAME notes                         Store
             | "for" axis {"," axis} ["parallel"] notes block     Loop
             | "when" cond "(" NAME ")" block                     When      (cond: first last not_first not_last)
             | "alloc" NAME ":" DTYPE "[" dims "]" notes          Alloc
             | "copy" ref "<-" ref notes                          Copy
             | "sync" NAME ACTION notes                           Sync
             | "role" NAME notes block                            Role
    axis     = ["each"] NAME "in" NAME ["from" atom] ["to" atom] ["step" INT] ["apart" INT]
    expr     = "full" atom                                        Full      (constant, dim size or scalar)
             | "coord" NAME                                       Coord     (position along an axis)
             | "load" ref                                         Load
             | OP NAME {NAME}                                     Map       (elementwise)
             | "reduce" OP NAME "over" NAME                       Reduce
             | "dot" NAME NAME "over" NAME ["as" NAME]             Dot
             | "permute" NAME                                     Permute   (to the axes of the type)
    ref      = NAME "[" [index {"," index}] "]"
    index    = NAME | INT          an axis, a whole dim, an integer value (gather), or a position
    type     = DTYPE "[" [NAME {"," NAME}] "]"
    atom     = NAME | NUMBER
    notes    = {"@" KEY "=" VALUE}                                schedule decisions, see notes.py

Rules that give it meaning
- `for i in M` splits dimension M (or the range of an axis M) into tiles of `step` elements; the last
  one may be short, and `i` then holds just the elements that exist. No step: the design chooses it.
  The meaning of an authored program must not depend on the step, up to the rounding of sums.
- `for each b in B` visits single positions: an index `b` takes one element and adds no axis, and
  `coord b` is a scalar. `from` and `to` bound the range (never beyond the dimension).
- `step 4 apart 16` takes every sixteenth position: the range falls into blocks of 4 x 16 (the last one may be short),
  and a block into tiles of one position out of each of its four runs of 16. Only outermost parallel loops have such.
- A dim used as an index or as an axis of a type is the whole of that dim: `q[i, D]` is `f32[i, D]`.
- `x := y` gives x, which an enclosing block defined, the value y; its type may not change.
- Elementwise operators broadcast by axis *name*. bf16, f16 and fp8 are storage formats: the tracer
  casts them to f32 before arithmetic, and `store` casts to the element type of the tensor.
- A load whose index is an integer value gathers: the axes of that value take the index's place.
- Iterations of a `parallel` loop are independent; each writes its own part of every tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from tilewright.language.dtypes import DType

Dim = str | int
Atom = str | int | float
Index = str | int
Note = str | int | bool | tuple[str | int, ...]
Notes = tuple[tuple[str, Note], ...]


@dataclass(frozen=True)
class TileType:
    """The type of a value: element type and axis names in order; no axes is a scalar."""

    dtype: DType
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Param:
    """A kernel parameter: a tensor with `dims`, or a scalar where `dims` is None."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...] | None = None


@dataclass(frozen=True)
class Axis:
    """`[each] name in over [from start] [to stop] [step step] [apart apart]`.

    start and stop name integer scalars or are numbers; apart is the distance between the positions of one tile.
    """

    name: str
    over: str
    step: int | None = None
    start: str | int | None = None
    stop: str | int | None = None
    each: bool = False
    apart: int = 1


@dataclass(frozen=True)
class Ref:
    """A place in a tensor or buffer: one index per dimension."""

    buffer: str
    index: tuple[Index, ...] = ()


# ---------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Full:
    """Every element is `value`: a number, or the name of a dim (its size) or of a scalar."""

    value: Atom


@dataclass(frozen=True)
class Coord:
    """The position of each element along `axis`, counted from the start of the dimension (i64)."""

    axis: str


@dataclass(frozen=True)
class Load:
    """The elements of a tensor or buffer at `ref`."""

    ref: Ref


@dataclass(frozen=True)
class Map:
    """`op` applied element by element to `args`; the op `cast` takes its target from the type."""

    op: str
    args: tuple[str, ...]


@dataclass(frozen=True)
class Reduce:
    """`op` (sum, max, min) of `arg` over `axis`."""

    op: str
    arg: str
    axis: str


@dataclass(frozen=True)
class Dot:
    """Sum over `axis` of the products of `a` and `b`; accumulated in f32 (f64 for f64, i32 for i8).

    `precision` is "", or one of PRECISIONS: operands of f32 may then be taken with fewer bits, as its error there says.
    """

    a: str
    b: str
    axis: str
    precision: str = ""


@dataclass(frozen=True)
class Permute:
    """The same tile with its axes in the order of the type."""

    arg: str


Expr = Full | Coord | Load | Map | Reduce | Dot | Permute

# ----------------------------------------------------------------------------------------- statements


@dataclass(frozen=True)
class Let:
    """`name = expr : type`."""

    name: str
    type: TileType
    expr: Expr
    notes: Notes = ()


@dataclass(frozen=True)
class Assign:
    """`name := value`: the update of a tile that an enclosing block defined."""

    name: str
    value: str


@dataclass(frozen=True)
class Store:
    """`store ref = value`."""

    ref: Ref
    value: str
    notes: Notes = ()


@dataclass(frozen=True)
class Loop:
    """The body for every tile of the axes, outermost first; iterations in order unless `parallel`."""

    axes: tuple[Axis, ...]
    body: tuple[Stmt, ...]
    parallel: bool = False
    notes: Notes = ()


@dataclass(frozen=True)
class When:
    """The body, in those iterations of the loop over `axis` that `cond` names: first, last, not_first, not_last."""

    cond: str
    axis: str
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Alloc:
    """A buffer that lives as long as the enclosing block; where it lies is a note (`place`)."""

    name: str
    dtype: DType
    dims: tuple[Dim, ...]
    notes: Notes = ()


@dataclass(frozen=True)
class Copy:
    """`copy dst <- src`: both refs name the same axes; engine and layout change are notes."""

    dst: Ref
    src: Ref
    notes: Notes = ()


@dataclass(frozen=True)
class Sync:
    """Order between roles, stages or threads: `name` is the barrier, `action` what this one does to it."""

    name: str
    action: str
    notes: Notes = ()


@dataclass(frozen=True)
class Role:
    """The body is executed by a part of the machine only: a producer warp, a consumer warpgroup, a pipeline stage."""

    name: str
    body: tuple[Stmt, ...]
    notes: Notes = ()


Stmt = Let | Assign | Store | Loop | When | Alloc | Copy | Sync | Role


@dataclass(frozen=True)
class Kernel:
    """A program: parameters, statements, and notes about the whole (design, machine)."""

    name: str
    params: tuple[Param, ...]
    body: tuple[Stmt, ...]
    notes: Notes = ()
    # Where the author wrote each Let, Store and Loop, for messages; not part of the program's identity.
    lines: tuple[tuple[str, str, int], ...] = field(default=(), compare=False, repr=False)

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """Names of the symbolic sizes, in order of first use."""
        names = [d for p in self.params if p.dims for d in p.dims if isinstance(d, str)]
        return tuple(dict.fromkeys(names))

    def param(self, name: str) -> Param:
        """The parameter called `name`; KeyError if there is none."""
        for p in self.params:
            if p.name == name:
                return p
        raise KeyError(name)


def note(notes: Notes, key: str, default: Note | None = None) -> Note | None:
    """The value noted under `key`, or `default`."""
    return dict(notes).get(key, default)


def number(notes: Notes, key: str, default: int) -> int:
    """A note that is a number, or `default`."""
    value = note(notes, key, default)
    assert isinstance(value, int)
    return value


def with_notes(notes: Notes, **more: Note) -> Notes:
    """`notes` with `more` set, in canonical (sorted) order."""
    return tuple(sorted({**dict(notes), **more}.items()))


def blocks(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements inside `stmt`; none for a leaf."""
    return stmt.body if isinstance(stmt, (Loop, When, Role)) else ()


def walk(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement of `body`, outer before inner, in order."""
    for stmt in body:
        yield stmt
        yield from walk(blocks(stmt))


def operands(expr: Expr) -> tuple[str, ...]:
    """Names of the values that `expr` reads (an index that is an axis or a dim counts too; callers know which)."""
    match expr:
        case Map(_, args):
            return args
        case Reduce(_, arg, _) | Permute(arg):
            return (arg,)
        case Dot(a, b, _):
            return (a, b)
        case Load(ref):
            return tuple(i for i in ref.index if isinstance(i, str))
        case Full(value):
            return (value,) if isinstance(value, str) else ()
        case _:
            return ()


# Elementwise operators: name -> number of operands. `select c x y` is x where c, else y.
MAPS: dict[str, int] = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "max": 2, "min": 2, "mod": 2,
    "neg": 1, "abs": 1, "exp": 1, "exp2": 1, "log": 1, "sqrt": 1, "rsqrt": 1, "tanh": 1, "sigmoid": 1, "erf": 1,
    "lt": 2, "le": 2, "gt": 2, "ge": 2, "eq": 2, "ne": 2, "and": 2, "or": 2, "not": 1,
    "select": 3, "cast": 1,
}  # fmt: skip
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
LOGICAL = frozenset({"and", "or", "not"})
FLOAT_ONLY = frozenset({"exp", "exp2", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "erf"})
REDUCTIONS = ("sum", "max", "min")
PRECISIONS = {"tf32": 2.0**-10}
"""What a dot of f32 may take its operands with, and how far an operand may then be off, as a share of it: tf32 has ten
bits of mantissa, and may drop the others."""
CONDITIONS = ("first", "last", "not_first", "not_last")
