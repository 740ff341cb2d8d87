"""A dataflow machine as the judge of designs: the time of their metapipelines, after a check of the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from tilewright.design.design import Design
from tilewright.design.legality import check
from tilewright.errors import ArgumentError, IllegalDesign, VerificationError
from tilewright.lower.dataflow.fit import check_fit
from tilewright.lower.dataflow.shown import Needs, check_shown
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines.dataflow import DataflowArray
from tilewright.machines.machine import Machine
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.subject import Subject, named, program_named
from tilewright.simulate.dataflow.place import completed
from tilewright.simulate.dataflow.timing import Timing
from tilewright.simulate.dataflow.values import MOST_FIRINGS, firings, verified
from tilewright.simulate.judge import Judge, few_tiles

_TILE = 64  # points of a tile in the check of values: larger ones show nothing more


def subject_on(machine: Machine, program: str, sizes: Mapping[str, int], dtype: str | None) -> Subject:
    """The program at its sizes; ArgumentError where sizes are missing, unknown or 0."""
    tile = program_named(program)
    dtypes = dtypes_of(tile, dtype or "bf16")
    missing = [d for d in tile.trace(dtypes).dims if d not in sizes]
    if missing:
        raise ArgumentError(f"{program} needs its sizes: {' '.join(f'{d}=..' for d in missing)}")
    return Subject.of(named(program), sizes, dtypes, machine=machine, threads=1)


def scheduled(subject: Subject, design: Design) -> Timing:
    """The timing of a legal design that fits; IllegalDesign with the reasons for any other."""
    array = DataflowArray.of(subject.machine)
    check(subject.kernel, design, subject.facts)
    lowered = lower_dataflow(subject.kernel, design, array.name)
    check_shown(lowered, design)
    check_fit(lowered, subject.sizes, array)
    return Timing(lowered, subject.sizes, array)


@dataclass
class DataflowJudge(Judge):
    """Seconds by event simulation of the stages; values by executing them in that order, in few tiles."""

    _whole: dict[Design, Design] = field(default_factory=dict)

    @cached_property
    def _needs(self) -> Needs:
        return Needs(self.subject.kernel)

    @cached_property
    def array(self) -> DataflowArray:
        """The machine's numbers."""
        return DataflowArray.of(self.subject.machine)

    def completed(self, design: Design) -> Design:
        """With tiles, copies and units where they are open, without what changes nothing; as it is if nothing fits."""
        if design not in self._whole:
            try:
                placed = completed(self.subject.kernel, self.subject.sizes, self.array, self._needs.of(design))
            except IllegalDesign:
                placed = design
            self._whole[design] = self._whole[placed] = placed
        return self._whole[design]

    def simulated(self, design: Design) -> float:
        """Seconds of all stages at the subject's sizes."""
        return scheduled(self.subject, design).whole().cycles / self.array.clock_hz

    def check_values(self, design: Design) -> None:
        """The same tiles, a few along each axis, ragged at the end; VerificationError where a value is wrong."""
        timing = scheduled(self.subject, design)
        sizes = few_tiles(self.subject.kernel, timing.kernel, self.subject.sizes, _TILE)
        small = Timing(timing.kernel, sizes, self.array)
        if firings(small, small.kernel.body, {}) > MOST_FIRINGS:
            raise VerificationError(
                f"values were not computed: stages fire more than {MOST_FIRINGS} times in few tiles"
            )
        verified(replace(self.subject, sizes=sizes), small, self.seed)


__all__ = ["DataflowJudge", "scheduled", "subject_on"]
