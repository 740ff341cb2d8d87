"""Which kernel would run for an operator at some sizes, and why: the answer of the dispatcher itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.operators import OPERATORS
from tilewright.ops.backend import bind
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject
from tilewright.runtime.table import TABLE, Row


@dataclass(frozen=True)
class Answer:
    """The row that a call belongs to, and the design of the kernel that answers it."""

    row: Row
    design: str
    decisions: tuple[tuple[str, Any], ...]

    def text(self) -> str:
        """For people."""
        which = "the generic kernel" if self.row.design is None else "a specialised kernel"
        decisions = "\n".join(f"  {name} = {choice}" for name, choice in self.decisions)
        because = f"because: {self.row.state}: {self.row.reason}"
        return f"{self.row.shape}: {which}, design {self.design}\n{because}\n{decisions}"

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "shape": str(self.row.shape),
            "state": self.row.state,
            "reason": self.row.reason,
            "specialised": self.row.design is not None,
            "design": self.design,
            "decisions": dict(self.decisions),
        }


def why(operator: str, sizes: Mapping[str, int], dtype: str, options: Mapping[str, Any] | None = None) -> Answer:
    """Bind, and do not run, such a call by this environment's mode and book. ArgumentError for an unknown operator."""
    subject = Subject.of(operator, sizes, dtype, options=options)
    operands = draw(subject.kernel, subject.sizes, seed=0, updates=subject.updates)
    buffers = {name: Buffer.of(x) for name, x in operands.tensors.items()}
    launch: Any = bind(OPERATORS[operator], buffers, operands.scalars, dict(subject.options))
    design = launch.kernel.design
    return Answer(TABLE.why(operator, **subject.sizes)[0], design.hash, design.decisions)


__all__ = ["Answer", "why"]
