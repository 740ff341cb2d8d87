"""`tilewright bench rows`: row operators on one GPU beside torch, eager and compiled, and beside the copy of a tensor.

For each case designs are searched with a budget of trials, the winner and the default design are verified, and all are
timed in paired rounds from a cold L2 cache. Every call waits behind a pause of the GPU until the host has queued it.
Where rows are few the times are those of links of a chain (`rows_chain`), and those of single calls stand beside them,
between two events and as CUPTI counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tilewright.bench.gpu_case import Effort, checked, each_case, facts_of, searched, trials_of
from tilewright.bench.result import Result, rounded
from tilewright.bench.rows_cases import RowCase
from tilewright.bench.rows_chain import EMPTY, chain
from tilewright.bench.rows_problem import RowProblem
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.machines.machine import Machine
from tilewright.runtime.cuda.dispatch import machine
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import compare, empty_ns, kernels_us, median_ns
from tilewright.runtime.measure import Comparison

_OURS, _DEFAULT, _COMPILED, _EAGER = "tilewright", "default", "torch.compile", "torch"
_COPIED = 1 << 29
"""Bytes of the tensor whose copy is the yardstick: far more than the L2 cache holds."""


def measure_rows(cases: Sequence[RowCase], effort: Effort) -> Iterator[Result]:
    """A result for each case, by the default design alone where no trials are allowed; one that failed says why."""
    known, copied = machine(0), copy_rate()
    return each_case(cases, lambda case: _measured(case, effort, known, copied))


def copy_rate() -> float:
    """Bytes a second, read and written, of torch's copy of a tensor, in this process."""
    import torch

    x = torch.empty(_COPIED // 4, dtype=torch.float32, device="cuda").normal_()
    y = torch.empty_like(x)
    return 2 * _COPIED / (median_ns(lambda: y.copy_(x), rounds=15) * 1e-9)


def _measured(case: RowCase, effort: Effort, known: Machine, copied: float) -> Result:
    import torch

    torch._dynamo.reset()
    setup = RowProblem(case, effort.seed)
    problem = setup.problem()
    facts = facts_of(problem, known)
    default = default_design(problem.program.kernel, facts)
    evaluator = GpuEvaluator(problem)
    found = searched(problem, facts, evaluator, effort) if effort.trials else None
    winner, trials = (found.winner, trials_of(found)) if found else (default, [])
    calls: dict[str, Callable[[], object]] = {
        _OURS: evaluator.launch(winner), _DEFAULT: evaluator.launch(default),
        _COMPILED: setup.peer(compiled=True), _EAGER: setup.peer(compiled=False),
    }  # fmt: skip
    timed = compare(calls, rounds=effort.rounds, poison=setup.poison, pause=True)
    checked(setup, calls[_OURS])
    more: dict[str, float] = {}
    if case.links:
        alone, timed, empty = timed, *_in_a_chain(case, effort, {_OURS: winner, _DEFAULT: default})
        more = {**empty, "alone_us": alone.median_ns(_OURS) * 1e-3, "alone_peer_us": alone.median_ns(_COMPILED) * 1e-3}
        more["kernel_us"] = kernels_us(calls[_OURS], setup.poison)
        more["kernel_peer_us"] = kernels_us(calls[_COMPILED], setup.poison)
    seconds, ratio = timed.median_ns(_OURS) * 1e-9, timed.ratio(_COMPILED, _OURS)
    rate = case.bytes / seconds
    metrics = {
        **more,
        "us": seconds * 1e6, "peer_us": timed.median_ns(_COMPILED) * 1e-3, "eager_us": timed.median_ns(_EAGER) * 1e-3,
        "gbs": rate * 1e-9, "of_copy": rate / copied, "copy_gbs": copied * 1e-9, "ratio": ratio.median,
        "ratio_low": ratio.low, "ratio_high": ratio.high, "eager_ratio": timed.ratio(_EAGER, _OURS).median,
        "default_ratio": timed.ratio(_COMPILED, _DEFAULT).median, "noise": timed.noise, "trials": len(trials),
    }  # fmt: skip
    raw: dict[str, Any] = {**timed.to_json(), "design": dict(winner.decisions), "default": dict(default.decisions)}
    raw["trials"] = trials
    return Result(case.family, case.name, 1, rounded(metrics), raw)


def _in_a_chain(case: RowCase, effort: Effort, designs: dict[str, Design]) -> tuple[Comparison, dict[str, float]]:
    """The case timed as links of a chain, and what a kernel that does nothing takes, there and between two events."""
    links = chain(case, effort.seed, designs, _COMPILED, _EAGER)
    timed = links.timed(effort.rounds)
    links.checked(_OURS)
    return timed, {"empty_us": timed.median_ns(EMPTY) * 1e-3, "empty_alone_us": empty_ns() * 1e-3}


__all__ = ["copy_rate", "measure_rows"]
