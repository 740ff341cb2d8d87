"""Changes of a design for a dataflow machine; what follows from a change is left open, to be placed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.design.design import Choice, Design
from tilewright.design.mutation import Illegal, Named


@dataclass(frozen=True)
class Retile(Named):
    """Another number of points of an axis in one tile: more of them take more memory, fewer run more firings.

    before:  for m in M step 64 { alloc x_buf[m, N]; ... }       tile.m=64
    after:   for m in M step 128 { alloc x_buf[m, N]; ... }      tile.m=128
    """

    axis: str
    points: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `tile.AXIS=points`; copies and units are left open."""
        if self.points < 1:
            return Illegal(f"a tile of {self.axis} has at least one point, not {self.points}")
        return _changed(design, {f"tile.{self.axis}": self.points}, ("par", "units"))


@dataclass(frozen=True)
class Deal(Named):
    """A copy of the pipeline takes more or fewer points of a parallel axis: fewer points, more copies.

    before:  for m_0 in M step 512 parallel @bind=core { for m in m_0 step 64 { ... } }      par.m=512
    after:   for m_0 in M step 256 parallel @bind=core { for m in m_0 step 64 { ... } }      par.m=256
    """

    axis: str
    points: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `par.AXIS=points`; units are left open."""
        return _changed(design, {f"par.{self.axis}": self.points}, ("units",))


@dataclass(frozen=True)
class SetDepth(Named):
    """More or fewer slots for a value that crosses stages: with more, its maker runs further ahead.

    before:  alloc x_buf[m, k] @stages=2
    after:   alloc x_buf[m, k] @stages=4      stages.x=4
    """

    value: str
    slots: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `stages.VALUE=slots`."""
        if self.slots < 1:
            return Illegal(f"a buffer of {self.value} has at least one slot, not {self.slots}")
        return _changed(design, {f"stages.{self.value}": self.slots}, ())


@dataclass(frozen=True)
class Cut(Named):
    """A stage ends at a value, so that what follows works on the next tile at the same time; or it goes on.

    before:  role y { e = exp x; t = mul e w; store y[m, d] = t }
    after:   role e { e = exp x; store e_buf[m, d] = e };  role y { e_1 = load e_buf[m, d]; ... }      buffer.e=True
    """

    value: str
    wanted: bool

    def apply(self, design: Design) -> Design | Illegal:
        """The design with or without `buffer.VALUE`; units are left open."""
        return _changed(design, {f"buffer.{self.value}": True if self.wanted else None}, ("units",))


@dataclass(frozen=True)
class Carry(Named):
    """What a loop carries belongs to one stage, or lies in a buffer that many stages read.

    before:  role acc { ...; acc := t }                               carry.acc=owner
    after:   alloc acc_buf[m, n];  role acc { ...; store acc_buf[m, n] = t }      carry.acc=buffer
    """

    value: str
    how: str

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `carry.VALUE=how`; units are left open."""
        return _changed(design, {f"carry.{self.value}": self.how}, ("units",))


@dataclass(frozen=True)
class GiveUnits(Named):
    """Compute units go from one stage to another, which then takes less time for a tile (row_par).

    before:  role x @units=16;  role y @units=16
    after:   role x @units=8;  role y @units=24      units.x=8  units.y=24
    """

    giver: str
    taker: str
    count: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `count` units of the one given to the other."""
        left = design.number(f"units.{self.giver}", 1) - self.count
        if left < 1 or self.giver == self.taker:
            return Illegal(f"stage {self.giver} cannot give {self.count} units to {self.taker}")
        more = design.number(f"units.{self.taker}", 1) + self.count
        return _changed(design, {f"units.{self.giver}": left, f"units.{self.taker}": more}, ())


@dataclass(frozen=True)
class SetUnits(Named):
    """More or fewer compute units for one stage.

    before:  role y @units=16
    after:   role y @units=32      units.y=32
    """

    stage: str
    count: int

    def apply(self, design: Design) -> Design | Illegal:
        """The design with `units.STAGE=count`."""
        if self.count < 1:
            return Illegal(f"stage {self.stage} has at least one unit, not {self.count}")
        return _changed(design, {f"units.{self.stage}": self.count}, ())


def _changed(design: Design, changes: Mapping[str, Choice | None], opened: tuple[str, ...]) -> Design | Illegal:
    """The design with `changes`, None dropping a decision, and without decisions of the kinds `opened`."""
    kept = {n: c for n, c in design.decisions if n.partition(".")[0] not in opened}
    result = Design.of({n: c for n, c in {**kept, **changes}.items() if c is not None})
    same = all(design.get(name) == choice for name, choice in changes.items())
    return Illegal(f"{', '.join(changes)}: the design has it so already") if same else result
