"""`estimate` and `features`: the model of whichever machine the facts name."""

from __future__ import annotations

import math

from tilewright.design.cost.cpu import estimate_cpu
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.cost.term import Estimate
from tilewright.design.cost.usage import Usage
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.errors import MachineError
from tilewright.language import ir, structure

_TIMES = ("issue", "chain", "spills", "loops", "copies", "L2", "L3", "pages", "memory")
_COUNTS = (
    "L2 bytes", "L3 bytes", "memory bytes", "bytes around caches", "multiply", "compute", "shuffle", "load", "store",
    "instructions", "imbalance", "phases",
)  # fmt: skip
_GPU_TIMES = (
    "launch", "fill", "memory", "L2", "tensor", "epilogue", "results", "join", "packs", "meets", "walk", "arithmetic",
    "elements", "beside", "turns", "dispatch",
)  # fmt: skip
_GPU_COUNTS = ("memory bytes", "L2 bytes", "blocks", "waves", "blocks per SM", "cluster", "intensity")
_GPU_KINDS = ("tile", "cluster", "split", "pack")
_GPU_PLAIN = ("stages", "warpgroups", "warps", "persistent", "swap", "inflight")
_KINDS = ("tile", "block", "unroll", "pack", "local", "atom", "nontemporal", "prefetch", "keep", "split")
_PLACES = 6  # axes of a program whose tiles and unrolling are features of their own, in its own order


def estimate(kernel: ir.Kernel, design: Design, facts: Facts, usage: Usage | None = None) -> Estimate:
    """Seconds of one call at `facts.sizes`, what bounds it, and the terms; caches warm, nothing is run.

    `usage` is what the compiled kernel takes of a GPU's SM, where it is known.
    Raises MachineError for machines that have no model (they are simulated instead).
    """
    if facts.machine.is_cpu:
        return estimate_cpu(kernel, design, facts)
    if facts.machine.kind == "nvidia":
        return estimate_gpu(kernel, design, facts, usage)
    raise MachineError(f"{facts.machine.name} is of kind {facts.machine.kind}: it has a simulator, no cost model")


def features(kernel: ir.Kernel, design: Design, facts: Facts, known: Estimate | None = None) -> tuple[float, ...]:
    """The estimate's terms and the outline of the design, as the learned correction reads them; always as many.

    Times are shares of the predicted seconds, counts and decisions logarithms. `known` saves estimating again.
    """
    found = known or estimate(kernel, design, facts)
    gpu = facts.machine.kind == "nvidia"
    terms = {t.name: t.value for t in found.terms}
    times = [terms.get(n, 0.0) / found.seconds if found.seconds else 0.0 for n in (_GPU_TIMES if gpu else _TIMES)]
    counts = [math.log2(1.0 + terms.get(n, 0.0)) for n in (_GPU_COUNTS if gpu else _COUNTS)]
    return (
        math.log2(found.seconds),
        *times,
        *counts,
        *(_gpu_outline(design) if gpu else [*_outline(design, _KINDS), *_by_axis(kernel, design)]),
    )


def _outline(design: Design, kinds: tuple[str, ...]) -> list[float]:
    """For each kind of decision: how many there are, the largest and the product of their numbers (log2)."""
    outline: list[float] = []
    for kind in kinds:
        values = [v for _, v in design.prefixed(kind)]
        numbers = [math.log2(v) for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]
        outline += [float(len(values)), max(numbers, default=0.0), sum(numbers)]
    return outline


def _by_axis(kernel: ir.Kernel, design: Design) -> list[float]:
    """Tile and unrolling (log2) of each axis of the program, in its order: the first _PLACES of them."""
    names = [*structure.axes(kernel)][:_PLACES]
    numbers = [math.log2(max(1, design.number(f"{kind}.{n}", 1))) for n in names for kind in ("tile", "unroll")]
    return numbers + [0.0] * (2 * _PLACES - len(numbers))


def _gpu_outline(design: Design) -> list[float]:
    """As `_outline`, and the numbers of decisions that no axis or tensor has."""
    return [*_outline(design, _GPU_KINDS), *(float(design.number(name, 0)) for name in _GPU_PLAIN)]


__all__ = ["estimate", "features"]
