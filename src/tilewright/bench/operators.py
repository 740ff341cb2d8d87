"""One operator case: check it against float64, then time it against its peer, interleaved, from cold memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tilewright.bench import peers
from tilewright.bench.cases import OURS, PEER, Case
from tilewright.bench.reference import REFERENCES
from tilewright.bench.result import Result, rounded
from tilewright.bench.roof import Roof, described, shares
from tilewright.runtime.measure import Comparison, compare, last_level_cache_bytes
from tilewright.runtime.tolerance import check

CHECKED_ROWS = 8
LONG_NS = 30e6
"""A pass longer than this needs no untimed pass before it: waking threads and warm code no longer show."""


def run_case(case: Case, threads: int, roof: Roof, seconds: float) -> Result:
    """Check `case`, time it for about `seconds`, check again. Raises VerificationError on a wrong result.

    Those streams of `roof` that bound the case take turns with it.
    """
    bounds = {name: roof[name] for name in case.streams}
    sets = operand_sets(case)
    error = verify(case, sets[0])
    comparison = _time(case, sets, bounds, seconds)
    error = max(error, verify(case, sets[-1]))  # the clock must not have watched anything else than what was checked
    cold = len(sets) * case.bytes >= 2 * last_level_cache_bytes()
    raw = {**comparison.to_json(), "operand_sets": len(sets), "cache": "cold" if cold else "partly warm"}
    raw["confidence"] = round(comparison.control.confidence, 3)
    if bounds:
        raw["streams"] = described(bounds)
    values = {**metrics(case, comparison, len(sets), bounds), "error_over_bound": round(error, 3)}
    return Result(case.family, case.name, threads, values, raw)


def operand_sets(case: Case) -> list[dict[str, Any]]:
    """Operands in enough copies that a pass over all of them moves three times what the caches hold.

    (Fewer where arithmetic is what takes the time.) When a set comes round again, nothing of it is left in any
    cache: true cold memory, with threads awake, as the weights of a model are met at every token.
    """
    first = peers.operands(case, seed=0)
    copies = case.copies(last_level_cache_bytes()) - 1
    return [first, *({name: t.clone() for name, t in first.items()} for _ in range(copies))]


def verify(case: Case, tensors: Mapping[str, Any]) -> float:
    """Largest error of Tilewright's result as a fraction of its bound, on a seeded sample of rows.

    The result starts as NaN everywhere, so that an element which the kernel leaves out stays one. Raises
    VerificationError beyond the bound.
    """
    result = peers.poisoned(case)
    peers.OURS[case.operator](tensors, out=result)
    workload, sizes = case.workload, dict(case.sizes)
    count = sizes[workload.rows]
    rows = np.sort(np.random.default_rng(1).permutation(count)[:CHECKED_ROWS])
    rows = np.union1d(rows, [0, count - 1])
    taken = {name: _rows(tensors[name], dims, workload.rows, rows) for name, dims in workload.operands.items()}
    actual = _rows(result, workload.result, workload.rows, rows)
    return check(case.name, actual, REFERENCES[case.operator](taken))


def _rows(tensor: Any, dims: tuple[str, ...], axis: str, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`rows` of `tensor` along the dim `axis` (all of it where it has none)."""
    array: np.ndarray[Any, Any] = peers.to_numpy(tensor)
    return array.take(rows, dims.index(axis)) if axis in dims else array


def _time(case: Case, sets: list[dict[str, Any]], roof: Roof, seconds: float) -> Comparison:
    """Interleaved passes over all operand sets; before every pass the memory of old results is poisoned."""
    ours, peer = (_passes(call, sets) for call in (peers.OURS[case.operator], peers.PEERS[case.operator, case.peer]))
    start = time.perf_counter_ns()
    peer()
    long = time.perf_counter_ns() - start > LONG_NS
    return compare(
        {OURS: ours, PEER: peer, **roof},
        seconds=seconds,
        poison=lambda: peers.poisoned(case),
        prewarm=not long,
        min_rounds=case.rounds,
    )


def _passes(call: Callable[[Mapping[str, Any]], Any], sets: list[dict[str, Any]]) -> Callable[[], None]:
    """One call with each set of operands."""

    def run() -> None:
        for tensors in sets:
            call(tensors)

    return run


def metrics(case: Case, comparison: Comparison, sets: int, roof: Roof) -> dict[str, float]:
    """The numbers of one case: microseconds, rates, shares of the streams in `roof`, ratio to the peer."""
    ours, peer = (comparison.median_ns(name) / sets for name in (OURS, PEER))
    ratio = comparison.ratio(PEER, to=OURS)
    return rounded(
        {
            "us": ours / 1e3,
            "peer_us": peer / 1e3,
            "gflops": case.flops / ours,
            "peer_gflops": case.flops / peer,
            "gbs": case.bytes / ours,
            "peer_gbs": case.bytes / peer,
            **shares(comparison, case.bytes * sets, roof),
            "ratio": ratio.median,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "noise": comparison.noise,
        }
    )
