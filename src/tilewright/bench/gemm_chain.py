"""Products of few rows as links of a chain: what each adds to a CUDA graph, on weights of its own that no cache holds.

A model that decodes replays graphs of products. Between two events a lone one takes four microseconds more than its
memory does, whoever computes it: so long the GPU takes to note the one event, start a kernel and note the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.rows_chain import Chain, in_turn
from tilewright.design.design import Design
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured

_LINKS, _ROOM = 20, 6 << 30
"""Calls of a chain at most, and bytes of their operands; the fewest calls are those of `_LEAST`."""
_LEAST = 6


def links_of(case: GemmCase) -> int:
    """How many products a chain has: as many as there is room for, together far more than any cache holds."""
    return max(_LEAST, min(_LINKS, _ROOM // case.bytes))


def chain(case: GemmCase, seed: int, designs: Mapping[str, Design], peer: str) -> Chain:
    """Our kernels of `designs` and torch's product, each in a graph with operands of its own for every link."""
    setups = [GemmProblem(case, seed + n) for n in range(links_of(case))]
    evaluators = [GpuEvaluator(setup.problem()) for setup in setups]
    calls: dict[str, Sequence[Callable[[], object]]] = {
        who: [evaluator.launch(design) for evaluator in evaluators] for who, design in designs.items()
    }
    calls[peer] = [setup.peer() for setup in setups]
    return Chain(setups, {who: captured(in_turn(links)) for who, links in calls.items()})


__all__ = ["chain", "links_of"]
