"""What a search asks about designs on a GPU: compiled side by side, verified before and after they are timed."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tilewright.build.cuda_kernel import CudaBinary, build_many
from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.design.trial import Outcome, Standing
from tilewright.errors import CompileError, IllegalDesign, LaunchError, TilewrightError, VerificationError
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.dispatch import loaded, machine, requested
from tilewright.runtime.cuda.kernel import GpuLaunch, layout_on_gpu
from tilewright.runtime.cuda.measure import compare
from tilewright.runtime.cuda.packed import PackedLaunch
from tilewright.runtime.dispatch import Layouts, Program


@dataclass(frozen=True)
class Problem:
    """What every design has to compute: a program, operands (all on one GPU), and how results are judged.

    `poison` fills the outputs with what no kernel writes; `check` raises VerificationError unless they are right.
    `fixed` names dims whose size may become a part of the kernel.
    """

    program: Program
    buffers: Mapping[str, Buffer]
    sizes: Mapping[str, int]
    poison: Callable[[], object]
    check: Callable[[], object]
    scalars: Mapping[str, float | int] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    device: int = 0

    @property
    def layouts(self) -> Layouts:
        """Strides and alignment of the operands."""
        return tuple((n, layout_on_gpu(b)) for n, b in self.buffers.items())


class GpuEvaluator:
    """An `Evaluator` of designs on this process's GPU. A kernel that traps takes the context with it."""

    def __init__(
        self, problem: Problem, *, rounds: int = 9, final_rounds: int = 40, workers: int | None = None
    ) -> None:
        self.problem, self._rounds, self._final_rounds = problem, rounds, final_rounds
        self._workers = workers or os.cpu_count() or 1
        self.launches: dict[Design, GpuLaunch | PackedLaunch] = {}

    def usages(self, designs: Sequence[Design]) -> dict[Design, Usage]:
        """What the kernels of designs take of an SM, of those that can be built."""
        built = zip(designs, self._build(designs), strict=True)
        return {d: b.usage for d, b in built if not isinstance(b, TilewrightError)}

    def evaluate(self, designs: Sequence[Design]) -> list[Outcome]:
        """An outcome for each design, in order."""
        errors = [b if isinstance(b, TilewrightError) else None for b in self._build(designs)]
        return [self._outcome(d, error) for d, error in zip(designs, errors, strict=True)]

    def _build(self, designs: Sequence[Design]) -> list[CudaBinary | TilewrightError]:
        """Kernels, or why there are none; what was compiled before is found on disk."""
        p, known = self.problem, machine(self.problem.device)
        return build_many(
            [requested(p.program, p.layouts, p.sizes, known, d, p.fixed) for d in designs], known, self._workers
        )

    def compare(self, designs: Sequence[Design]) -> list[Standing]:
        """All designs in paired, interleaved rounds; a standing for each, in order, beside the first."""
        calls = {d.hash: self.launch(d) for d in designs}
        found = compare(calls, rounds=self._final_rounds, poison=self.problem.poison)
        first = designs[0].hash
        ratios = {d.hash: found.ratio(d.hash, first) for d in designs}
        return [
            Standing(d, found.median_ns(d.hash) * 1e-9, r.median, r.low, r.high, found.noise)
            for d in designs
            for r in (ratios[d.hash],)
        ]

    def launch(self, design: Design) -> GpuLaunch | PackedLaunch:
        """The kernel of a design, tied to the problem's operands."""
        found = self.launches.get(design)
        if found is None:
            p, known = self.problem, machine(self.problem.device)
            request = requested(p.program, p.layouts, p.sizes, known, design, p.fixed)
            found = self.launches[design] = loaded(request, p.device).bind(p.buffers, p.scalars, p.sizes)
        return found

    def _outcome(self, design: Design, error: TilewrightError | None) -> Outcome:
        if error is not None:
            return Outcome("illegal" if isinstance(error, IllegalDesign) else "compile", reason=str(error))
        try:
            launch = self.launch(design)
            self._verify(launch)
            timed = compare({"call": launch}, rounds=self._rounds, poison=self.problem.poison, control=False)
            self.problem.check()
        except VerificationError as wrong:
            return Outcome("wrong", reason=str(wrong))
        except CompileError as refused:
            return Outcome("compile", reason=str(refused))
        except LaunchError as refused:
            return Outcome("crash", reason=str(refused))
        samples = tuple(ns * 1e-9 for ns in timed.samples["call"])
        return Outcome("ok", statistics.median(samples), samples, _spread(samples))

    def _verify(self, launch: GpuLaunch | PackedLaunch) -> None:
        self.problem.poison()
        launch()
        self.problem.check()


def _spread(samples: Sequence[float]) -> float:
    """Half the range between the quartiles, over the median."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return (high - low) / 2 / middle


__all__ = ["GpuEvaluator", "Problem"]
