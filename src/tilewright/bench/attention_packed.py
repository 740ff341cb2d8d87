"""Packed attention beside torch's on one GPU, as `tilewright bench attention` times it: the call that a user makes.

Two kernels, the ranges of queries and attention itself, are one graph here; FlashAttention by cumulative lengths and
cuDNN on a padded batch are another each, in paired rounds. Ratios are to the better of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tilewright.bench.gpu_case import Effort, checked, each_case
from tilewright.bench.packed_cases import PackedCase
from tilewright.bench.packed_problem import PackedProblem
from tilewright.bench.result import Result, rounded
from tilewright.runtime.cuda.measure import captured, compare

_OURS = "tilewright"


def measure_packed(cases: Sequence[PackedCase], effort: Effort) -> Iterator[Result]:
    """A result for each case; one that failed says why, and the run goes on."""
    return each_case(cases, lambda case: _measured(case, effort))


def _measured(case: PackedCase, effort: Effort) -> Result:
    setup = PackedProblem(case, effort.seed)
    ours, peers = setup.ours(), setup.peers()
    calls = {name: captured(call) for name, call in {_OURS: ours, **peers}.items()}
    timed = compare(calls, rounds=effort.rounds, poison=setup.poison)
    checked(setup, calls[_OURS])
    peer = min(peers, key=timed.median_ns)
    ratio, seconds = timed.ratio(peer, _OURS), timed.median_ns(_OURS) * 1e-9
    us = {f"{name.split()[0]}_us": timed.median_ns(name) * 1e-3 for name in peers}
    metrics = {
        "us": seconds * 1e6, **us, "tflops": case.flops / seconds * 1e-12, "gbs": case.bytes / seconds * 1e-9,
        "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high, "noise": timed.noise,
    }  # fmt: skip
    return Result(case.family, case.name, 1, rounded(metrics), {**timed.to_json(), "peer": peer})


__all__ = ["measure_packed"]
