"""Passes and swaps, without a device: who swaps beside a program makes passes ready, and no run binds anything."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tilewright.runtime.buckets import Range, Shape
from tilewright.runtime.cuda import driver, passes
from tilewright.runtime.cuda.follow import Following
from tilewright.runtime.table import Slot, Special


class FakeKernel:
    """Says by which kernel a launch was made, and on which thread it was bound."""

    bound_for_good = False

    def __init__(self, name):
        self.name, self.design, self.bound = name, SimpleNamespace(hash=name), []

    def bind(self, *_on):
        self.bound.append(threading.get_ident())
        return lambda: RAN.append(self.name)


class FakeOrigin:
    """A generic kernel for all sizes."""

    number, program, device = 0, None, "cuda:0"

    def __init__(self):
        self.kernel = FakeKernel("generic")

    def generic(self, _sizes):
        return self.kernel


RAN: list[str] = []


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """None is there; a pass calls its launches one by one."""
    monkeypatch.setattr(driver, "inside", lambda _: nullcontext())
    monkeypatch.setattr(passes, "_code", lambda: None)
    monkeypatch.setattr(passes, "timed", lambda _device, _stream, launch, _tally: launch())
    RAN.clear()


def followed(slot, origin):
    bound = (None, origin.kernel.bind())
    return Following(slot, origin, bound, {}, {}, {"M": 8})


def made(count=3):
    """A pass of some launches, each of a slot of its own."""
    origin = FakeOrigin()
    shape = Shape("op", Range(8, 8), None, "f32", "cuda:0")
    slots = [Slot(n, shape, (("M", 8),), origin) for n in range(count)]
    return passes.Batch(0, 7, [followed(slot, origin) for slot in slots]), slots, origin


def special(name):
    return Special(FakeKernel(name), (("M", 8),), 1.0, 2.0)


def test_a_swap_by_nobody_in_particular_is_followed_by_the_next_run():
    batch, slots, _ = made()
    batch()
    found = special("fast")
    slots[1].swap(found, "specialised", "for the test")
    batch()
    assert RAN == ["generic"] * 3 + ["generic", "fast", "generic"]
    assert found.kernel.bound == [threading.get_ident()]


def test_who_swaps_beside_makes_passes_ready_on_its_own_thread():
    """Runs under way meanwhile go on with the kernel before; the next one afterwards has the new one, bound already."""
    batch, slots, _ = made()
    batch()
    found, inside, leave = special("fast"), threading.Event(), threading.Event()

    def beside():
        with passes.made_ready():
            slots[1].swap(found, "specialised", "for the test")
            inside.set()
            assert leave.wait(10)

    thread = threading.Thread(target=beside)
    thread.start()
    assert inside.wait(10)
    batch()
    assert RAN == ["generic"] * 6
    leave.set()
    thread.join()
    batch()
    assert RAN[6:] == ["generic", "fast", "generic"]
    assert found.kernel.bound == [thread.ident]


def test_a_kernel_that_was_taken_out_does_not_run_again_whoever_is_at_work():
    batch, slots, _ = made()
    slots[0].swap(special("wrong"), "specialised", "for the test")
    batch()
    with passes.made_ready():
        slots[0].swap(None, "rolled back", "it was wrong")
        batch()
    assert RAN == ["wrong", "generic", "generic", "generic", "generic", "generic"]


def test_a_pass_that_never_ran_is_put_together_by_its_first_run():
    batch, slots, _ = made()
    found = special("fast")
    with passes.made_ready():
        slots[2].swap(found, "specialised", "for the test")
        batch()
    assert RAN == ["generic", "generic", "fast"]


def test_a_graph_is_bound_beside_and_captured_by_the_next_run(monkeypatch):
    """Nothing is captured on the thread that swaps: whatever waits for the device meanwhile would fail."""
    captured = []

    def capture(_graph, launches):
        captured.append(threading.get_ident())
        return launches

    monkeypatch.setattr(passes.Graph, "_put_together", capture)
    monkeypatch.setattr(passes.Graph, "_queue", lambda _graph, ready: [run() for run in ready.runs])
    _, slots, origin = made(2)
    graph = passes.Graph(0, 7, [followed(slot, origin) for slot in slots])
    graph()
    found = special("fast")

    def beside():
        with passes.made_ready():
            slots[0].swap(found, "specialised", "for the test")

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert len(captured) == 1
    graph()
    assert captured == [threading.get_ident()] * 2
    assert found.kernel.bound == [thread.ident]
    assert RAN[-2:] == ["fast", "generic"]


def test_passes_that_are_made_while_others_are_made_ready():
    """A server records passes while a learner swaps: neither minds the other."""
    errors, ended = [], threading.Event()

    def swap():
        try:
            while not ended.is_set():
                with passes.made_ready():
                    pass
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=swap)
    thread.start()
    kept = [made(1)[0] for _ in range(300)]
    ended.set()
    thread.join()
    assert not errors
    assert len(kept) == 300
