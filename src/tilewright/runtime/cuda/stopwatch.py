"""Times of launches by events of the GPU, read when they have long passed: nobody waits for one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any

from tilewright.runtime.cuda import driver
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
            self._collect()
            pair = None if self._capturing(stream) else self._pair()
            if pair is None:
                launch()
                return
            cu.cuEventRecord(pair[0], stream)
            launch()
            cu.cuEventRecord(pair[1], stream)
        with self._lock:
            self._under_way.append((*pair, tally))

    def _capturing(self, stream: int) -> bool:
        """Whether a graph is being made of what is queued: an event in it would tell no time."""
        cu = driver.driver()
        status, found = cu.cuStreamIsCapturing(stream)
        return bool(int(status)) or int(found) != int(cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)

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
