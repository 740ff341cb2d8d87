"""The threads that kernels run on: workers that are called from compiled code and cost under a microsecond to call.

Compiled code calls `tw_parallel_phases(ptr pool, ptr fns, i64 count, ptr args)`, at `Pool.entry_address`, with
`Pool.context_address` as its first argument. Each of the `count` functions in turn is called once for every part, as
`fn(ptr args, i64 part, i64 threads)` with part = 0 .. threads - 1, and no part of a function begins before all parts of
the one before have ended. The calling thread runs part 0, worker t usually part t; what a worker has not begun when
another thread is through, because other programs have its core, that thread runs too. Workers that find nothing to do
poll for `SPIN_SECONDS`, then sleep in the kernel; those that are woken keep off the caller's core.

A pool that is busy, with another thread of the program or because the call came from inside a region, does not block:
the caller runs every part itself, phase after phase. So the parts of a function may not wait for each other.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tilewright.build.cache import cache_key, disk_cache
from tilewright.build.jit import Library, Target, compile_ir, compiler_version, load
from tilewright.errors import ArgumentError
from tilewright.knobs import knobs
from tilewright.runtime import pool_ir as layout

SPIN_SECONDS = 50e-6
"""How long a worker polls for its next call: longer than the gap between two kernels, short enough to idle."""

_MOST_THREADS = 4096
_STOP_SECONDS = 2.0

_Word = ctypes.c_int64
_pools: dict[tuple[int, bool], Pool] = {}
_lock = threading.Lock()
_pin = False


def available_threads() -> int:
    """Threads to use if nothing else is asked for: TILEWRIGHT_THREADS, else the cores this process may run on."""
    cores = len(os.sched_getaffinity(0))
    return min(knobs().threads or cores, _MOST_THREADS)


def pin_threads() -> None:
    """From now on `get` binds threads to cores unless told not to: for a process that does nothing but measure."""
    global _pin
    _pin = True


def get(threads: int | None = None, *, pin: bool | None = None) -> Pool:
    """The pool of `threads` threads (default: `available_threads()`), the caller's included; the same one every time.

    `pin` binds worker t to the t-th core that this process may use, and leaves the first to the caller. Threads are
    created by the first region, and again by the first region of a forked child.
    Raises ArgumentError unless 1 <= threads <= 4096.
    """
    threads, pin = available_threads() if threads is None else threads, _pin if pin is None else pin
    if not 1 <= threads <= _MOST_THREADS:
        raise ArgumentError(f"threads must be from 1 to {_MOST_THREADS}, got {threads}")
    with _lock:
        if not _pools:
            atexit.register(_stop_all)
        pool = _pools.get((threads, pin))
        if pool is None:
            pool = _pools[threads, pin] = Pool(threads, pin)
        return pool


class Pool:
    """Threads that run regions; made by `get`, and alive until the process ends."""

    def __init__(self, threads: int, pin: bool) -> None:
        self.threads = threads
        self.entry_address = _code().address("tw_parallel_phases")
        """Address of `void tw_parallel_phases(ptr pool, ptr fns, i64 count, ptr args)`."""
        size = layout.WORKERS + threads * layout.LINE
        self._memory = ctypes.create_string_buffer(size + layout.LINE)
        self.context_address = -(-ctypes.addressof(self._memory) // layout.LINE) * layout.LINE
        """Its first argument: the state of this pool."""
        self._enter = _function("tw_parallel_phases", None, 2 * [ctypes.c_void_p] + [_Word, ctypes.c_void_p])
        self._describe(sorted(os.sched_getaffinity(0)) if pin else [])

    def _describe(self, cores: list[int]) -> None:
        self._write(layout.THREADS, self.threads)
        # With more threads than cores a worker that polls keeps another from its part.
        crowded = self.threads > len(os.sched_getaffinity(0))
        self._write(layout.SPIN, _turns(SPIN_SECONDS / 100 if crowded else SPIN_SECONDS))
        if not cores and not crowded:
            self._let_roam(os.sched_getaffinity(0))
        for t in range(self.threads):
            record = layout.WORKERS + t * layout.LINE
            self._write(record + layout.POOL, self.context_address)
            self._write(record + layout.INDEX, t)
            self._write(record + layout.CORE, cores[t % len(cores)] if cores else -1)

    def _let_roam(self, cores: set[int]) -> None:
        """Have workers run on all of `cores` but the caller's; as before with one core, or more than a mask names."""
        if len(cores) > 1 and max(cores) < layout.CORES_KNOWN:
            mask = sum(1 << core for core in cores).to_bytes(layout.CORES_KNOWN // 8, "little")
            ctypes.memmove(self.context_address + layout.CORES, mask, len(mask))
            self._write(layout.ROAMING, 1)

    def run(self, functions: Sequence[int], args: int = 0) -> None:
        """Run a region: the addresses of its phases' functions, and the address that each is given."""
        table = (ctypes.c_void_p * len(functions))(*functions)
        self._enter(self.context_address, ctypes.addressof(table), len(functions), args)

    @property
    def workers(self) -> int:
        """Workers that run now: 0 before the first region, then threads - 1."""
        return self._read(layout.CREATED)

    def stop(self) -> None:
        """End the workers and wait for them; later regions run on the caller alone. Waits 2 s for a region to end."""
        if self._read(layout.STOP):
            return
        claim = _function("tw_pool_claim", ctypes.c_bool, [ctypes.c_void_p])
        deadline = time.monotonic() + _STOP_SECONDS
        while not claim(self.context_address):
            if time.monotonic() > deadline:
                return  # a thread of the program is inside for good: the workers end with the process
            time.sleep(0.001)
        self._write(layout.STATE, layout.SERIAL)
        _function("tw_pool_stop", None, [ctypes.c_void_p])(self.context_address)

    def _forget_workers(self) -> None:
        """In a forked child, where only the forking thread goes on: begin anew."""
        for offset in (layout.GO, layout.BUSY, layout.ASLEEP, layout.STATE, layout.CREATED, layout.STOP):
            self._write(offset, 0)
        for t in range(self.threads):
            for word in (layout.PART, layout.AWAY):
                self._write(layout.WORKERS + t * layout.LINE + word, 0)

    def _read(self, offset: int) -> int:
        return _Word.from_address(self.context_address + offset).value

    def _write(self, offset: int, value: int) -> None:
        _Word.from_address(self.context_address + offset).value = value


# ------------------------------------------------------------------------------------------ the compiled code
@cache
def _code() -> Library:
    text, target, store = layout.pool_ir(), Target.host(), disk_cache()
    key = cache_key(text, target.fingerprint, compiler_version())
    code = store.get(key, "o")
    if code is None:
        code = compile_ir(text, target)
        store.put(key, "o", code)
    return load(code)


@cache
def _turns(seconds: float) -> int:
    """Turns of the waiting loop that take `seconds` (a `pause` is 10 to 140 cycles, by processor)."""
    spin = _function("tw_pool_spin", None, [_Word, ctypes.c_void_p])
    polled = _Word(0)
    trial = 500
    fastest = min(_elapsed(lambda: spin(trial, ctypes.addressof(polled))) for _ in range(5))
    return max(1, round(seconds / fastest * trial))


def _elapsed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def _function(symbol: str, result: Any, arguments: Sequence[Any]) -> Callable[..., Any]:
    """A function of the pool's code for Python to call; the interpreter lock is released during the call."""
    return ctypes.CFUNCTYPE(result, *arguments)(_code().address(symbol))


# ------------------------------------------------------------------------------------------ exit and fork
def _stop_all() -> None:
    for pool in _pools.values():
        pool.stop()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for pool in _pools.values():
        pool._forget_workers()


os.register_at_fork(after_in_child=_after_fork_in_child)
