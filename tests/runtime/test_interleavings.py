"""Swaps and calls under every schedule of two or three threads with few preemptions, by the real code of both.

What it covers: the Python of launches, slots and passes, line by line (`interleavings`); what compiled code does with
the interpreter's lock released, as a model of its loads beside the stores of a swap. What it does not: reorderings
within a line, more preemptions, and other processors than those whose stores are seen in order, as x86's are.
"""

from __future__ import annotations

import ctypes
from itertools import product

import numpy as np
import pytest
from interleavings import explore

from tilewright.emit import abi
from tilewright.runtime import modes
from tilewright.runtime.cuda import follow
from tilewright.runtime.cuda.passes import Pass
from tilewright.runtime.launch import Dispatch, Dispatched, Launch
from tilewright.runtime.monitor import Counter
from tilewright.runtime.table import Slot, Special

WATCHED = ("runtime/launch.py", "runtime/table.py", "cuda/follow.py", "cuda/passes.py")
SIZES = {"M": 3}


class Kernel:
    """A kernel that leaves its mark in the words that it is placed in, and finds at each call whether it is there."""

    relies_on_alignment = bound_for_good = False
    program = None

    def __init__(self, mark, room, ran):
        self.mark, self.room, self.ran = mark, room, ran
        self.entry = self.run

    def place(self, words, _work, _sizes):
        words[abi.THREADS] = self.mark
        return self.room

    def run(self, address):
        words = (ctypes.c_int64 * (abi.FIRST + 1)).from_address(address)
        assert words[abi.THREADS] == self.mark, "the arguments of another kernel"
        assert bool(words[abi.WORKSPACE]) == bool(self.room), "a workspace where none was asked for"
        self.ran.append(self.mark)


def slot_of(kernel=None):
    place = (("M", 3),)
    special = None if kernel is None else Special(kernel, place, 1.0, 2.0)
    return Slot("key", "shape", place, None, special=special)


def launch_of(slot, generic):
    """A launch as `dispatch` makes it, on no operands."""
    words = np.zeros(abi.FIRST + 1, np.int64)
    room = generic.place(words, 0.0, SIZES)
    how = Dispatch(slot, lambda: generic, SIZES, None)
    return Dispatched(Launch(generic, words, room, {}), None, how, Counter(), 0.0)


def swapping(kernels, callers=2):
    """Threads that share a launch, and one that swaps; each call must be whole, counted, and no older than the swap."""

    def make():
        ran, swapped = [], []
        generic, *others = [Kernel(n + 1, room, ran) for n, room in enumerate(kernels)]
        slot = slot_of()
        launch = launch_of(slot, generic)

        def call():
            seen, before = len(swapped), len(ran)
            launch()
            assert len(ran) > before
            if seen == len(others):  # all swaps were over when it began
                assert others[-1].mark in ran[before:]

        def swap():
            for kernel in others:
                slot.swap(Special(kernel, (("M", 3),), 1.0, 2.0), "specialised", "for the test")
                swapped.append(kernel)

        def check():
            assert len(ran) == slot.calls == launch.shape.value == callers
            assert slot.swaps == len(others)
            assert 0 <= slot.hits <= slot.calls

        return (*[call] * callers, swap), check

    return make


ROOMS = pytest.mark.parametrize("rooms", [(0, 0), (0, 64), (64, 0)], ids=["no workspace", "one after", "one before"])


@ROOMS
def test_a_launch_that_two_threads_share_while_its_kernel_is_swapped(rooms):
    assert explore(swapping(rooms), WATCHED, preemptions=1) > 50


@ROOMS
def test_a_launch_and_a_swap_in_more_orders(rooms):
    assert explore(swapping(rooms, callers=1), WATCHED, preemptions=2) > 100


def test_two_swaps_while_two_threads_call():
    assert explore(swapping((0, 64, 0)), WATCHED, preemptions=1) > 50


class GpuKernel:
    """A kernel of a GPU: its launches run it, and know it."""

    bound_for_good = True

    def __init__(self, mark, ran):
        self.mark, self.ran, self.design = mark, ran, mark

    def bind(self, _buffers, _scalars, _sizes, _shared=None):
        return lambda: self.ran.append(self.mark)


class Origin:
    number = 0

    def __init__(self, generic):
        self.generic = lambda _sizes: generic


@pytest.fixture
def without_gpu(monkeypatch):
    from contextlib import nullcontext

    monkeypatch.setattr(modes, "_learned", False)
    monkeypatch.setattr(follow.driver, "inside", lambda _: nullcontext())
    monkeypatch.setattr(follow, "timed", lambda _number, _stream, launch, _tally: launch())
    monkeypatch.setattr(follow, "stream_of", lambda _: 0)


class OneByOne(Pass):
    """A pass that holds what it was put together from, as a graph holds the kernels that were captured."""

    def _put_together(self, launches):
        return list(launches)

    def _queue(self, ready):
        for run in ready.runs:
            run()


@pytest.mark.parametrize("kind", ["launch", "pass"])
def test_launches_and_passes_of_a_gpu_follow_a_swap(without_gpu, kind):
    """As on the CPU; a pass is its thread's own, and is put together anew by the run after a swap."""

    def make():
        ran, swapped = [], []
        generic, other = GpuKernel(1, ran), GpuKernel(2, ran)
        slot = slot_of()
        origin = Origin(generic)
        bound = (None, generic.bind(None, None, None))
        launches = [follow.Following(slot, origin, bound, {}, {}, SIZES) for _ in range(2)]
        calls = launches if kind == "launch" else [OneByOne(0, 0, [x]) for x in launches]

        def calling(call):
            def body():
                for _ in range(2):
                    seen, before = bool(swapped), len(ran)
                    call()
                    if seen:
                        assert 2 in ran[before:]

            return body

        def swap():
            slot.swap(Special(other, (("M", 3),), 1.0, 2.0), "specialised", "for the test")
            swapped.append(True)

        def check():
            assert len(ran) == 4 == slot.calls

        return (calling(calls[0]), calling(calls[1]), swap), check

    assert explore(make, WATCHED, preemptions=1) > 100


def test_the_explorer_finds_a_race_that_is_there():
    """A counter that is read and written in two lines loses a call, under some schedule of one preemption."""
    source = "def count(box):\n    n = box[0]\n    box[0] = n + 1\n"
    space: dict = {}
    exec(compile(source, "a/racy.py", "exec"), space)

    def make():
        box = [0]

        def check():
            assert box[0] == 2

        return [lambda: space["count"](box)] * 2, check

    with pytest.raises(AssertionError):
        explore(make, ("racy.py",), preemptions=1)


def test_compiled_code_beside_a_swap_in_every_order():
    """The loads of `tw_host_launch` between the stores of `Slot.swap` and Python's answer to a version that is new.

    Its record is one thread's, so that what it knows (`known`, `entry`) changes only between its calls.
    """
    swap = ("special", "version")  # in the order of `Slot.swap`
    load = ("version", "entry")  # in the order of the code
    orders = {o for o in product(("swap", "code"), repeat=4) if o.count("swap") == 2}
    seen = set()
    for order in orders:
        memory, known, entry = {"special": "old", "version": 0}, 0, "old"
        stores, loads, ran, version = iter(swap), iter(load), None, None
        for turn in order:
            if turn == "swap":
                what = next(stores)
                memory[what] = "new" if what == "special" else 1
            elif next(loads) == "version":
                version = memory["version"]
            elif version == known:
                ran = entry
            else:  # `HostCall.again`: the version first, the kernel after it
                known, entry = memory["version"], memory["special"]
                ran = entry
        assert ran in ("old", "new")
        if order[:2] == ("swap", "swap"):  # a call that begins after the swap
            assert ran == "new"
        assert not (known == 1 and entry == "old")  # never taken for new what is old: it would stay so
        seen.add(ran)
    assert seen == {"old", "new"}
