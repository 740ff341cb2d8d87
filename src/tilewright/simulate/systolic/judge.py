"""A simulated array as the judge of designs: what a search asks is answered in cycles, after a check of the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tilewright.design.design import Design
from tilewright.design.legality import check
from tilewright.design.systolic.shape import shape
from tilewright.errors import IllegalDesign, VerificationError
from tilewright.language import ir, structure
from tilewright.language.dtypes import dtype as dtype_of
from tilewright.language.program import TileProgram
from tilewright.lower.systolic.stages import lower_systolic
from tilewright.machines.machine import Machine
from tilewright.operators import Exact
from tilewright.runtime import tolerance
from tilewright.runtime.checks import expected
from tilewright.runtime.compiled import dtypes_of
from tilewright.runtime.inputs import draw, written
from tilewright.runtime.subject import Subject, named, program_named
from tilewright.simulate.judge import Judge
from tilewright.simulate.systolic.closed import closed_form
from tilewright.simulate.systolic.plan import Plan, plan
from tilewright.simulate.systolic.stepped import run_stepped

MOST_STEPPED = 1 << 28
"""Steps of cells that a check with values takes at most: a cube of 512 on any array that is not tiny."""

_SMALL = 3  # a check of larger problems has so many tiles along each axis, the last of them ragged


def subject_on(machine: Machine, program: str, sizes: Mapping[str, int], dtype: str | None) -> Subject:
    """The program at its sizes, with the types that the array multiplies and adds up unless `dtype` says otherwise.

    IllegalDesign for a program that is no product.
    """
    found, tile = named(program), program_named(program)
    if isinstance(reason := shape(tile.trace(dtypes_of(tile, "f32"))), str):
        raise IllegalDesign(f"{program} does not run on the array of {machine.name}: {reason}")
    return Subject.of(found, sizes, _dtypes(tile, dtype or machine.atoms[0].dtype), machine=machine, threads=1)


def _dtypes(tile: TileProgram, operand: str) -> dict[str, str]:
    """The operands' type, and i32 for what is added up from i8."""
    names = dtypes_of(tile, "f32")
    results = written(tile.trace(names)) if operand == "i8" else ()
    own = {p.name: p.spec.dtype for p in tile.signature.params}
    return {n: str(own[n] or ("i32" if n in results else operand)) for n in names}


def planned(subject: Subject, design: Design) -> tuple[ir.Kernel, Plan]:
    """The scheduled program of a legal design, and what it makes the array do; IllegalDesign with the reasons."""
    check(subject.kernel, design, subject.facts)
    scheduled = lower_systolic(subject.kernel, design, subject.facts)
    return scheduled, plan(scheduled, subject.sizes, subject.machine)


# --------------------------------------------------------------------------------------------- values
def verified(subject: Subject, design: Design, seed: int = 0) -> int:
    """The cycles that the array took when it was stepped with values, which agree with the reference.

    VerificationError where they do not, or where the closed form counts other cycles.
    """
    scheduled, found = planned(subject, design)
    operands = draw(subject.kernel, subject.sizes, seed=seed, updates=subject.updates)
    exact = expected(subject, operands)
    cycles = run_stepped(scheduled, found, operands.tensors, operands.scalars)
    for name, value in exact.items():
        actual = operands.tensors[name]
        tolerance.check(name, actual, _whole(value) if dtype_of(actual.dtype).kind == "int" else value)
    if cycles != closed_form(found):
        raise VerificationError(f"{cycles} cycles were stepped, and the closed form counts {closed_form(found)}")
    return cycles


def _whole(exact: Exact) -> Exact:
    return Exact(np.asarray(exact.value).astype(np.int64), exact.magnitude, exact.terms)


def stepped_cost(found: Plan) -> int:
    """Steps of cells that a run with values takes."""
    return closed_form(found) * found.array.rows * found.array.columns


# --------------------------------------------------------------------------------------------- search
@dataclass
class ArrayJudge(Judge):
    """Cycles by the closed form; values, cycle by cycle, on a smaller problem of the same tiles."""

    def simulated(self, design: Design) -> float:
        """Seconds by the closed form, with nothing run."""
        _, found = planned(self.subject, design)
        return closed_form(found) / found.array.clock_hz

    def check_values(self, design: Design) -> None:
        """Step a few tiles along each axis; VerificationError or AccumulatorOverflow where values are wrong."""
        verified(self._small(planned(self.subject, design)[1]), design, self.seed)

    def _small(self, found: Plan) -> Subject:
        """The same program with few tiles along each axis, ragged at the end."""
        axes, sizes = structure.axes(self.subject.kernel), dict(self.subject.sizes)
        for name, tile in zip(found.axes, found.tiles, strict=True):
            sizes[axes[name].over] = min(sizes[axes[name].over], (_SMALL - 1) * min(tile, 64) + 5)
        for axis in axes.values():
            if axis.each:
                sizes[axis.over] = min(sizes[axis.over], 2)
        return replace(self.subject, sizes=sizes)
