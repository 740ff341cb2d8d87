"""The printed text of a program: the grammar of `ir`, one statement a line, blocks indented by two spaces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tilewright.language import ir

# Words of the grammar that a name must not be, or the text could be read in two ways.
KEYWORDS = frozenset({"each", "in", "from", "to", "step", "apart", "over", "parallel", "true", "false", "inf", "nan"})
_BARE_WORD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z", re.ASCII)
INDENT = "  "


def show(program: ir.Kernel | ir.Stmt) -> str:
    """The text of a kernel or of a single statement; `parser.parse(show(kernel)) == kernel`."""
    if isinstance(program, ir.Kernel):
        return "\n".join(_kernel(program)) + "\n"
    return "\n".join(_stmt(program, ""))


def head(stmt: ir.Stmt) -> str:
    """The first line of a statement, without the block it opens: what messages quote."""
    return next(iter(_stmt(stmt, ""))).removesuffix(" {")


def show_ref(ref: ir.Ref) -> str:
    """`buffer[index, ...]`."""
    return f"{ref.buffer}[{_commas(ref.index)}]"


def show_type(tile_type: ir.TileType) -> str:
    """`dtype[axis, ...]`; a scalar has empty brackets."""
    return f"{tile_type.dtype}[{_commas(tile_type.axes)}]"


def show_expr(expr: ir.Expr) -> str:
    """The right-hand side of a Let, without its type."""
    match expr:
        case ir.Full(value):
            return f"full {_atom(value)}"
        case ir.Coord(axis):
            return f"coord {axis}"
        case ir.Load(ref):
            return f"load {show_ref(ref)}"
        case ir.Map(op, args):
            return " ".join((op, *args))
        case ir.Reduce(op, arg, axis):
            return f"reduce {op} {arg} over {axis}"
        case ir.Dot(a, b, axis, precision):
            return f"dot {a} {b} over {axis}{f' as {precision}' if precision else ''}"
        case ir.Permute(arg):
            return f"permute {arg}"


def _kernel(kernel: ir.Kernel) -> Iterator[str]:
    params = ", ".join(map(_param, kernel.params))
    yield f"kernel {kernel.name}({params}){_notes(kernel.notes)} {{"
    for stmt in kernel.body:
        yield from _stmt(stmt, INDENT)
    yield "}"


def _param(param: ir.Param) -> str:
    brackets = "" if param.dims is None else f"[{_commas(param.dims)}]"
    return f"{param.name}: {param.dtype}{brackets}"


def _stmt(stmt: ir.Stmt, indent: str) -> Iterator[str]:
    match stmt:
        case ir.Let(name, tile_type, expr, notes):
            yield f"{indent}{name} = {show_expr(expr)} : {show_type(tile_type)}{_notes(notes)}"
        case ir.Assign(name, value):
            yield f"{indent}{name} := {value}"
        case ir.Store(ref, value, notes):
            yield f"{indent}store {show_ref(ref)} = {value}{_notes(notes)}"
        case ir.Alloc(name, dtype, dims, notes):
            yield f"{indent}alloc {name}: {dtype}[{_commas(dims)}]{_notes(notes)}"
        case ir.Copy(dst, src, notes):
            yield f"{indent}copy {show_ref(dst)} <- {show_ref(src)}{_notes(notes)}"
        case ir.Sync(name, action, notes):
            yield f"{indent}sync {name} {action}{_notes(notes)}"
        case ir.Loop(axes, body, parallel, notes):
            word = " parallel" if parallel else ""
            yield from _block(f"for {', '.join(map(_axis, axes))}{word}{_notes(notes)}", body, indent)
        case ir.When(cond, axis, body):
            yield from _block(f"when {cond}({axis})", body, indent)
        case ir.Role(name, body, notes):
            yield from _block(f"role {name}{_notes(notes)}", body, indent)


def _block(opening: str, body: tuple[ir.Stmt, ...], indent: str) -> Iterator[str]:
    yield f"{indent}{opening} {{"
    for stmt in body:
        yield from _stmt(stmt, indent + INDENT)
    yield f"{indent}}}"


def _axis(axis: ir.Axis) -> str:
    words = ["each"] if axis.each else []
    words += [axis.name, "in", axis.over]
    for word, bound in (("from", axis.start), ("to", axis.stop), ("step", axis.step)):
        if bound is not None:
            words += [word, str(bound)]
    if axis.apart != 1:
        words += ["apart", str(axis.apart)]
    return " ".join(words)


def _commas(parts: tuple[str | int, ...]) -> str:
    return ", ".join(map(str, parts))


def _atom(value: ir.Atom) -> str:
    if isinstance(value, str):
        return value
    return repr(int(value)) if isinstance(value, bool) else repr(value)


def _notes(notes: ir.Notes) -> str:
    return "".join(f" @{key}={_note(value)}" for key, value in notes)


def _note(value: ir.Note) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_note, value))})"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    bare = _BARE_WORD.match(value) and not KEYWORDS & set(value.split("."))
    return value if bare else json.dumps(value)
