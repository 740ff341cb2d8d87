"""Which kernel would run for an operator at some sizes, and why: the answer of the dispatcher itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tilewright.knobs import knobs
from tilewright.machines.machine import Machine
from tilewright.observe.place import place
from tilewright.operators import Operator
from tilewright.operators.names import operator_name
from tilewright.ops.backend import bind
from tilewright.runtime.chosen import book_path, open_book
from tilewright.runtime.compiled import Named
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject, named
from tilewright.runtime.table import Row


@dataclass(frozen=True)
class Answer:
    """The row that a call belongs to, and the design of the kernel that answers it."""

    row: Row
    design: str
    decisions: tuple[tuple[str, Any], ...]
    book: str = ""
    """Why the book has no design for these very sizes here; empty where it has one, or is not asked."""

    def text(self) -> str:
        """For people."""
        which = "the generic kernel" if self.row.design is None else "a specialised kernel"
        decisions = "\n".join(f"  {name} = {choice}" for name, choice in self.decisions)
        because = f"because: {self.row.state}: {self.row.reason}" + (f"\nbook: {self.book}" if self.book else "")
        return f"{self.row.shape}: {which}, design {self.design}\n{because}\n{decisions}"

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "shape": str(self.row.shape),
            "state": self.row.state,
            "reason": self.row.reason,
            "specialised": self.row.design is not None,
            "design": self.design,
            "book": self.book,
            "decisions": dict(self.decisions),
        }


def why(
    operator: str,
    sizes: Mapping[str, int],
    dtype: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Answer:
    """Bind, and do not run, such a call on `device` (cpu, cuda, cuda:1).

    By this environment's mode and book. `dtype` is that of the tensors: where none is given, bf16 on a GPU and f32 on
    a CPU.

    `operator` is a name (`linear` is that of matmul), or `file.py:name` of a program of one's own, as `tw.launch` runs
    it. A kernel that no cache holds is compiled for it, as for the call itself. ArgumentError for an unknown operator
    or device; MachineError for a GPU that is not there.
    """
    there = place(device)
    element = dtype or (there.machine or Machine.detect()).usual_dtype
    found = named(operator)
    subject = Subject.of(found, sizes, element, options=options, machine=there.machine)
    operands = draw(subject.kernel, subject.sizes, seed=0, updates=subject.updates)
    buffers = there.buffers(operands.tensors)
    called: Any = found if isinstance(found, Operator) else Named(found.name, found)
    launch: Any = bind(called, buffers, operands.scalars, dict(subject.options))
    launch = getattr(launch, "launch", launch)  # from DEBUG=2 on a CPU's launches are timed
    design = launch.kernel.design
    row = _explained(launch.slot.row(), operator)
    return Answer(row, design.hash, design.decisions, "" if row.design or launch.slot.fixed else _missed(subject))


def _explained(row: Row, operator: str) -> Row:
    """The row; where nothing was called here, its reason says what would bring a better kernel."""
    if row.state != "generic" or row.calls or knobs().mode != "learn":
        return row
    asked = " ".join((operator_name(operator), *(f"{d}={n}" for d, n in row.sizes)))
    return replace(row, reason=f"nobody asked for more: `tilewright design {asked}` does, or a program in learn mode")


def _missed(subject: Subject) -> str:
    """What the book knows that is most like it, and in what that differs."""
    settings = knobs()
    if settings.mode == "generic" or book_path() is None:
        return "not asked"
    near = open_book().nearest(subject.key(numerics=settings.numerics))
    if near is None:
        return f"nothing is known of {subject.kernel.name}"
    record, differs = near
    how = "verified here" if record.verified else "never verified here"
    where = f"differs in {', '.join(differs)}" if differs else "has this very key"
    return f"no design for this key; the nearest, of {record.key.label}, {where} and was {how}"


__all__ = ["Answer", "why"]
