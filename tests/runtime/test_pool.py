"""The worker pool: every part runs once, phases are kept apart, and nothing blocks, leaks or outlives the process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tilewright.build.jit import Library, Target, compile_ir, load
from tilewright.errors import ArgumentError
from tilewright.runtime import pool
from tilewright.runtime import pool_ir as layout

# args: { calls[64], seen[64], errors[64], extra[64] } in i64 words; part t writes word t of each array.
FUNCTIONS = """
define internal ptr @word(ptr %args, i64 %array, i64 %i) {
  %base = mul i64 %array, 64
  %at = add i64 %base, %i
  %p = getelementptr i64, ptr %args, i64 %at
  ret ptr %p
}

; calls[t] += 1; seen[t] = 100*t + threads
define void @count(ptr %args, i64 %t, i64 %n) {
  %p = call ptr @word(ptr %args, i64 0, i64 %t)
  %c = load i64, ptr %p
  %c1 = add i64 %c, 1
  store i64 %c1, ptr %p
  %q = call ptr @word(ptr %args, i64 1, i64 %t)
  %h = mul i64 %t, 100
  %s = add i64 %h, %n
  store i64 %s, ptr %q
  ret void
}

; errors[t] += calls[t] != calls[(t+1) % n]: holds after @count if, and only if, all parts of it have ended
define void @check(ptr %args, i64 %t, i64 %n) {
  %t1 = add i64 %t, 1
  %u = urem i64 %t1, %n
  %p = call ptr @word(ptr %args, i64 0, i64 %t)
  %q = call ptr @word(ptr %args, i64 0, i64 %u)
  %a = load i64, ptr %p
  %b = load i64, ptr %q
  %differ = icmp ne i64 %a, %b
  %one = zext i1 %differ to i64
  %r = call ptr @word(ptr %args, i64 2, i64 %t)
  %e = load i64, ptr %r
  %e1 = add i64 %e, %one
  store i64 %e1, ptr %r
  ret void
}

declare i32 @usleep(i32)
declare i64 @pthread_self()

; counts after 1 ms, and 20 ms more for every part after the first; says in `extra` which thread ran part t
define void @dawdle(ptr %args, i64 %t, i64 %n) {
  %t32 = trunc i64 %t to i32
  %more = mul i32 %t32, 20000
  %us = add i32 %more, 1000
  %ignored = call i32 @usleep(i32 %us)
  %self = call i64 @pthread_self()
  %at = call ptr @word(ptr %args, i64 3, i64 %t)
  store i64 %self, ptr %at
  call void @count(ptr %args, i64 %t, i64 %n)
  ret void
}

; in place of pthread_create: keeps what the thread would have run, and creates none (the handle is the caller's own)
@kept = internal global [2 x ptr] zeroinitializer
define i32 @keep(ptr %handle, ptr %attributes, ptr %start, ptr %argument) {
  %self = call i64 @pthread_self()
  store i64 %self, ptr %handle
  %second = getelementptr ptr, ptr @kept, i64 1
  store ptr %start, ptr @kept
  store ptr %argument, ptr %second
  ret i32 0
}
define ptr @kept_at() {
  ret ptr @kept
}

; enters the pool again, from inside a region, on thread 0
define void @nest(ptr %args, i64 %t, i64 %n) {
  %first = icmp eq i64 %t, 0
  br i1 %first, label %again, label %end
again:
  %entry_at = call ptr @word(ptr %args, i64 3, i64 0)
  %pool_at = call ptr @word(ptr %args, i64 3, i64 1)
  %fns_at = call ptr @word(ptr %args, i64 3, i64 2)
  %entry = load ptr, ptr %entry_at
  %pool = load ptr, ptr %pool_at
  %fns = load ptr, ptr %fns_at
  call void %entry(ptr %pool, ptr %fns, i64 2, ptr %args)
  br label %end
end:
  ret void
}
"""


@cache
def functions() -> Library:
    return load(compile_ir(FUNCTIONS, Target.host()))


def address(name: str) -> int:
    return functions().address(name)


class Args:
    """What the functions above read and write."""

    def __init__(self) -> None:
        self.words = np.zeros((4, 64), np.int64)
        self.calls, self.seen, self.errors, self.extra = self.words
        self.address = self.words.ctypes.data


THREADS = [1, 2, 3, 7]


@pytest.fixture(params=THREADS)
def workers(request: pytest.FixtureRequest) -> Iterator[pool.Pool]:
    yield pool.get(request.param)


def test_every_part_runs_once(workers: pool.Pool) -> None:
    n, args = workers.threads, Args()
    for _ in range(50):
        workers.run([address("count")], args.address)
    assert args.calls.tolist() == [50] * n + [0] * (64 - n)
    assert args.seen[:n].tolist() == [100 * t + n for t in range(n)]
    assert workers.workers == n - 1
    workers.run([])


def test_the_caller_sleeps_until_a_long_part_has_ended() -> None:
    workers, args = pool.get(2), Args()
    workers.run([address("count")], args.address)
    for _ in range(5):
        busy = time.process_time()
        workers.run([address("dawdle"), address("check")], args.address)
        assert time.process_time() - busy < 0.015  # of 20 ms
    assert args.calls[:2].tolist() == [6, 6]
    assert not args.errors.any()


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two other processes for every core, which want all of it."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * pool.available_threads())]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.wait()


def test_every_part_runs_once_where_others_want_the_cores(busy_machine: None) -> None:
    """Sizes up to many more than the cores, two threads of the program at once; nothing is written afterwards."""

    def work(size: int, ended: list[tuple[Args, int]]) -> None:
        workers, until = pool.get(size), time.monotonic() + 0.2
        while time.monotonic() < until:
            args, phases = Args(), 2 * (1 + len(ended) % 5)
            workers.run([address("count"), address("check")] * (phases // 2), args.address)
            ended.append((args, phases // 2))

    for size in (2, 3, 7, 16):
        results: list[list[tuple[Args, int]]] = [[], []]
        threads = [threading.Thread(target=work, args=(size, ended)) for ended in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for args, times in (*results[0], *results[1]):
            assert args.calls.tolist() == [times] * size + [0] * (64 - size)
            assert not args.errors.any()


def test_no_part_begins_before_all_have_ended_of_the_phase_before(workers: pool.Pool) -> None:
    args = Args()
    phases = [address("count"), address("check")] * 10
    for _ in range(30):
        workers.run(phases, args.address)
    assert args.calls[: workers.threads].tolist() == [300] * workers.threads
    assert not args.errors.any()


def test_the_check_sees_a_missing_barrier() -> None:
    """What the test above relies on: parts run in another order are found out."""
    args = Args()
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    prototype(address("count"))(args.address, 0, 2)
    prototype(address("check"))(args.address, 0, 2)
    assert args.errors[0] == 1


def test_a_region_inside_a_region_runs_serially(workers: pool.Pool) -> None:
    args = Args()
    inner = (ctypes.c_void_p * 2)(address("count"), address("check"))
    args.extra[:3] = workers.entry_address, workers.context_address, ctypes.addressof(inner)
    for _ in range(20):
        workers.run([address("nest"), address("count"), address("check")], args.address)
    assert args.calls[: workers.threads].tolist() == [40] * workers.threads
    assert not args.errors.any()


def test_threads_of_the_program_do_not_disturb_each_other() -> None:
    workers = pool.get(2)
    everyone = [Args() for _ in range(4)]

    def work(args: Args) -> None:
        for _ in range(200):
            workers.run([address("count"), address("check")], args.address)

    threads = [threading.Thread(target=work, args=(args,)) for args in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for args in everyone:
        assert args.calls[:2].tolist() == [200, 200]
        assert not args.errors.any()


def test_idle_workers_sleep_and_wake() -> None:
    workers, args = pool.get(3), Args()
    for _ in range(3):
        workers.run([address("count")], args.address)
        time.sleep(0.01)
        busy = time.process_time()
        time.sleep(0.1)
        assert time.process_time() - busy < 0.05
    assert args.calls[:3].tolist() == [3, 3, 3]


def test_one_pool_for_each_size_and_setting() -> None:
    assert pool.get(2) is pool.get(2)
    assert pool.get(2) is not pool.get(3)
    assert pool.get(2) is not pool.get(2, pin=True)
    assert pool.get().threads == pool.available_threads()
    for bad in (0, -1, 5000):
        with pytest.raises(ArgumentError, match="threads must be"):
            pool.get(bad)


def test_threads_come_from_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_THREADS", "3")
    assert pool.available_threads() == 3
    monkeypatch.delenv("TILEWRIGHT_THREADS")
    assert pool.available_threads() == len(os.sched_getaffinity(0))


PROLOGUE = """
import os, sys, signal, threading, time
from test_pool import Args, address, pool
def count(workers, times=1):
    args = Args()
    for _ in range(times):
        workers.run([address("count"), address("check")], args.address)
    assert args.calls.tolist() == [times] * workers.threads + [0] * (64 - workers.threads), args.calls
    assert not args.errors.any()
def named():
    names = {int(t): open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")}
    return [t for t, name in names.items() if name == "tilewright\\n"]
def tasks(wanted):
    # A region does not wait for workers to begin: they take their name when they do.
    until = time.monotonic() + 600
    while len(named()) < wanted and time.monotonic() < until:
        time.sleep(0.001)
    found = named()
    assert len(found) == wanted, found
    return found
"""


def in_a_process(program: str) -> None:
    """Run a program that must end by itself, in good order."""
    path = os.pathsep.join([os.path.dirname(__file__), *(p for p in sys.path if p)])
    result = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=1200,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()


def test_the_process_ends_cleanly_and_workers_with_it() -> None:
    in_a_process("""
workers = [pool.get(n) for n in (2, 3)]
tasks(0)
for w in workers: count(w)
tasks(3)
workers[0].stop(); workers[0].stop()
assert workers[0].workers == 0
count(workers[0])
pool._stop_all()  # a pool that it cannot stop in time keeps its workers
assert named() == []
count(workers[1])
""")


def test_a_forked_child_makes_workers_of_its_own() -> None:
    in_a_process("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads is what this is about
workers = pool.get(3)
count(workers)  # compiles: the lock of a compiler at work would stay closed in the child for ever
stop = threading.Event()
other = threading.Thread(target=lambda: [count(workers) for _ in iter(stop.is_set, True)])
other.start()  # keeps the pool busy at the moment of the fork
for _ in range(10):
    child = os.fork()
    if not child:
        try:
            assert workers.workers == 0
            count(workers, 5)
            tasks(2)
            count(pool.get(2))
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
other.join()
count(workers, 5)
""")


def test_a_worker_that_cannot_be_created_leaves_a_serial_pool() -> None:
    in_a_process("""
from tilewright.build import jit
fail = jit.load(jit.compile_ir("define i32 @fail(ptr %a, ptr %b, ptr %c, ptr %d) { ret i32 11 }", jit.Target.host()))
jit.add_symbol("pthread_create", fail.address("fail"))
workers = pool.get(4)
count(workers, 3)
assert workers.workers == 0 and named() == []
""")


# The pool believes in a worker that has yet to begin: the most that can happen to one on a busy machine.
UNBEGUN = """
import ctypes
from test_pool import layout
from tilewright.build import jit
jit.add_symbol("pthread_create", address("keep"))
workers, args = pool.get(2), Args()
for _ in range(3):
    workers.run([address("count"), address("check")] * 5, args.address)
assert workers.workers == 1
assert args.calls[:2].tolist() == [15, 15] and not args.errors.any()
"""


def test_parts_that_no_worker_begins_are_run_by_the_caller() -> None:
    in_a_process(UNBEGUN + "os._exit(0)")


def test_a_worker_that_comes_late_touches_nothing_and_serves_the_next_region() -> None:
    in_a_process(
        UNBEGUN
        + """
before = args.words.copy()
kept_at = ctypes.CFUNCTYPE(ctypes.c_void_p)(address("kept_at"))()
start, argument = (ctypes.c_void_p * 2).from_address(kept_at)
worker = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(start)
threading.Thread(target=worker, args=(argument,), daemon=True).start()
while not workers._read(layout.ASLEEP) & 1:
    time.sleep(0.001)
assert (args.words == before).all()
while args.extra[0] == args.extra[1]:
    workers.run([address("dawdle")], args.address)
os._exit(0)
"""
    )


def test_workers_on_the_core_of_the_caller() -> None:
    in_a_process("""
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
workers = [pool.get(n) for n in (2, 3, 7)]
for w in workers:
    for _ in range(20): count(w, 10)
time.sleep(0.01)
busy = time.process_time()
time.sleep(0.2)
assert time.process_time() - busy < 0.02
""")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a second core")
def test_workers_that_are_woken_keep_off_the_callers_core() -> None:
    in_a_process("""
from test_pool import layout
cores = os.sched_getaffinity(0)
workers = pool.get(2)
count(workers)
(worker,) = tasks(1)
for core in sorted(cores)[:2] * 2:
    os.sched_setaffinity(0, {core})
    while not workers._read(layout.ASLEEP) & 1:
        time.sleep(0.001)
    count(workers)
    assert os.sched_getaffinity(worker) == cores - {core}
""")


def test_workers_of_a_crowded_pool_may_run_anywhere() -> None:
    in_a_process("""
from test_pool import layout
cores = os.sched_getaffinity(0)
workers = pool.get(len(cores) + 1)
for _ in range(3):
    count(workers)
    while not workers._read(layout.ASLEEP) & 1:
        time.sleep(0.001)
assert all(os.sched_getaffinity(t) == cores for t in tasks(len(cores)))
""")


def test_workers_can_be_bound_to_cores() -> None:
    in_a_process("""
cores = sorted(os.sched_getaffinity(0))
count(pool.get(2, pin=True), 3)
(worker,) = tasks(1)
assert os.sched_getaffinity(worker) == {cores[1 % len(cores)]}
assert os.sched_getaffinity(0) == set(cores)
""")


def test_signals_stay_with_the_threads_of_the_program() -> None:
    in_a_process("""
count(pool.get(2))
(worker,) = tasks(1)
status = open(f"/proc/self/task/{worker}/status").read()
blocked = int(status.split("SigBlk:")[1].split()[0], 16)
assert blocked >> (signal.SIGINT - 1) & 1 and blocked >> (signal.SIGALRM - 1) & 1
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
""")


def test_the_code_is_compiled_by_the_first_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    compiled = """
calls = []
real = pool.compile_ir
pool.compile_ir = lambda *arguments: calls.append(1) or real(*arguments)
count(pool.get(2))
assert len(calls) == {}
"""
    in_a_process(compiled.format(1))
    in_a_process(compiled.format(0))


def test_the_text_serves_both_processor_families() -> None:
    import llvmlite.binding as llvm

    for machine in ("x86_64", "aarch64"):
        llvm.parse_assembly(layout.pool_ir(machine), llvm.create_context()).verify()
    assert "pause" in layout.pool_ir("x86_64")
    assert "yield" in layout.pool_ir("aarch64")
