"""Changes of a design for a systolic array."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.design.design import Choice, Design
from tilewright.design.mutation import Illegal


@dataclass(frozen=True)
class HoldStill:
    """Another operand stands still in the cells, with the tiles that go with it; the others stream past it.

    before:  copy wt[k, n] <- fifo[k, n];  x = load ub[m, k]      stationary=b
    after:   copy wt[m, k] <- fifo[m, k];  x = load ub[n, k]      stationary=a
    """

    decisions: tuple[tuple[str, Choice], ...]

    def __str__(self) -> str:
        return f"HoldStill({dict(self.decisions)['stationary']})"

    def apply(self, design: Design) -> Design | Illegal:
        """The design that holds that operand."""
        held = dict(self.decisions)["stationary"]
        if design.get("stationary") == held:
            return Illegal(f"{held} stands still already")
        return Design(self.decisions)


@dataclass(frozen=True)
class SetStages:
    """More or fewer tiles lie ready: in the queue (`stages.fifo`), in the cells (`array`), of sums (`acc`).

    before:  alloc wt @place=array @stages=1      a tile is shifted in when the one before has drained
    after:   alloc wt @place=array @stages=2      a tile is shifted in while the one before computes
    """

    name: str
    count: int

    def __str__(self) -> str:
        return f"SetStages({self.name}, {self.count})"

    def apply(self, design: Design) -> Design | Illegal:
        """The design with that many."""
        if self.count < 1:
            return Illegal(f"{self.name} is at least 1, not {self.count}")
        changed = Design.of({**dict(design.decisions), self.name: self.count})
        return Illegal(f"{self.name} is {self.count} already") if changed == design else changed
