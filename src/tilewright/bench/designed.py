"""One design beside torch: checked against float64, timed interleaved from the same memory, and checked again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.bench.cases import LARGE_FLOPS, OURS, PEER
from tilewright.bench.operators import LONG_NS
from tilewright.bench.peers import keep_freed_memory
from tilewright.bench.vendor import NAME, aligned, tensors_of, vendor_of
from tilewright.design.design import Design
from tilewright.runtime import dispatch
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.checks import expected
from tilewright.runtime.inputs import Operands, draw
from tilewright.runtime.measure import Comparison, Ratio, compare, last_level_cache_bytes
from tilewright.runtime.subject import Subject
from tilewright.runtime.tolerance import check
from tilewright.runtime.work import Work, work_of

MOST_SETS = 64


@dataclass(frozen=True)
class Beside:
    """A design and its peer in the same rounds: seconds of a call, and their ratio (above 1, the design is faster)."""

    seconds: float
    peer_seconds: float
    ratio: Ratio
    comparison: Comparison
    sets: int
    error: float

    @property
    def noise(self) -> float:
        """The A/A control's deviation from 1."""
        return self.comparison.noise


def beside(
    subject: Subject, design: Design, *, seconds: float, peer: str = NAME, as_trials: bool = False
) -> Beside | None:
    """`design` beside `peer`; None where there is no such peer.

    Both go through so many sets of operands in turn that no cache holds one when it comes again; `as_trials`: as trials
    of a search are timed, on one set, with caches emptied before each call where they would not hold it anyway.

    The design is launched as a model's plan launches it, bound once; the peer is called as torch's users call it.
    Raises VerificationError for a wrong result.
    """
    expression = vendor_of(subject, peer)
    if expression is None:
        return None
    keep_freed_memory()
    work = work_of(subject.kernel, subject.sizes)
    first = draw(subject.kernel, subject.sizes, seed=0, updates=subject.updates, unit=subject.unit)
    count = 1 if as_trials else operand_sets(work)
    operands = [aligned(first) for _ in range(count)]
    tensors = [tensors_of(each) for each in operands]
    launches = [launch_of(subject, design, each) for each in operands]
    error = _checked(subject, launches[0], operands[0])
    flush = as_trials and sum(x.nbytes for x in first.tensors.values()) > last_level_cache_bytes()
    pair = {OURS: _each(launches), PEER: lambda: [expression(t) for t in tensors]}
    comparison = _timed(pair, _poison(subject, operands), work, seconds, flush)
    error = max(error, _checked(subject, launches[-1], operands[-1]))
    ours, theirs = (comparison.median_ns(name) / count / 1e9 for name in (OURS, PEER))
    return Beside(ours, theirs, comparison.ratio(PEER, to=OURS), comparison, count, error)


def operand_sets(work: Work) -> int:
    """Sets of operands in one timed pass: enough to move three times what the caches hold, or as many as matter."""
    cold = math.ceil(3 * last_level_cache_bytes() / max(work.bytes, 1))
    return max(1, min(MOST_SETS, cold, int(LARGE_FLOPS // 2 // max(work.flops, 1))))


def launch_of(subject: Subject, design: Design, operands: Operands) -> Callable[[], None]:
    """The kernel of a design, bound to operands."""
    kernel = dispatch.compiled(subject.program, subject.request(design))
    buffers = {name: Buffer.of(x) for name, x in operands.tensors.items()}
    return kernel.bind(buffers, operands.scalars, dict(subject.sizes))


def _checked(subject: Subject, launch: Callable[[], None], operands: Operands) -> float:
    """The largest error of the outputs, NaN before the launch, as a share of what is allowed."""
    _poison(subject, [operands])()
    launch()
    exact = expected(subject, operands)
    return max(check(name, operands.tensors[name], e) for name, e in exact.items())


def _poison(subject: Subject, sets: list[Operands]) -> Callable[[], None]:
    """Fill outputs with NaN, where the program does not read them and they can hold it."""
    names = [n for n in subject.outputs if n not in subject.updates]
    arrays = [s.tensors[n] for s in sets for n in names if s.tensors[n].dtype.kind in "fV"]

    def fill() -> None:
        for array in arrays:
            array.fill(np.nan)

    return fill


def _timed(
    pair: Mapping[str, Callable[[], object]], poison: Callable[[], None], work: Work, seconds: float, flush: bool
) -> Comparison:
    pair[PEER]()  # torch.compile compiles
    start = time.perf_counter_ns()
    pair[PEER]()
    long = time.perf_counter_ns() - start > LONG_NS
    rounds = 3 if work.flops > LARGE_FLOPS else 6
    return compare(pair, seconds=seconds, flush=flush, poison=poison, prewarm=not long, min_rounds=rounds)


def _each(launches: list[Any]) -> Callable[[], None]:
    def run() -> None:
        for launch in launches:
            launch()

    return run
