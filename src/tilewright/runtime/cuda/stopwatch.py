"""Times of launches by events of the GPU, read when they have long passed: nobody waits for one.

A launch that goes into a graph is not timed, and events are asked for and made beside what others capture (`capture`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from tilewright.runtime.cuda import capture, driver
from tilewright.runtime.monitor import Tally

MOST = 64
"""Launches that may be under way with nobody having read their time; one more is not timed."""


class Stopwatch:
    """Events of one GPU, used again and again."""

    def __init__(self, device: int) -> None:
        self._device, self._lock = device, threading.Lock()
        self._under_way: deque[tuple[Any, Any, Tally]] = deque()
        self._free: list[tuple[Any, Any]] = []

    def time(self, stream: int, launch: Callable[[], object], tally: Tally) -> None:
        """Run `launch`, which queues on `stream`, between two events; the tally gets to know later what it took."""
        cu = driver.driver()
        with driver.inside(self._device):
            pair = None if capture.capturing(stream) else self._ready()
            if pair is None:
                launch()
                return
            cu.cuEventRecord(pair[0], stream)
            launch()
            cu.cuEventRecord(pair[1], stream)
        with self._lock:
            self._under_way.append((*pair, tally))

    def _ready(self) -> tuple[Any, Any] | None:
        """Two events, once what has passed was read; None where too many are under way."""
        with capture.aside():
            self._collect()
            return self._pair()

    def _pair(self) -> tuple[Any, Any] | None:
        with self._lock:
            if self._free:
                return self._free.pop()
            if len(self._under_way) >= MOST:
                return None
        cu = driver.driver()
        made = [driver.checked(cu.cuEventCreate(0), "making an event") for _ in range(2)]
        return made[0], made[1]

    def _collect(self) -> None:
        """Read what has passed."""
        cu = driver.driver()
        with self._lock:
            while self._under_way:
                start, stop, tally = self._under_way[0]
                if int(cu.cuEventQuery(stop)[0]):
                    return
                self._under_way.popleft()
                status, milliseconds = cu.cuEventElapsedTime(start, stop)
                if not int(status) and milliseconds > 0:
                    tally.took(milliseconds * 1e-3)
                self._free.append((start, stop))


@cache
def _of(device: int) -> Stopwatch:
    return Stopwatch(device)


def timed(device: int, stream: int, launch: Callable[[], object], tally: Tally) -> None:
    """Run `launch`, which queues on `stream` of a device, and let the tally know later what it took."""
    _of(device).time(stream, launch, tally)


__all__ = ["MOST", "Stopwatch", "timed"]
