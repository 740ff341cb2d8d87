"""Few rows as links of a chain: what each call adds to a CUDA graph, on operands of its own that no cache holds.

Between two events even a kernel that does nothing takes over four microseconds: how long the GPU takes to note the one
event, start a kernel and note the other. A program that decodes replays graphs, in which that is paid once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tilewright.bench.gpu_case import Setup
from tilewright.bench.rows_cases import RowCase
from tilewright.bench.rows_problem import RowProblem, peers
from tilewright.design.design import Design
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured, compare
from tilewright.runtime.measure import Comparison

LINKS = 20
"""Calls of one chain."""
EMPTY = "empty kernel"


@dataclass(frozen=True)
class Chain:
    """The links' operands, and graphs of one call for each, by name."""

    setups: Sequence[Setup]
    graphs: dict[str, Callable[[], object]]

    def poison(self) -> None:
        """What no kernel writes, in all outputs."""
        for setup in self.setups:
            setup.poison()

    def timed(self, rounds: int) -> Comparison:
        """The graphs side by side from a cold L2 cache, in nanoseconds per call."""
        whole = compare(self.graphs, rounds=rounds, poison=self.poison, pause=True)
        links = len(self.setups)
        samples = {name: tuple(ns / links for ns in values) for name, values in whole.samples.items()}
        return replace(whole, samples=samples, batch=dict.fromkeys(whole.batch, links))

    def checked(self, name: str) -> None:
        """Judge all results of a graph; VerificationError if one is wrong."""
        self.poison()
        self.graphs[name]()
        for setup in self.setups:
            setup.redraw()
            setup.check()


def chain(case: RowCase, seed: int, designs: dict[str, Design], compiled: str, eager: str) -> Chain:
    """Our kernels of `designs`, torch.compile's, torch's eager ones, and a kernel that does nothing."""
    import torch

    setups = [RowProblem(case, seed + n) for n in range(LINKS)]
    evaluators = [GpuEvaluator(setup.problem()) for setup in setups]
    calls: dict[str, Sequence[Callable[[], object]]] = {
        who: [evaluator.launch(design) for evaluator in evaluators] for who, design in designs.items()
    }
    calls[compiled], calls[eager] = peers(setups, compiled=True), peers(setups, compiled=False)
    calls[EMPTY] = [lambda: torch.cuda._sleep(0)] * LINKS
    return Chain(setups, {who: captured(in_turn(links)) for who, links in calls.items()})


def in_turn(links: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One call that makes all of them, one after the other."""

    def call() -> None:
        for link in links:
            link()

    return call


__all__ = ["EMPTY", "LINKS", "Chain", "chain", "in_turn"]
