"""The edges of the design graph as values: named changes of one decision, or of a few that must move together.

`mutation.apply(design)` gives the changed design, or says why there is none. A mutation knows nothing of the
program, whose meaning it never changes, up to the rounding of sums; `mutations.neighbours` derives from a program
those whose results are legal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from tilewright.design.design import Choice, Design


@dataclass(frozen=True)
class Illegal:
    """Why a mutation leads nowhere from a design."""

    reason: str


class Mutation(Protocol):
    """A named, frozen, hashable change of a design; its text is its name and values, as in `SetTile(m, 6)`."""

    def apply(self, design: Design) -> Design | Illegal:
        """The changed design; Illegal where it would be the same design, or none."""
        ...


class Named:
    """A mutation as reports write it."""

    def __str__(self) -> str:
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(map(_shown, values))})"


def _shown(value: object) -> str:
    return f"({', '.join(map(_shown, value))})" if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Together(Named):
    """Several changes of decisions that must move together, one after the other.

    before:  tile.m=4  tile.n=32
    after:   tile.m=8  tile.n=16      Together((SetTile(m, 8), SetTile(n, 16)))
    """

    parts: tuple[Mutation, ...]

    def apply(self, design: Design) -> Design | Illegal:
        """The design after all parts; a part that changes nothing is passed over."""
        result, found = design, Illegal("nothing is to be changed")
        for part in self.parts:
            after = part.apply(result)
            if isinstance(after, Design):
                result = after
            else:
                found = after
        return found if result == design else result


def changed(design: Design, changes: Mapping[str, Choice | None]) -> Design | Illegal:
    """The design with `changes`, None dropping a decision; Illegal where nothing is changed."""
    decisions: dict[str, Choice | None] = {**dict(design.decisions), **changes}
    result = Design.of({name: choice for name, choice in decisions.items() if choice is not None})
    if result == design:
        return Illegal(f"{', '.join(changes)}: the design has it so already")
    return result


__all__ = ["Illegal", "Mutation", "Named", "Together", "changed"]
