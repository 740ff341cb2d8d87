"""The monitor counts exactly, whoever calls."""

from __future__ import annotations

import threading

from tilewright.runtime.buckets import Range, Shape
from tilewright.runtime.monitor import Monitor, Tally


def shape(n: int) -> Shape:
    return Shape("matmul", Range(1, n), None, "f32", "cpu")


def test_threads_that_count_at_once_lose_nothing():
    monitor, each = Monitor(), 20_000
    start = threading.Barrier(16)

    def work(number):
        start.wait()
        for _ in range(each):
            monitor.counter(shape(number % 2)).add()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.counts() == {shape(0): 8 * each, shape(1): 8 * each}


def test_looking_counts_nothing_and_a_reset_starts_from_nothing():
    monitor = Monitor()
    counter = monitor.counter(shape(1))
    counter.add()
    assert [counter.value, counter.value] == [1, 1]
    monitor.reset()
    assert monitor.counts() == {}
    monitor.counter(shape(1)).add()
    assert monitor.counts() == {shape(1): 1}


def test_a_tally_keeps_the_quickest_of_its_timed_calls():
    tally = Tally()
    for seconds in (3.0, 2.0, 5.0):
        tally.add()
        tally.took(seconds)
    assert (tally.seconds, tally.total) == (2.0, 6.0)
