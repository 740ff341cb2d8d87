"""The ladder of a matrix product on a GPU: from one thread for each output to the best kernel, one move a rung.

All rungs are designs of one tile program: nothing but decisions differs between them. Each is compiled, verified before
and after it is timed, and timed beside torch in paired rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tilewright.bench.gemm_cases import GemmCase
from tilewright.bench.gemm_problem import GemmProblem
from tilewright.bench.result import Result, rounded
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.cost.term import Estimate
from tilewright.design.default import Facts, default_design
from tilewright.design.design import Choice, Design
from tilewright.errors import TilewrightError
from tilewright.report.ladder import reason
from tilewright.runtime.cuda.dispatch import machine, requested
from tilewright.runtime.cuda.evaluator import GpuEvaluator
from tilewright.runtime.cuda.measure import captured, compare

FAMILY = "gemm_ladder"
CASE = GemmCase(FAMILY, 4096, 4096, 4096)
_SLOW = 5e-3  # seconds of a call, by the model, from which six rounds are enough
_ROUNDS, _FEW_ROUNDS = 40, 6
_OURS, _DEFAULT, _PEER = "tilewright", "default", "torch"


@dataclass(frozen=True)
class Move:
    """A step of the ladder: what it does, in words, and the decisions it sets (None: dropped).

    `unseen` says why it should pay where no term of the cost model shows it.
    """

    title: str
    changes: tuple[tuple[str, Choice | None], ...]
    unseen: str = ""


def _move(title: str, unseen: str = "", **changes: Choice | None) -> Move:
    """A move; dots in names of decisions are written `__`."""
    return Move(title, tuple((name.replace("__", "."), value) for name, value in changes.items()), unseen)


_STORES = "not in the model: a warp's results lie in 2 rows of memory instead of 16"
_REGISTERS = "not in the model: what is copied passes through no registers, and nobody waits for it to arrive there"
_ORDER = (
    "not in the model: tiles that run together share rows in L2, and the next tile is read while this one is stored"
)

MOVES = (
    _move(
        "naive: one thread, one output", atom__dot0="fma", warps=8, tile__m=16, tile__n=16, tile__k=1, lanes=("m", "n")
    ),
    _move("neighbouring threads take neighbouring columns", _STORES, lanes=("n", "m")),
    _move("loads of 16 bytes along the sum", tile__k=8, vec__a=8, vec__b=8),
    _move("4 x 4 outputs a thread, in registers", tile__m=64, tile__n=64),
    _move("8 x 8 outputs a thread", tile__m=128, tile__n=128),
    _move(
        "mma.sync from shared memory, copied through registers", atom__dot0="mma", lanes=None, vec__a=None, vec__b=None,
        engine__a="plain", engine__b="plain", stages=2, warps=4, tile__m=64, tile__n=64, tile__k=64,
    ),
    _move("copies by cp.async", _REGISTERS, engine__a="cp_async", engine__b="cp_async"),
    _move("ring of three stages", stages=3),
    _move("tile of 128 x 128, eight warps", tile__m=128, tile__n=128, warps=8),
    _move(
        "wgmma fed by TMA, two warpgroups", atom__dot0="wgmma", warps=None, engine__a=None, engine__b=None,
        warpgroups=2,
    ),
    _move("ring of six stages", stages=6),
    _move("tile of 128 x 256, four stages", tile__n=256, stages=4),
    _move(
        "blocks that stay, tiles in groups of eight rows", _ORDER, persistent=True, grid__order="grouped", grid__group=8
    ),
    _move("results leave by TMA, beside the next tile", store__c="tma"),
    _move("pairs of blocks share the weights they read", cluster__m=2),
)  # fmt: skip


def rungs(moves: Sequence[Move] = MOVES) -> list[Design]:
    """The design after each move."""
    decisions: dict[str, Choice] = {}
    found = []
    for move in moves:
        changed = {**decisions, **dict(move.changes)}
        decisions = {name: value for name, value in changed.items() if value is not None}
        found.append(Design.of(decisions))
    return found


def names(moves: Sequence[Move] = MOVES) -> list[str]:
    """Names of the rungs' results, in order."""
    return [f"{n:02d} {move.title}" for n, move in enumerate(moves)]


def measure_ladder(setup: GemmProblem, evaluator: GpuEvaluator) -> Iterator[Result]:
    """A result for each rung, from the naive one up; one that failed says why, and the ladder goes on."""
    facts = _facts(evaluator)
    kernel = evaluator.problem.program.kernel
    designs = rungs()
    estimates = [estimate_gpu(kernel, d, facts) for d in designs]
    reasons = ["", *(m.unseen or reason(a, b) for m, (a, b) in zip(MOVES[1:], pairwise(estimates), strict=True))]
    default = default_design(kernel, facts)
    below: float | None = None
    for name, design, said, why in zip(names(), designs, estimates, reasons, strict=True):
        last, rounds = design == designs[-1], _FEW_ROUNDS if said.seconds > _SLOW else _ROUNDS
        try:
            result = _rung(name, design, setup, evaluator, rounds, default if last else None, below)
        except TilewrightError as error:
            yield Result(FAMILY, name, 1, error=str(error))
            continue
        below = result.metrics["us"]
        yield Result(FAMILY, name, 1, result.metrics, {**result.raw, **_model(said, why)})


def measure_hgemm(seed: int = 0) -> Iterator[Result]:
    """The ladder of CASE on this process's GPU."""
    setup = GemmProblem(CASE, seed)
    yield from measure_ladder(setup, GpuEvaluator(setup.problem()))


def _facts(evaluator: GpuEvaluator) -> Facts:
    p, known = evaluator.problem, machine(evaluator.problem.device)
    return requested(p.program, p.layouts, p.sizes, known, Design(), p.fixed).facts(known)


def _rung(
    name: str,
    design: Design,
    setup: GemmProblem,
    evaluator: GpuEvaluator,
    rounds: int,
    default: Design | None,
    below: float | None,
) -> Result:
    """One rung: verified, timed beside torch (and the default design), verified again. `below`: microseconds before."""
    launch = evaluator.launch(design)
    _verify(setup, launch)
    calls: dict[str, Callable[[], object]] = {_OURS: launch, _PEER: setup.peer()}
    if default is not None:
        calls[_DEFAULT] = evaluator.launch(default)
    calls = {name: captured(call) for name, call in calls.items()}
    timed = compare(calls, rounds=rounds, poison=setup.poison)
    setup.redraw()
    _verify(setup, launch)
    seconds, ratio = timed.median_ns(_OURS) * 1e-9, timed.ratio(_PEER, _OURS)
    metrics = {
        "us": seconds * 1e6, "peer_us": timed.median_ns(_PEER) * 1e-3, "gflops": setup.case.flops / seconds * 1e-9,
        "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high, "noise": timed.noise,
    }  # fmt: skip
    if below is not None:
        metrics["step"] = below / (seconds * 1e6)
    if default is not None:
        metrics["default_us"] = timed.median_ns(_DEFAULT) * 1e-3
    return Result(FAMILY, name, 1, rounded(metrics), {**timed.to_json(), "design": dict(design.decisions)})


def _verify(setup: GemmProblem, launch: Callable[[], object]) -> None:
    setup.poison()
    launch()
    setup.check()


def _model(said: Estimate, why: str) -> dict[str, Any]:
    """What the cost model says of a rung, and why it should be faster than the one before."""
    terms = [[t.name, t.value, t.unit] for t in said.terms]
    return {"predicted": said.seconds, "bound": said.bound, "reason": why, "terms": terms}


__all__ = ["CASE", "FAMILY", "MOVES", "Move", "measure_hgemm", "measure_ladder", "names", "rungs"]
