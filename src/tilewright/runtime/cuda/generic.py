"""The generic kernel for any length: which one design costs least over all lengths that one kernel has to serve.

The default design of each class of lengths is a candidate; the cost model says what each takes at many lengths. The
one is chosen that is, in the mean of logarithms, the fewest times slower than the best of each length: it answers a
request of any length, and specialised kernels have to be faster than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from tilewright.build.kernel_cache import Request
from tilewright.design.cost import estimate
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.language import ir
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.dispatch import Layouts, Program
from tilewright.runtime.polite import breathe

ANY = 1
"""What stands for a length that is not told."""

CLASSES = (16, 64, 128, 256, 512)
"""Lengths whose default designs are the candidates."""

LENGTHS = (8, 24, 48, 96, 160, 224, 320, 512)
"""Lengths that they are judged at: few are a whole number of tiles, as few requests are."""


@lru_cache(maxsize=1024)
def any_length(
    program: Program,
    layouts: Layouts,
    sizes: tuple[tuple[str, int], ...],
    literal: tuple[tuple[str, int], ...],
    number: int,
) -> Request:
    """What has to be built for every length of a program on GPU `number`; `literal` sizes are a part of the kernel."""
    machine, told = gpu.machine(number), dict(sizes)
    varied = lengths_of(program) - {d for d, _ in literal}

    def at(lengths: tuple[int, ...]) -> list[Facts]:
        sizes = [{**told, **dict.fromkeys(varied, n)} for n in (lengths if varied else lengths[:1])]
        return [gpu.facts_of(layouts, s, machine, dict(literal)) for s in sizes]

    facts = at(LENGTHS)
    designs = list(dict.fromkeys(default_design(program.kernel, f) for f in at(CLASSES)))
    allowed = [d for d in designs if not any(legal(program.kernel, d, f) for f in facts)] or designs
    design = allowed[0] if len(allowed) == 1 else _least(program.kernel, allowed, facts)
    return gpu.requested(program, layouts, facts[0].sizes, machine, design, tuple(d for d, _ in literal))


@lru_cache(maxsize=1024)
def lengths_of(program: Program) -> frozenset[str]:
    """The dim that a request's length is: of those that a slot holds ranges of, the last one that results have."""
    stored = {s.ref.buffer for s in ir.walk(program.kernel.body) if isinstance(s, ir.Store)}
    kept = [d for p in program.kernel.params if p.name in stored and p.dims for d in p.dims if d in program.ranged]
    return frozenset(str(d) for d in kept[-1:])


def _least(kernel: ir.Kernel, designs: list[Design], facts: list[Facts]) -> Design:
    seconds: Mapping[Design, list[float]] = {d: [_estimated(kernel, d, f) for f in facts] for d in designs}
    best = [min(times) for times in zip(*seconds.values(), strict=True)]

    def worse(design: Design) -> float:
        return sum(math.log(t / b) for t, b in zip(seconds[design], best, strict=True))

    return min(designs, key=lambda d: (worse(d), d.hash))


def _estimated(kernel: ir.Kernel, design: Design, facts: Facts) -> float:
    breathe()  # a learner asks too
    return estimate(kernel, design, facts).seconds


__all__ = ["ANY", "CLASSES", "LENGTHS", "any_length", "lengths_of"]
