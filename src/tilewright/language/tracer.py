"""The state of one trace: the blocks being filled, the names in use, and where the author is.

The author's function runs once, as plain Python. Each operation on a handle emits a statement here, in
program order, so a value that was read before an update keeps what it had.
"""

from __future__ import annotations

import linecache
import sys
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from tilewright.errors import LanguageError
from tilewright.language import ir
from tilewright.language.printer import KEYWORDS, show_ref

_FOLDER = str(Path(__file__).parent)
_CURRENT: ContextVar[Trace | None] = ContextVar("tilewright_trace", default=None)


@dataclass(eq=False)
class Block:
    """A block being filled: the root of the kernel, or the body of a loop over `axes`."""

    axes: tuple[ir.Axis, ...] = ()
    parallel: bool = False
    opened_at: tuple[str, int] = ("", 0)
    stmts: list[ir.Stmt] = field(default_factory=list)
    # Pure expressions already emitted here, with the handle of their value.
    seen: dict[tuple[ir.Expr, ir.TileType], Any] = field(default_factory=dict)


class Trace:
    """One run of an author's function under observation."""

    def __init__(self, name: str, params: tuple[ir.Param, ...]) -> None:
        self.name = name
        self.params = params
        self.dims = ir.Kernel(name, params, ()).dims
        self.blocks = [Block()]
        self.stores: list[ir.Ref] = []
        self.lines: list[tuple[str, str, int]] = []
        self.axes: dict[str, ir.Axis] = {}
        self.sizes: dict[str, str] = {}
        self._names = {p.name for p in params} | set(self.dims) | KEYWORDS | {name}
        self._counts: dict[str, int] = {}

    @staticmethod
    def current() -> Trace:
        """The trace that is running; LanguageError outside a @kernel function."""
        trace = _CURRENT.get()
        if trace is None:
            fail(LanguageError, "tiles exist only while a kernel is traced; move this into a @kernel function")
        return trace

    def __enter__(self) -> Trace:
        self._token = _CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._token)

    def fresh(self, base: str, *, numbered: bool = True) -> str:
        """An unused name from `base`: `base0`, `base1` ...; plain `base` first where not `numbered`."""
        if not numbered and base not in self._names:
            self._names.add(base)
            return base
        base += "_" * base[-1].isdigit()
        count = self._counts.get(base, 0 if numbered else 1)
        while f"{base}{count}" in self._names:
            count += 1
        self._counts[base] = count + 1
        self._names.add(f"{base}{count}")
        return f"{base}{count}"

    def fresh_axis(self, dim: str) -> str:
        """`k` for K, `k1` for a second loop over K; `ib` where a parameter is called b."""
        letter = dim[0].lower()
        taken = letter in self.dims or letter == self.name or any(p.name == letter for p in self.params)
        return self.fresh(f"i{letter}" if taken else letter, numbered=False)

    def emit(self, stmt: ir.Stmt) -> None:
        """Append `stmt` to the innermost block and note the author's line."""
        self.blocks[-1].stmts.append(stmt)
        if isinstance(stmt, ir.Let):
            self.lines.append((stmt.name, *where()))
            if isinstance(stmt.expr, ir.Full) and stmt.expr.value in self.dims:
                self.sizes[stmt.name] = str(stmt.expr.value)
        elif isinstance(stmt, ir.Store):
            self.lines.append((show_ref(stmt.ref), *where()))

    def open(self, axes: tuple[ir.Axis, ...], parallel: bool) -> Block:
        """Start the body of a loop; statements go there until `close`."""
        block = Block(axes, parallel, where())
        self.axes.update((axis.name, axis) for axis in axes)
        self.lines.append((axes[0].name, *block.opened_at))
        self.blocks.append(block)
        return block

    def close(self, block: Block) -> None:
        """End the body of a loop and append the loop to the block around it."""
        if self.blocks[-1] is not block:
            self._left_early(self.blocks[-1])
        self.blocks.pop()
        if block.stmts:
            self.blocks[-1].stmts.append(ir.Loop(block.axes, tuple(block.stmts), block.parallel))

    def finish(self) -> ir.Kernel:
        """The traced kernel; LanguageError if a loop was left early or nothing is stored."""
        if len(self.blocks) > 1:
            self._left_early(self.blocks[-1])
        if not self.stores:
            raise LanguageError(f"kernel {self.name!r} stores nothing; write its result with `tensor[...] = value`")
        return ir.Kernel(self.name, self.params, tuple(self.blocks[0].stmts), lines=tuple(self.lines))

    @staticmethod
    def _left_early(block: Block) -> NoReturn:
        message = (
            f"the loop over {block.axes[0].over} was left by `break` or `return`; its body stands for every "
            "iteration, so run it to its end and bound the loop with start= or stop="
        )
        fail(LanguageError, message, block.opened_at)


def where() -> tuple[str, int]:
    """File and line of the innermost frame outside this package: the author's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOLDER):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def fail(kind: type[LanguageError], message: str, at: tuple[str, int] | None = None) -> NoReturn:
    """Raise `kind` with the author's `file:line`, `message` and the source line."""
    file, line = at or where()
    source = linecache.getline(file, line).strip()
    raise kind(f"{file}:{line}: {message}" + (f"\n    {source}" if source else ""))


def author_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """`traceback` without the frames of this package."""
    if traceback is None:
        return None
    rest = author_traceback(traceback.tb_next)
    if traceback.tb_frame.f_code.co_filename.startswith(_FOLDER):
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
