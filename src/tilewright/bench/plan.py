"""What a run of the bench will do: its jobs, the results that each will give, and about how long they take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any

from tilewright.bench import compile_time, memory, startup
from tilewright.bench.cases import FAMILIES, Case, cpu_cases, matches, none_fits, select
from tilewright.bench.checkpoint import Shape
from tilewright.bench.decoder import decode_name, prefill_name
from tilewright.errors import MissingPackage
from tilewright.machines.cores import affinity
from tilewright.runtime.measure import last_level_cache_bytes

SECONDS, STREAM_SECONDS, QUICK = 0.8, 2.0, 0.2
"""Budget of a comparison, of one with streams beside it, and the part of it that a quick run takes."""

MODEL_SECONDS, QUICK_MODEL_SECONDS = 20.0, 3.0
QUICK_SHAPE = Shape(layers=4, vocabulary=32768)
"""A quarter of the layers and of the vocabulary: 0.6 GB, still far more than caches hold."""

# For the estimate alone: seconds around a comparison, to write a GB of weights, and flop/s of one core.
_AROUND, _PER_GB, _WARM_UP = 1.2, 12.0, 9
_CORE_FLOPS = {"f32": 1e11, "bf16": 1.5e11}


@dataclass(frozen=True)
class Request:
    """What to measure: thread counts, a pattern that names must fit (None is all), and whether to be quick.

    A quick run leaves out the large cases, measures the decode of a smaller model, and takes fewer samples.
    """

    threads: tuple[int, ...]
    only: str | None = None
    quick: bool = False

    def wants(self, *names: str) -> bool:
        """Whether results of these names and families are asked for."""
        return self.only is None or matches(self.only, *names)


@dataclass(frozen=True)
class Step:
    """One result to come, and the seconds that it will take, roughly."""

    family: str
    name: str
    threads: int
    seconds: float


@dataclass(frozen=True)
class Job:
    """What one process measures (`kind` is one of the worker's, or startup) and the results it will give, in order.

    A process that takes longer than `limit` seconds is ended.
    """

    kind: str
    threads: int
    steps: tuple[Step, ...]
    options: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    limit: float | None = None


ALONE = frozenset(
    {
        "compile", "memory", "startup", "design_model", "design_race", "design_agree", "serve_learn", "serve_padding",
        "serve_shake",
    }
)  # fmt: skip
"""Kinds of jobs that compare Tilewright with itself, and need nothing beside it."""

_WHOLE_MODELS = frozenset({"decoder", "llm"})


def check_peers(jobs: Iterable[Job]) -> None:
    """MissingPackage before anything is measured, where what jobs compare with is not installed."""
    kinds = {job.kind for job in jobs}
    need(*(["torch"] if kinds - ALONE else []), *(["transformers"] if kinds & _WHOLE_MODELS else []))


def need(*packages: str) -> None:
    """MissingPackage unless all are installed; none is imported."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingPackage(
            f'this compares with {" and ".join(missing)}, not installed; pip install "tilewright[test]"'
        )


def plan(request: Request) -> list[Job]:
    """The jobs that `request` asks for; ArgumentError where nothing fits it."""
    jobs = [_operators(threads, request) for threads in request.threads]
    jobs += [_compile(request), *_model(max(request.threads), request), _startup(request)]
    wanted = [job for job in jobs if job.steps]
    if not wanted:
        raise none_fits(request.only, FAMILIES)
    return wanted


def estimate(jobs: Iterable[Job]) -> float:
    """Seconds that `jobs` will take, roughly."""
    return sum(step.seconds for job in jobs for step in job.steps)


def budget(case: Case, quick: bool) -> float:
    """Seconds for which the comparison of `case` goes on (and at least for its fewest rounds)."""
    return (STREAM_SECONDS if case.streams else SECONDS) * (QUICK if quick else 1)


def _operators(threads: int, request: Request) -> Job:
    cases = select(cpu_cases(), request.only, request.quick)
    steps = tuple(Step(c.family, c.name, threads, _case_seconds(c, threads, request.quick)) for c in cases)
    return Job("operators", threads, steps, {"only": request.only, "quick": request.quick})


def _case_seconds(case: Case, threads: int, quick: bool) -> float:
    call = case.flops * case.copies(last_level_cache_bytes()) / (_CORE_FLOPS[case.dtype] * threads)
    return _AROUND + _WARM_UP * call + max(budget(case, quick), 3 * case.rounds * call)


def _compile(request: Request) -> Job:
    repeats = 3 if request.quick else 9
    wanted = request.wants("compile", *compile_time.names())
    steps = tuple(Step("compile", name, 1, 0.1 * repeats) for name in compile_time.names() if wanted)
    return Job("compile", 1, steps, {"repeats": repeats})


def _model(threads: int, request: Request) -> list[Job]:
    """Jobs on one checkpoint. The first of them waits until it is written."""
    shape = QUICK_SHAPE if request.quick else Shape()
    seconds = QUICK_MODEL_SECONDS if request.quick else MODEL_SECONDS
    write = _PER_GB * shape.weight_bytes / 1e9
    jobs = []
    if request.wants("memory", memory.NAME) and not request.quick:
        jobs.append(Job("memory", threads, (Step("memory", memory.NAME, threads, write + 10),), {}, shape))
    names = [decode_name(shape)] if request.quick else [prefill_name(shape), decode_name(shape)]
    if request.wants("decoder", *names):
        before = 0 if jobs else write
        steps = [Step("decoder", n, threads, seconds + 10 + (0 if i else before)) for i, n in enumerate(names)]
        options = {"seconds": seconds, "prefill": not request.quick}
        jobs.append(Job("decoder", threads, tuple(steps), options, shape))
    return [Job(j.kind, j.threads, j.steps, {**j.options, "shape": asdict(shape)}, shape) for j in jobs]


def _startup(request: Request) -> Job:
    repeats, threads = 3 if request.quick else 5, len(affinity())
    wanted = request.wants("startup", *startup.NAMES)
    steps = tuple(Step("startup", name, threads, 1.5 * repeats) for name in startup.NAMES if wanted)
    return Job("startup", threads, steps, {"repeats": repeats})
