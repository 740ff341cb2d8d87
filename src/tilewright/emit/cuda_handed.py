"""States of blocks handed to the last block of a tile as words that tell whether they are there (`tw/handed.cuh`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.emit.abi import Extent, Reserve
from tilewright.emit.cuda_abi import Scratch
from tilewright.emit.cuda_layouts import Layouts, Spread
from tilewright.emit.cuda_values import Values
from tilewright.errors import IllegalDesign
from tilewright.language import ir

SLOTS = "handed"


@dataclass(frozen=True)
class Handed:
    """The states of a part, as threads of a block hold them; so many parts are looked at at once."""

    states: tuple[ir.Let, ...]
    layouts: Layouts
    threads: int
    round: int

    @property
    def words(self) -> int:
        """That a thread holds."""
        return sum(math.prod(self._registers(a) for a in let.type.axes) for let in self.states)

    def _registers(self, axis: str) -> int:
        spread = self.layouts.of[axis]
        if not isinstance(spread, Spread):
            raise IllegalDesign(f"join: {axis} lies along threads in no simple way; drop the decision")
        return spread.groups * spread.run

    def scratch(self, slots: Sequence[Extent]) -> Scratch:
        """Memory for the states of all parts of all tiles."""
        return Scratch(Reserve(SLOTS, 4 * self.words * self.threads, tuple(slots)), zeroed=True)

    def ask(self, values: Values, number: str, parts: str) -> None:
        """The last part asks for the slots of the others while it has other work: from there on they are in L2."""
        each = self.words * self.threads
        values.out.line(f"if (part + 1 == {parts}) tw::ask({self._slot(number)}, ({parts} - 1) * {each});")

    def give(self, values: Values, number: str, own: Sequence[str]) -> None:
        """The states `own` (C++) go to the slot `number`."""
        out = values.out
        out.line(f"tw::u32 state_words[{self.words}];")
        for at, x in zip(self._places(values), own, strict=True):
            out.line(f"tw::put<{at}>(state_words, {x});")
        out.line(f"tw::hand({self._slot(number)}, state_words, (int)threadIdx.x, {self.threads});")

    def take(self, values: Values, number: str, parts: str, join: str) -> None:
        """The states of the first `parts` parts (C++) of a tile whose slots begin at `number`, joined in order."""
        out = values.out
        with out.block(f"const auto take_in = [&](const tw::u32 (&w)[{self.words}])"):
            tiles = [values.tile(let.type) for let in self.states]
            got = (f"tw::got<{t}, {at}>(w)" for t, at in zip(tiles, self._places(values), strict=True))
            out.line(f"{join}({', '.join(got)});")
        out.line(";")
        call = f"tw::take_handed<{self.round}, {self.words}>"
        out.line(f"{call}({self._slot(number)}, {parts}, (int)threadIdx.x, {self.threads}, take_in);")

    def _places(self, values: Values) -> list[str]:
        """C++ of the word at which each state begins."""
        counts = [f"tw::words<{values.tile(let.type)}>" for let in self.states]
        return [" + ".join(counts[:n]) or "0" for n in range(len(counts))]

    def _slot(self, number: str) -> str:
        return f"{SLOTS} + (tw::i64){number} * {self.words * self.threads}"


__all__ = ["SLOTS", "Handed"]
