"""Passes: launches that are queued in order again and again, as one call of compiled code or as a graph.

A pass counts its runs by one counter, which the counters of all its launches follow, and looks at each run whether any
kernel was swapped since: then launches that are concerned are bound to their new kernels, and the pass is put together,
or captured, anew. What runs already goes on with what it began with.

No run waits long for that: each binds a few launches, and the others go on with the kernels that they have, which are
as right, until their turn comes. Only a kernel that was taken out of its slot is replaced everywhere at once.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tilewright.build.jit import Library
from tilewright.errors import TilewrightError
from tilewright.runtime import builtin, modes
from tilewright.runtime.cuda import driver, streams, watch
from tilewright.runtime.cuda.follow import Counted, Following
from tilewright.runtime.cuda.kernel import GpuLaunch
from tilewright.runtime.cuda.packed import PackedLaunch
from tilewright.runtime.cuda.recording import Later
from tilewright.runtime.cuda.stopwatch import timed
from tilewright.runtime.monitor import SAMPLE, Counter
from tilewright.runtime.table import swaps

Launch = Callable[[], object]

_TEXT = """
; Queue %count launches: for each, at %calls, the driver's launch and its three arguments. The first that fails, or -1.
define i64 @tw_gpu_queue(ptr %calls, i64 %count, ptr %status) {
entry:
  br label %next
next:
  %i = phi i64 [0, %entry], [%i_next, %launched]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %launch, label %done
launch:
  %first = shl i64 %i, 2
  %at = getelementptr i64, ptr %calls, i64 %first
  %function = load ptr, ptr %at
  %how_at = getelementptr i64, ptr %at, i64 1
  %how = load ptr, ptr %how_at
  %kernel_at = getelementptr i64, ptr %at, i64 2
  %kernel = load ptr, ptr %kernel_at
  %parameters_at = getelementptr i64, ptr %at, i64 3
  %parameters = load ptr, ptr %parameters_at
  %answer = call i32 %function(ptr %how, ptr %kernel, ptr %parameters, ptr null)
  %well = icmp eq i32 %answer, 0
  %i_next = add i64 %i, 1
  br i1 %well, label %launched, label %failed
launched:
  br label %next
failed:
  store i32 %answer, ptr %status
  ret i64 %i
done:
  ret i64 -1
}
"""


@cache
def _code() -> tuple[Library, Any] | None:
    try:
        library = builtin.library(_TEXT, ())
    except (TilewrightError, OSError):
        return None
    # Of those that keep the interpreter: who queues launches waits for nothing (see `at_once`).
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return library, prototype(library.address("tw_gpu_queue"))


FEW = 4
"""Launches that one run binds to new kernels, a tenth of a millisecond each."""


@dataclass(frozen=True, eq=False)
class Ready:
    """A pass put together of what its launches `used`, when so many swaps were `seen` and followed: exchanged as one.

    Of two threads that put a pass together at once either may be the later one; the next run sees by `seen` whether
    that was the one that knew less. Where launches were left for later runs nothing counts as seen.
    """

    seen: int
    used: tuple[Any, ...]
    runs: Any


class Pass(ABC):
    """Launches in order on one stream of a GPU. Call it to queue them all, as often as wanted."""

    def __init__(self, device: int, stream: int, launches: Sequence[Launch]) -> None:
        self._device, self._stream, self._told = device, stream, tuple(launches)
        self.launches = tuple(x.launch if isinstance(x, Later) else x for x in launches)
        self._runs = Counter()
        self._counters = Multiset(c for x in self.launches if isinstance(x, Counted) for c in (x.tally, x.shape))
        for counter, times in self._counters.items():
            counter.follow(self._runs, times)
        self._ready: Ready | None = None

    def __call__(self) -> None:
        ready = self._ready
        if ready is None or ready.seen != swaps():
            ready = self.follow()
        run = self._runs.add()
        with driver.inside(self._device):
            if run & SAMPLE == 1 and modes.has_learned():
                self._timed(ready)
            else:
                self._queue(ready)
        watch.tell(self._told)

    def follow(self) -> Ready:
        """Make ready for the kernels that the slots now say, FEW launches at a time; for the first run at any rate."""
        seen, before = swaps(), self._ready  # a swap from here on shows at the next run
        left, recalled = self._settle()
        used = tuple(x.bound if isinstance(x, Following) else x for x in self.launches)
        if before is not None and ((left and not recalled and self._waits()) or _same(used, before.used)):
            ready = replace(before, seen=_NOT_ALL if left else seen)
        else:
            with driver.inside(self._device), streams.on(self._stream):
                runs = self._put_together([_inner(x) for x in used])
            ready = Ready(_NOT_ALL if left else seen, used, runs)
        self._ready = ready
        return ready

    def _settle(self) -> tuple[bool, bool]:
        """Bind launches that are concerned by swaps: are some left for later runs, and was any kernel taken out?"""
        stale = [x for x in self.launches if isinstance(x, Following) and x.stale]
        recalled = [x for x in stale if x.slot.special is None]
        chosen = (recalled + [x for x in stale if x.slot.special is not None])[: max(FEW, len(recalled))]
        with streams.on(self._stream):  # scratch memory that is cleared is clear then, whatever runs where
            for launch in chosen:
                launch.settle()
        return len(chosen) < len(stale), bool(recalled)

    def _waits(self) -> bool:
        """Whether to run what there is until the last launch is bound."""
        return False

    @abstractmethod
    def _put_together(self, launches: Sequence[Any]) -> Any:
        """What a run needs, from launches that follow nothing; for `_queue`."""

    @abstractmethod
    def _queue(self, ready: Ready) -> None:
        """One run."""

    def _timed(self, ready: Ready) -> None:
        """One run in which the first launch of each slot is timed."""
        met = set()
        with streams.on(self._stream):
            for launch, used in zip(self.launches, ready.used, strict=True):
                if isinstance(launch, Counted) and id(launch.tally) not in met:
                    met.add(id(launch.tally))
                    timed(self._device, self._stream, _inner(used), launch.tally)
                else:
                    _inner(used)()

    def __del__(self) -> None:
        for counter in getattr(self, "_counters", ()):
            counter.leave(self._runs)


class Batch(Pass):
    """A pass that compiled code queues launch by launch; nothing that takes long is done to put it together."""

    def _put_together(self, launches: Sequence[Any]) -> tuple[Any, tuple[Any, ...]] | None:
        """The words that compiled code reads and the calls that they are of; None if Python has to call one of them."""
        parts = [_calls_of(x) for x in launches]
        if _code() is None or any(p is None for p in parts):
            return None
        calls = [call for part in parts if part is not None for call in part]
        words = [word for call in calls for word in call.addresses(self._stream)]
        return (ctypes.c_int64 * len(words))(*words), tuple(calls)

    def _queue(self, ready: Ready) -> None:
        code = _code()
        if ready.runs is None or code is None:
            _one_by_one([_inner(x) for x in ready.used], self._stream)
            return
        words, calls = ready.runs
        status = ctypes.c_int32()
        failed = code[1](ctypes.addressof(words), len(calls), ctypes.addressof(status))
        if failed >= 0:
            calls[failed].again(status.value)  # raises, but where another launch helps
            for call in calls[failed + 1 :]:
                call(self._stream)


class Captured:
    """A graph that can be launched. The driver keeps it until what was queued of it has run."""

    def __init__(self, graph: Any) -> None:
        self.handle = driver.checked(driver.driver().cuGraphInstantiate(graph, 0), "instantiating a graph")

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            driver.driver().cuGraphExecDestroy(self.handle)


class Graph(Pass):
    """A pass that was captured: the host queues it by one call of the driver. It is captured again after a swap."""

    def _waits(self) -> bool:
        """A capture takes longer than to bind a few launches: there is one for all of them."""
        return True

    def _put_together(self, launches: Sequence[Any]) -> Captured:
        cu = driver.driver()
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        driver.checked(cu.cuCtxSynchronize(), "waiting before a graph is captured")  # scratch may still be cleared
        driver.checked(cu.cuStreamBeginCapture(self._stream, mode), "starting to capture a graph")
        try:
            _one_by_one(launches, self._stream)
        except BaseException:
            cu.cuStreamEndCapture(self._stream)  # whatever it says: what went wrong is on its way up
            raise
        graph = driver.checked(cu.cuStreamEndCapture(self._stream), "capturing a graph")
        try:
            return Captured(graph)
        finally:
            cu.cuGraphDestroy(graph)

    def _queue(self, ready: Ready) -> None:
        driver.checked(driver.driver().cuGraphLaunch(ready.runs.handle, self._stream), "launching a graph")

    def _timed(self, ready: Ready) -> None:
        """The launches of a graph are not told apart; what they take is not known."""
        self._queue(ready)


_NOT_ALL = -1


def _same(used: tuple[Any, ...], before: tuple[Any, ...]) -> bool:
    return all(a is b for a, b in zip(used, before, strict=True))


def _inner(used: Any) -> Any:
    """The launch by a kernel of what a pass used: a counted one's own, or what one that follows was bound to."""
    if isinstance(used, tuple):
        return used[1]
    return used.inner if isinstance(used, Counted) else used


def _one_by_one(launches: Iterable[Launch], stream: int) -> None:
    with streams.on(stream):
        for launch in launches:
            launch()


def _calls_of(launch: Any) -> list[Any] | None:
    """The calls of the driver that a launch makes, in order; None where Python does more than that."""
    if isinstance(launch, PackedLaunch):
        return [x.call for x in launch.launches] if all(isinstance(x, GpuLaunch) for x in launch.launches) else None
    return [launch.call] if isinstance(launch, GpuLaunch) else None


__all__ = ["FEW", "Batch", "Graph", "Pass"]
