"""Honest timing on the CPU: paired, interleaved rounds with an A/A control.

A number on its own says little on a shared machine, so candidates are timed side by side. Every round
times each of them once, in an order that rotates from round to round, and a *ratio* is the median over
rounds of (time of one / time of the other) within the same round: drift of the clock or of the
neighbours hits both and cancels. The first candidate is entered a second time under another name; the
ratio of a candidate to itself is 1 in truth, so what is measured instead is the noise, and nothing
smaller than that noise is ever called a difference.
"""

from __future__ import annotations

import gc
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread, get_native_id

import numpy as np

from tilewright.errors import ArgumentError
from tilewright.machines.caches import host_caches
from tilewright.machines.cores import affinity

CONTROL = "(control)"
"""Name under which the first candidate is entered a second time."""

MIN_ROUNDS, MAX_ROUNDS = 6, 2000
"""Six rounds are the fewest whose extremes bracket the median with more than 95% confidence."""

BATCH_NS = 50_000
"""A sample shorter than this is made of several calls, so that reading the clock (about 50 ns) is under 0.1%."""

SETTLE_S = 0.03
"""The longest pause before a warm sample; it ends when no other thread of the process runs (they spin 3 to 11 ms)."""

NOISE_CLASSES = ((0.01, "quiet"), (0.03, "steady"), (0.10, "noisy"), (math.inf, "unusable"))
"""Upper bound of the control's deviation from 1, and the word for it."""


@dataclass(frozen=True)
class Ratio:
    """A median of paired ratios with the interval that holds the true median with `confidence`."""

    median: float
    low: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured.

    `samples[name][round]` is nanoseconds per call, `batch[name]` the calls in one sample. `order` holds the
    candidates as given; the control's samples stand under `CONTROL`. `flush` says that the caches were
    emptied before every sample (cold); otherwise the candidate ran once, untimed, just before it (warm).
    """

    samples: Mapping[str, tuple[float, ...]]
    batch: Mapping[str, int]
    order: tuple[str, ...]
    flush: bool

    @property
    def rounds(self) -> int:
        """Number of rounds, the same for every candidate."""
        return len(self.samples[self.order[0]])

    def median_ns(self, name: str) -> float:
        """Median nanoseconds of one call of candidate `name`."""
        return statistics.median(self.samples[name])

    def ratio(self, name: str, to: str) -> Ratio:
        """Time of `name` divided by time of `to`, paired by round: above 1, `to` is the faster one."""
        return paired_ratio(self.samples[name], self.samples[to])

    @property
    def control(self) -> Ratio:
        """The ratio of the first candidate to itself: 1 but for noise."""
        return self.ratio(CONTROL, self.order[0])

    @property
    def noise(self) -> float:
        """The farthest that the interval of the control lies from 1, as a fraction (0.02 is 2%)."""
        return max(abs(self.control.high - 1.0), abs(1.0 - self.control.low))

    @property
    def noise_class(self) -> str:
        """`quiet` (under 1%), `steady` (3%), `noisy` (10%) or `unusable`."""
        return next(word for bound, word in NOISE_CLASSES if self.noise < bound or math.isinf(bound))

    def faster(self, name: str, than: str) -> bool:
        """Whether `name` beats `than` by more than the noise: the whole interval lies beyond the control's."""
        return self.ratio(than, name).low > 1.0 + self.noise

    def to_json(self) -> dict[str, object]:
        """Everything measured, as plain data (raw samples in integer nanoseconds)."""
        return {
            "order": list(self.order),
            "rounds": self.rounds,
            "cache": "cold" if self.flush else "warm",
            "noise": round(self.noise, 4),
            "noise_class": self.noise_class,
            "batch": dict(self.batch),
            "samples_ns": {name: [round(ns) for ns in values] for name, values in self.samples.items()},
        }


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    flush: bool | Callable[[], None] = False,
    poison: Callable[[], object] | None = None,
    wake: Callable[[], object] | None = None,
    prewarm: bool = True,
    rest: bool = True,
    min_rounds: int = MIN_ROUNDS,
) -> Comparison:
    """Time `candidates` against each other, interleaved, for about `seconds` (and at least `min_rounds`).

    `flush` empties the caches before every sample (a callable does it in its own way); a sample is then a single call.
    Without it the candidate runs once, untimed, before each sample (not so with `prewarm=False`, for long calls that
    walk through more memory than the caches hold), and short calls are batched. `poison` runs untimed before every
    sample: let it fill the outputs with NaN, so that a kernel which does not write is found by the check afterwards.
    `rest` pauses before a warm sample, and after poison and flush, for threads of another library that wait in a loop;
    where all candidates run on the same threads a pause only lets others take the caches and the core, and it is most
    of the time that a short kernel's sample takes.
    `wake` runs untimed right before every sample: let it wake the threads that candidates run on, which sleep by then.
    Garbage collection is off meanwhile. Raises ArgumentError for no candidate or a negative budget.
    """
    if not candidates or CONTROL in candidates:
        raise ArgumentError(f"compare needs at least one candidate, and none may be called {CONTROL!r}")
    if not seconds >= 0:
        raise ArgumentError(f"seconds={seconds!r} is not a time budget; give a number of at least 0")
    order = tuple(candidates)
    entries = {**candidates, CONTROL: candidates[order[0]]}
    for call in candidates.values():
        call()  # compiles, and touches every page for the first time
    batch = {name: 1 if flush else _batch(call) for name, call in candidates.items()}
    batch[CONTROL] = batch[order[0]]
    prepare = _preparation(flush, poison, prewarm, rest)
    samples: dict[str, list[float]] = {name: [] for name in entries}
    with _no_gc():
        deadline = time.perf_counter() + seconds
        for names in rotations(tuple(entries)):
            for name in names:
                prepare(entries[name])
                if wake is not None:
                    wake()
                samples[name].append(_time(entries[name], batch[name]))
            rounds = len(samples[CONTROL])
            if rounds >= max(min_rounds, 1) and (time.perf_counter() >= deadline or rounds >= MAX_ROUNDS):
                break
    return Comparison({name: tuple(values) for name, values in samples.items()}, batch, order, bool(flush))


def joined(parts: Sequence[Comparison]) -> Comparison:
    """One comparison of the rounds of all `parts`, which timed the same candidates; ArgumentError for none."""
    if not parts or any(p.order != parts[0].order for p in parts):
        raise ArgumentError("only comparisons of the same candidates can be joined, and at least one")
    samples = {n: tuple(itertools.chain.from_iterable(p.samples[n] for p in parts)) for n in parts[0].samples}
    return Comparison(samples, parts[0].batch, parts[0].order, parts[0].flush)


def paired_ratio(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """The median of a[i] / b[i] and its order-statistic interval at (at most) 95% confidence.

    Both need the same length, one value a round. The interval rests on the sign test: it assumes that rounds
    are independent and nothing about the shape of their distribution. Fewer than six rounds cannot reach 95%;
    `confidence` says what they do reach.
    """
    if len(a) != len(b) or not a:
        raise ArgumentError(f"paired samples need equal, non-zero lengths; got {len(a)} and {len(b)}")
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    rank, confidence = _median_interval(len(ratios))
    return Ratio(statistics.median(ratios), ratios[rank], ratios[-1 - rank], confidence)


def _median_interval(n: int, wanted: float = 0.95) -> tuple[int, float]:
    """The rank r (from 0) of the narrowest [r-th smallest, r-th largest] of n that holds the median with `wanted`.

    Also how surely it does: the median is outside with twice the chance of at most r heads in n fair throws.
    """
    rank, tail = 0, 1 / 2**n
    while rank + 1 < (n + 1) // 2:
        wider = tail + math.comb(n, rank + 1) / 2**n
        if 1 - 2 * wider < wanted:
            break
        rank, tail = rank + 1, wider
    return rank, 1 - 2 * tail


def rotations(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Orders of a round: each candidate takes each place in turn, and every second cycle runs backwards.

    Turning the order round changes who runs after whom, so that no candidate always inherits the same
    neighbour's caches, clock or spinning threads.
    """
    for count in itertools.count():
        turn, cycle = count % len(names), count // len(names)
        rotated = names[turn:] + names[:turn]
        yield rotated if cycle % 2 == 0 else rotated[::-1]


def _preparation(
    flush: bool | Callable[[], None], poison: Callable[[], object] | None, prewarm: bool, rest: bool
) -> Callable[[Callable[[], object]], None]:
    """What happens, untimed, before a sample. Poison comes before the flush, which then also writes it back."""
    evict = flush if callable(flush) else cache_flusher() if flush else None

    def prepare(call: Callable[[], object]) -> None:
        if evict is None:
            if rest:
                settle()
            if prewarm:
                call()
        if poison is not None:
            poison()
        if evict is not None:
            evict()
        if rest and (poison is not None or evict is not None):
            settle()  # whoever wrote the poison, or ran before the flush, may still have threads that wait

    return prepare


_LOOK_S = 0.001


def settle() -> None:
    """Sleep until no other thread of this process runs, SETTLE_S at most (and that long where nobody tells who runs).

    An OpenMP library's threads wait in a loop for milliseconds after a call, on cores that the next candidate needs.
    """
    deadline = time.perf_counter() + SETTLE_S
    time.sleep(_LOOK_S)
    while _others_run() and (left := deadline - time.perf_counter()) > 0:
        time.sleep(min(_LOOK_S, left))


def _others_run() -> bool:
    """Whether a thread of this process other than the caller runs or waits for a core, as far as the system tells."""
    tasks, own = Path("/proc/self/task"), str(get_native_id())
    try:
        return any(_state(task) == "R" for task in tasks.iterdir() if task.name != own)
    except OSError:
        return True  # no such files here


def _state(task: Path) -> str:
    """`R` for a thread that runs, other letters for those that sleep; none for one that has just ended."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _time(call: Callable[[], object], batch: int) -> float:
    """Nanoseconds of one call, from `batch` calls in a row."""
    repeats = range(batch)
    start = time.perf_counter_ns()
    for _ in repeats:
        call()
    return (time.perf_counter_ns() - start) / batch


def _batch(call: Callable[[], object]) -> int:
    """How many calls make a sample of BATCH_NS."""
    once = _time(call, 1)
    if once < BATCH_NS:
        once = min(once, *(_time(call, 1) for _ in range(3)))
    return max(1, min(10_000, math.ceil(BATCH_NS / max(once, 1.0))))


@contextmanager
def _no_gc() -> Iterator[None]:
    """Collect once, then keep the collector off inside."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ------------------------------------------------------------------------------------------ cold caches
def last_level_cache_bytes() -> int:
    """Bytes of all last-level caches that the CPUs of this process read through."""
    last = host_caches(min(affinity()))[-1]
    return last.bytes * math.ceil(len(affinity()) / last.shared_by)


def cache_flusher(limit: int = 1 << 30) -> Callable[[], None]:
    """A call that streams a buffer of twice the last-level caches (at most `limit` bytes) through every core.

    Each CPU that the process may use reads a part of its own, so that private caches are emptied too. Reading,
    not writing: dirty lines would be written back inside the sample that follows.
    """
    cpus = sorted(affinity())
    size = min(2 * last_level_cache_bytes(), limit)
    parts = np.array_split(np.ones(size // 8), len(cpus))

    def flush() -> None:
        threads = [Thread(target=_read_on, args=pair) for pair in zip(cpus, parts, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return flush


def _read_on(cpu: int, part: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Read all of `part` on `cpu` (NumPy lets go of the GIL, so the CPUs read at the same time)."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})  # 0 is the calling thread, which ends here
    part.max()
