"""The clockwork of measurement: pairing, rotation, intervals, control, poison and flush."""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
import random
import statistics
import threading
import time

import numpy as np
import pytest

from tilewright.errors import ArgumentError
from tilewright.runtime import measure, pool
from tilewright.runtime.measure import CONTROL, Comparison, compare, joined, paired_ratio


def busy(seconds: float):
    """A candidate that keeps the CPU busy for `seconds`."""

    def run() -> None:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    return run


def comparison(**samples: list[float]) -> Comparison:
    order = tuple(name for name in samples if name != "control")
    named = {(CONTROL if name == "control" else name): tuple(v) for name, v in samples.items()}
    return Comparison(named, dict.fromkeys(named, 1), order, flush=False)


def test_a_slower_candidate_is_found_slower_by_its_factor():
    result = compare({"fast": busy(0.0005), "slow": busy(0.0015)}, seconds=0.3)
    ratio = result.ratio("slow", to="fast")
    assert 2.5 < ratio.median < 3.5
    assert ratio.low <= ratio.median <= ratio.high
    assert result.faster("fast", than="slow")
    assert not result.faster("slow", than="fast")


def test_a_candidate_does_not_beat_itself():
    work = busy(0.0005)
    result = compare({"a": work, "b": work}, seconds=0.2)
    assert not (result.faster("a", than="b") and result.faster("b", than="a"))
    assert abs(math.log(result.control.median)) < 0.2


def test_noise_hides_a_difference_smaller_than_itself():
    noisy = comparison(a=[100.0] * 8, b=[104.0] * 8, control=[90.0, 112.0] * 4)
    quiet = comparison(a=[100.0] * 8, b=[104.0] * 8, control=[99.9, 100.1] * 4)
    assert noisy.noise == pytest.approx(0.12)
    assert noisy.noise_class == "unusable"
    assert not noisy.faster("a", than="b")
    assert quiet.noise_class == "quiet"
    assert quiet.faster("a", than="b")


def test_pairing_cancels_a_drift_that_both_see():
    drift = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    ratio = paired_ratio([3 * d for d in drift], [2 * d for d in drift])
    assert (ratio.median, ratio.low, ratio.high) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize("n", [6, 7, 20, 101, 1500])
def test_interval_covers_the_true_median_as_often_as_it_says(n):
    rank, confidence = measure._median_interval(n)
    exact = 1 - 2 * sum(math.comb(n, k) for k in range(rank + 1)) / 2**n
    assert confidence == pytest.approx(exact)
    assert confidence >= 0.95
    narrower = 1 - 2 * sum(math.comb(n, k) for k in range(rank + 2)) / 2**n
    assert narrower < 0.95 or rank + 1 >= (n + 1) // 2


def test_interval_coverage_by_simulation():
    rng = random.Random(7)
    hits = 0
    for _ in range(400):
        ratio = paired_ratio([rng.lognormvariate(0.3, 0.5) for _ in range(15)], [1.0] * 15)
        hits += ratio.low <= math.exp(0.3) <= ratio.high
    assert hits / 400 > 0.92  # 0.965 is the claim; 400 draws have a standard error of 0.01


def test_few_rounds_admit_that_they_are_few():
    assert paired_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]).confidence == pytest.approx(0.75)
    assert paired_ratio([2.0], [1.0]).confidence == 0.0


def test_every_candidate_takes_every_place_and_follows_every_other():
    rounds = list(itertools.islice(measure.rotations(("a", "b", "c")), 6))
    assert [r[0] for r in rounds[:3]] == ["a", "b", "c"]
    assert {(x, y) for r in rounds for x, y in itertools.pairwise(r)} == set(itertools.permutations("abc", 2))


def test_short_calls_are_batched_and_reported_per_call(monkeypatch):
    """By a clock that a call moves by 100 ns, and nothing else does."""
    now, calls = [0], []

    def tiny() -> None:
        calls.append(1)
        now[0] += 100

    monkeypatch.setattr(measure.time, "perf_counter_ns", lambda: now[0])
    result = compare({"tiny": tiny}, seconds=0.0)
    assert result.batch["tiny"] == measure.BATCH_NS // 100
    assert set(result.samples["tiny"]) == set(result.samples[CONTROL]) == {100.0}
    assert len(calls) >= result.batch["tiny"] * 2 * result.rounds


def test_collector_is_off_inside_and_on_again_after():
    seen = []
    compare({"a": lambda: seen.append(gc.isenabled()) or time.sleep(0.0002)}, seconds=0.0)
    assert seen[-1] is False
    assert gc.isenabled()


def test_poison_is_seen_by_every_timed_sample():
    """A candidate that writes its output finds it poisoned at the first call of each sample, and only there."""
    out, found, poisoned = np.zeros(4), [], []

    def poison() -> None:
        out.fill(np.nan)
        poisoned.append(len(found))

    def writes() -> None:
        found.append(bool(np.isnan(out).all()))
        out[:] = 1

    for flush in (False, True):
        found.clear(), poisoned.clear()
        result = compare({"a": writes}, seconds=0.0, flush=flush, poison=poison, min_rounds=2)
        assert len(poisoned) == 2 * result.rounds
        assert [n for n, fresh in enumerate(found) if fresh] == poisoned


def test_flush_makes_samples_single_and_reads_on_every_cpu(monkeypatch):
    flushed = []
    monkeypatch.setattr(measure, "cache_flusher", lambda: lambda: flushed.append(1))
    result = compare({"a": lambda: None, "b": lambda: None}, seconds=0.0, flush=True, min_rounds=6)
    assert set(result.batch.values()) == {1}
    assert len(flushed) == 6 * 3
    assert result.to_json()["cache"] == "cold"


def test_flush_evicts_a_small_array():
    """A cold read takes longer than a warm one: 8 MiB lie in the last-level cache or do not."""
    data = np.ones(1 << 20)
    cold = compare({"read": data.max}, seconds=0.0, flush=True, min_rounds=9).median_ns("read")
    warm = compare({"read": data.max}, seconds=0.0, min_rounds=9).median_ns("read")
    assert cold > warm


def test_flush_leaves_the_affinity_of_the_caller_alone():
    import os

    before = os.sched_getaffinity(0)
    measure.cache_flusher(limit=1 << 20)()
    assert os.sched_getaffinity(0) == before


def test_json_holds_the_raw_samples():
    result = compare({"a": busy(0.0001)}, seconds=0.0, min_rounds=7)
    data = result.to_json()
    assert data["rounds"] == 7
    assert statistics.median(data["samples_ns"]["a"]) == pytest.approx(result.median_ns("a"), rel=0.01)
    assert set(data["samples_ns"]) == {"a", CONTROL}


@pytest.mark.parametrize("bad", [{"candidates": {}}, {"candidates": {"a": print}, "seconds": -1}])
def test_bad_arguments_are_typed(bad):
    with pytest.raises(ArgumentError):
        compare(**bad)
    with pytest.raises(ArgumentError):
        paired_ratio([1.0], [])


def test_joined_comparisons_have_the_rounds_of_all_of_them():
    parts = [comparison(a=[1.0, 2.0], b=[3.0, 4.0], control=[1.0, 1.0]), comparison(a=[5.0], b=[6.0], control=[7.0])]
    whole = joined(parts)
    assert whole.samples["a"] == (1.0, 2.0, 5.0)
    assert whole.rounds == 3
    with pytest.raises(ArgumentError, match="same candidates"):
        joined([])
    with pytest.raises(ArgumentError, match="same candidates"):
        joined([parts[0], comparison(b=[1.0], control=[1.0])])


def test_a_pause_ends_when_the_threads_of_others_sleep():
    """A thread waits in a loop for some 15 ms without the interpreter's lock, as those of a library do."""
    spin, word = pool._function("tw_pool_spin", None, [ctypes.c_int64, ctypes.c_void_p]), ctypes.c_int64()
    thread = threading.Thread(target=spin, args=(pool._turns(0.015), ctypes.addressof(word)))
    thread.start()
    while thread.is_alive() and not measure._others_run():
        pass
    assert thread.is_alive()
    measure.settle()
    thread.join(0.005)
    assert not thread.is_alive()


def test_a_pause_ends_though_a_thread_never_sleeps(monkeypatch):
    monkeypatch.setattr(measure, "_others_run", lambda: True)
    start = time.perf_counter()
    measure.settle()
    assert time.perf_counter() - start >= measure.SETTLE_S


def test_candidates_that_share_their_threads_are_timed_without_pauses(monkeypatch):
    slept = []
    monkeypatch.setattr(measure.time, "sleep", slept.append)
    compare({"a": busy(0.0001)}, seconds=0.0, rest=False)
    assert slept == []
    compare({"a": busy(0.0001)}, seconds=0.0)
    assert slept
