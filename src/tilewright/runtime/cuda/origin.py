"""What a slot is about on a GPU: a program, how its operands lie, and the kernels that may answer it there.

There are two kinds of generic kernels. While nobody learns, each class of sizes (powers of two) has one by the default
design for it, compiled when it is first met. Where a learner is at work, and in the modes `generic` and `frozen`, one
kernel of symbolic size answers every length, so that no length that is new waits for the compiler.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from tilewright.build.cuda_kernel import cached
from tilewright.build.kernel_cache import Request
from tilewright.design.book.record import Record
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.knobs import Knobs, knobs
from tilewright.runtime import modes
from tilewright.runtime.buckets import Exact, Place, Range, doubled, nearest_of
from tilewright.runtime.chosen import record_for
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.cuda.generic import ANY, any_length, lengths_of
from tilewright.runtime.cuda.kernel import GpuKernel
from tilewright.runtime.dispatch import Layouts, Program, told_of
from tilewright.runtime.table import Slot


@dataclass(frozen=True, eq=False)
class GpuOrigin:
    """A program on GPU `number`. `fixed` dims are constants of its generic kernels.

    `told` are sizes that a design is chosen by in place of the true ones (pinned numerics of models).
    """

    program: Program
    layouts: Layouts
    operator: Any
    options: tuple[tuple[str, object], ...]
    number: int
    fixed: tuple[str, ...] = ()
    told: tuple[tuple[str, int], ...] = ()

    @property
    def device(self) -> str:
        """As shapes name it."""
        return f"cuda:{self.number}"

    # ------------------------------------------------------------------------------------------- its slots
    ranges = staticmethod(doubled)
    """Tiles of products have so many rows that a kernel for one length is slow for twice that."""

    looks = True
    """Whether first looks are taken at its slots: the generic design for any length is rarely the default one."""

    def searched(self, slot: Slot) -> Exact:
        """The sizes that a search for a slot is made at: the one that was met, or the longest that it may meet.

        A kernel that has room for the longest serves all others of the range as fast; the other way round it does not.
        """
        if len(slot.met) == 1:
            return slot.common
        high = {d: n.high for d, n in slot.place if isinstance(n, Range) and d in lengths_of(self.program)}
        return tuple((d, high.get(d, n)) for d, n in slot.common)

    def key(self, place: Place, settings: Knobs) -> Hashable:
        """What tells its slots apart."""
        how = settings.mode == "generic", _one_for_all(settings), settings.numerics
        return self.program, self.layouts, place, self.number, self.fixed, how

    def listed(self) -> frozenset[Exact]:
        """The sizes that the book has designs for; it is read once for each program."""
        return gpu.listed(self.program, self.number, knobs().mode)

    def nearest(self, place: Place, sizes: Mapping[str, int]) -> list[Exact]:
        """Sizes in the book whose design may serve a place: these very ones, or any in its ranges after learning."""
        exact = tuple(sizes.items())
        if exact in self.listed() and not any(isinstance(n, Range) for _, n in place):
            return [exact]
        return nearest_of(place, sizes, self.listed()) if _one_for_all(knobs()) else []

    def record(self, sizes: dict[str, int]) -> Record | None:
        """What the book holds for these sizes."""
        return record_for(self.program.kernel, self._facts(sizes, sizes), 1)

    def _facts(self, sizes: Mapping[str, int], fixed: Mapping[str, int]) -> Facts:
        return gpu.facts_of(self.layouts, sizes, gpu.machine(self.number), fixed)

    # --------------------------------------------------------------------------------------------- kernels
    def generic(self, sizes: dict[str, int]) -> GpuKernel:
        """The generic kernel for these sizes."""
        return gpu.kernel_of(self.generic_request(sizes), self.number)

    def generic_design(self, sizes: dict[str, int]) -> Design:
        """Its design."""
        return self.generic_request(sizes).design

    def generic_request(self, sizes: Mapping[str, int]) -> Request:
        """What has to be built for it."""
        if not self.told and _one_for_all(knobs()):
            literal = tuple((d, sizes[d]) for d in sizes if d in self.program.whole or d in self.fixed)
            known = {**dict(self.program.significant(dict(sizes))), **dict(literal)}
            known |= dict.fromkeys(lengths_of(self.program) - {d for d, _ in literal}, ANY)
            return any_length(self.program, self.layouts, tuple(known.items()), literal, self.number)
        told = {**dict(self.program.significant(dict(sizes))), **dict(self.told)}
        known = {d: sizes[d] if d in self.fixed else n for d, n in told.items()}
        return gpu.request_for(self.program, self.layouts, tuple(known.items()), self.number, self.fixed)

    def request(self, sizes: Mapping[str, int], design: Design, constant: tuple[str, ...]) -> Request:
        """What has to be built for a design, with some sizes as constants of the machine code."""
        return gpu.requested(self.program, self.layouts, sizes, gpu.machine(self.number), design, constant)

    def load(self, place: Place, sizes: dict[str, int], design: Design, shared: bool = False) -> GpuKernel:
        """The kernel of a design: every size that its place fixes is a constant of the machine code.

        A place of exact sizes takes the kernel for them alone where that was compiled before, or nothing was learned.
        """
        settled, everything = self.constant(place), tuple(sizes)
        if not any(isinstance(n, Range) for _, n in place):
            alone = self.request(sizes, design, everything)
            if not _one_for_all(knobs()) or cached(alone, gpu.machine(self.number)):
                return gpu.loaded(alone, self.number)
            settled = tuple(d for d in sizes if d not in self.program.ranged)
        return gpu.loaded(self.request(sizes, design, settled), self.number)

    def constant(self, place: Place) -> tuple[str, ...]:
        """Dims whose size is the same for all calls of a place."""
        return tuple(d for d, n in place if not isinstance(n, Range))

    # ------------------------------------------------------------------------------------------- searches
    def job(self, sizes: dict[str, int]) -> dict[str, Any] | None:
        """What another process has to know to draw operands like these and try designs; None where it could not.

        The generic design at these sizes is the one to beat.
        """
        unit = {n: x.strides.index(1) for n, x in self.layouts if 1 in x.strides}
        if len(unit) < len(self.layouts):
            return None
        return {
            **told_of(self),
            "machine": gpu.machine(self.number).to_dict(),
            "unit": unit,
            "threads": 1,
            "layouts": [[n, list(x.strides), x.align, x.constant] for n, x in self.layouts],
            "constant": [d for d in self.program.kernel.dims if d not in self.program.ranged],
            "beside": self.generic_design(sizes).to_json(),
        }


def _one_for_all(settings: Knobs) -> bool:
    """Whether one generic kernel is to answer every length."""
    return settings.mode in ("generic", "frozen") or modes.has_learned()


__all__ = ["GpuOrigin"]
