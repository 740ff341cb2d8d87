"""A GPU by model as the judge of designs: seconds by the cost model, values by the interpreter; no GPU is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tilewright.design.cost import estimate
from tilewright.design.design import Design
from tilewright.design.gpu.packing import as_packed, packed, without_packs
from tilewright.design.legality import check
from tilewright.language import interpreter, ir
from tilewright.lower.gpu.stages import lower_gpu
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance
from tilewright.runtime.checks import expected
from tilewright.runtime.inputs import draw
from tilewright.runtime.subject import Subject
from tilewright.simulate.judge import Judge, few_tiles

_TILE = 64  # points of a tile in the check of values: larger ones show nothing more


def subject_on(machine: Machine, program: str, sizes: Mapping[str, int], dtype: str | None) -> Subject:
    """The program at its sizes, in bf16 unless `dtype` says otherwise; ArgumentError as `Subject.of`."""
    return Subject.of(program, sizes, dtype or "bf16", machine=machine, threads=1)


@dataclass
class ModelJudge(Judge):
    """Seconds of one launch with operands that are not in L2; what a design packs is packed before, and counts."""

    def simulated(self, design: Design) -> float:
        """Seconds by the cost model."""
        subject = self.subject
        return estimate(subject.kernel, check(subject.kernel, design, subject.facts), subject.facts).seconds

    def check_values(self, design: Design) -> None:
        """The scheduled program, interpreted on few tiles along each axis; VerificationError where a value is wrong."""
        scheduled = self._scheduled(design)
        sizes = few_tiles(self.subject.kernel, scheduled, self.subject.sizes, _TILE)
        subject = replace(self.subject, sizes=sizes)
        operands = draw(subject.kernel, sizes, seed=self.seed, updates=subject.updates)
        exact = expected(subject, operands)
        interpreter.run(scheduled, operands.tensors, operands.scalars, steps=_TILE)
        for name, value in exact.items():
            tolerance.check(name, operands.tensors[name], value)

    def _scheduled(self, design: Design) -> ir.Kernel:
        facts = as_packed(self.subject.kernel, self.subject.facts, packed(design))
        return lower_gpu(self.subject.kernel, without_packs(design), facts)


__all__ = ["ModelJudge", "subject_on"]
