"""Passes: launches that are queued in order again and again, as one call of compiled code or as a graph.

A pass counts its runs by one counter, which the counters of all its launches follow, and looks at each run whether any
kernel was swapped since: then the launches that are concerned are bound to their new kernels, and the pass is put
together, or captured, anew. What runs already goes on with what it began with.

Who swaps a kernel beside a program makes all passes ready for it first (`made_ready`): on its own thread, while they go
on with the kernel before, so that no run waits. Only a graph is captured anew by the run that comes next, as nothing on
its device may wait for a stream that is captured.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from abc import ABC, abstractmethod
from collections import Counter as Multiset
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    return library, prototype(library.address("tw_gpu_queue"))


class Pass(ABC):
    """Launches in order on one stream of a GPU. Call it to queue them all, as often as wanted."""

    def __init__(self, device: int, stream: int, launches: Sequence[Launch]) -> None:
        self._device, self._stream, self._told = device, stream, tuple(launches)
        self.launches = tuple(x.launch if isinstance(x, Later) else x for x in launches)
        self._runs = Counter()
        self._counters = Multiset(c for x in self.launches if isinstance(x, Counted) for c in (x.tally, x.shape))
        for counter, times in self._counters.items():
            counter.follow(self._runs, times)
        self._seen, self._lock = -1, threading.Lock()
        with _knowing:
            _passes.add(self)

    def __call__(self) -> None:
        if self._seen != swaps() and (self._seen < 0 or not _others_make_ready() or self._recalled()):
            self.follow()
        run = self._runs.add()
        with driver.inside(self._device):
            if run & SAMPLE == 1 and modes.has_learned():
                self._timed()
            else:
                self._queue()
        watch.tell(self._told)

    def follow(self) -> None:
        """Make ready for the kernels that the slots now say; the first time for those that were bound."""
        with self._lock:
            seen = swaps()
            if self._settle() or self._seen < 0:
                with driver.inside(self._device), streams.on(self._stream):
                    self._put_together()
            self._seen = seen  # a swap in between shows at the next run

    def make_ready(self) -> None:
        """As `follow`, on the thread of who has swapped a kernel; what never ran has nothing to be made ready."""
        if self._seen >= 0:
            self.follow()

    def _settle(self) -> bool:
        """Bind the launches that are concerned by a swap; whether there are any."""
        moved = [x for x in self.launches if isinstance(x, Following) and x.stale]
        with streams.on(self._stream):  # scratch memory that is cleared is clear then, whatever runs where
            for launch in moved:
                launch.settle()
        return bool(moved)

    def _recalled(self) -> bool:
        """Whether a kernel that it uses was taken out of its slot: that one must not run again."""
        return any(isinstance(x, Following) and x.stale and x.slot.special is None for x in self.launches)

    @abstractmethod
    def _put_together(self) -> None:
        """What a run needs, from the launches as they are."""

    @abstractmethod
    def _queue(self) -> None:
        """One run."""

    def _timed(self) -> None:
        """One run in which the first launch of each slot is timed."""
        met = set()
        with streams.on(self._stream):
            for launch in self.launches:
                if isinstance(launch, Counted) and id(launch.tally) not in met:
                    met.add(id(launch.tally))
                    timed(self._device, self._stream, launch.inner, launch.tally)
                elif isinstance(launch, Counted):
                    launch.inner()
                else:
                    launch()

    def __del__(self) -> None:
        for counter in getattr(self, "_counters", ()):
            counter.leave(self._runs)


class Batch(Pass):
    """A pass that compiled code queues launch by launch; nothing that takes long is done to put it together."""

    _ready: tuple[Any, tuple[Any, ...]] | None = None
    """The words that compiled code reads, and the calls that they are of: exchanged as one."""

    def _put_together(self) -> None:
        parts = [_calls_of(x) for x in self.launches]
        if _code() is None or any(p is None for p in parts):
            self._ready = None  # one of them has to be called by Python
            return
        calls = [call for part in parts if part is not None for call in part]
        words = [word for call in calls for word in call.addresses(self._stream)]
        self._ready = (ctypes.c_int64 * len(words))(*words), tuple(calls)

    def _queue(self) -> None:
        code, ready = _code(), self._ready
        if ready is None or code is None:
            _one_by_one(self.launches, self._stream)
            return
        words, calls = ready
        status = ctypes.c_int32()
        failed = code[1](ctypes.addressof(words), len(calls), ctypes.addressof(status))
        if failed >= 0:
            calls[failed].again(status.value)  # raises, but where another launch helps
            for call in calls[failed + 1 :]:
                call(self._stream)


class Graph(Pass):
    """A pass that was captured: the host queues it by one call of the driver. It is captured again after a swap."""

    _exec: Any = None

    def make_ready(self) -> None:
        """Bind its launches; the next run captures them."""
        with self._lock:
            if self._settle():
                self._seen = -1

    def _put_together(self) -> None:
        cu = driver.driver()
        mode = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        driver.checked(cu.cuCtxSynchronize(), "waiting before a graph is captured")  # scratch may still be cleared
        driver.checked(cu.cuStreamBeginCapture(self._stream, mode), "starting to capture a graph")
        try:
            _one_by_one(self.launches, self._stream)
        except BaseException:
            cu.cuStreamEndCapture(self._stream)  # whatever it says: what went wrong is on its way up
            raise
        graph = driver.checked(cu.cuStreamEndCapture(self._stream), "capturing a graph")
        before, self._exec = self._exec, driver.checked(cu.cuGraphInstantiate(graph, 0), "instantiating a graph")
        cu.cuGraphDestroy(graph)
        if before is not None:
            cu.cuGraphExecDestroy(before)  # the driver keeps it until what was queued of it has run

    def _queue(self) -> None:
        driver.checked(driver.driver().cuGraphLaunch(self._exec, self._stream), "launching a graph")

    def _timed(self) -> None:
        """The launches of a graph are not told apart; what they take is not known."""
        self._queue()

    def __del__(self) -> None:
        super().__del__()
        if self._exec is not None:
            driver.driver().cuGraphExecDestroy(self._exec)


_passes: weakref.WeakSet[Pass] = weakref.WeakSet()
_knowing = threading.Lock()
_at_work = 0


@contextmanager
def made_ready() -> Iterator[None]:
    """Make all passes ready for the kernels that are swapped within the `with` block, at its end and on this thread."""
    global _at_work
    _at_work += 1
    try:
        yield
        with _knowing:
            known = list(_passes)
        for one in known:
            one.make_ready()
    finally:
        _at_work -= 1


def _others_make_ready() -> bool:
    """Whether somebody is making passes ready for what was swapped: nobody else has to."""
    return _at_work > 0


def _one_by_one(launches: Iterable[Launch], stream: int) -> None:
    with streams.on(stream):
        for launch in launches:
            if isinstance(launch, Counted):
                launch.inner()  # the pass looks for swaps, and not each of its launches
            else:
                launch()


def _calls_of(launch: Any) -> list[Any] | None:
    """The calls of the driver that a launch makes, in order; None where Python does more than that."""
    inner = launch.inner if isinstance(launch, Counted) else launch
    if isinstance(inner, PackedLaunch):
        return [x.call for x in inner.launches] if all(isinstance(x, GpuLaunch) for x in inner.launches) else None
    return [inner.call] if isinstance(inner, GpuLaunch) else None


__all__ = ["Batch", "Graph", "Pass", "made_ready"]
