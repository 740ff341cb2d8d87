"""Passes and swaps, without a device: each run binds a few launches, and none runs what was taken out."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tilewright.runtime.buckets import Range, Shape
from tilewright.runtime.cuda import driver, passes
from tilewright.runtime.cuda.follow import Following
from tilewright.runtime.cuda.passes import FEW
from tilewright.runtime.table import Slot, Special


class FakeKernel:
    """Says by which kernel a launch was made, and how often it was bound."""

    bound_for_good = False

    def __init__(self, name):
        self.name, self.design, self.bound = name, SimpleNamespace(hash=name), 0

    def bind(self, *_on):
        self.bound += 1
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


def made(count=3, kind=passes.Batch):
    """A pass of some launches, each of a slot of its own."""
    origin = FakeOrigin()
    shape = Shape("op", Range(8, 8), None, "f32", "cuda:0")
    slots = [Slot(n, shape, (("M", 8),), origin) for n in range(count)]
    return kind(0, 7, [followed(slot, origin) for slot in slots]), slots


def special(name):
    return Special(FakeKernel(name), (("M", 8),), 1.0, 2.0)


def swap(slot, name="fast"):
    found = special(name)
    slot.swap(found, "specialised", "for the test")
    return found


def test_a_swap_is_followed_by_the_next_run_and_bound_once():
    batch, slots = made()
    batch()
    found = swap(slots[1])
    batch()
    batch()
    assert RAN == ["generic"] * 3 + ["generic", "fast", "generic"] * 2
    assert found.kernel.bound == 1


def test_one_run_binds_a_few_launches_and_the_others_go_on_with_what_they_have():
    """However many kernels were swapped: no run waits for all of them, and each gets its own in the end."""
    batch, slots = made(2 * FEW + 1)
    batch()
    for slot in slots:
        swap(slot)
    RAN.clear()
    for fast in (FEW, 2 * FEW, 2 * FEW + 1, 2 * FEW + 1):
        batch()
        assert ["fast"] * fast + ["generic"] * (2 * FEW + 1 - fast) == RAN
        RAN.clear()


def test_a_pass_that_never_ran_waits_for_no_more():
    batch, slots = made(FEW + 2)
    for slot in slots:
        swap(slot)
    batch()
    assert RAN == ["fast"] * FEW + ["generic"] * 2


def test_a_kernel_that_was_taken_out_does_not_run_again():
    """All launches of it are replaced at once, before any that may wait."""
    batch, slots = made(3 * FEW)
    for slot in slots[FEW:]:
        swap(slot, "wrong")
    for _ in range(2):
        batch()
    for slot in slots[:FEW]:
        swap(slot, "better")
    for slot in slots[FEW:]:
        slot.swap(None, "rolled back", "it was wrong")
    RAN.clear()
    batch()
    assert RAN == ["generic"] * 3 * FEW
    batch()
    assert RAN[3 * FEW :] == ["better"] * FEW + ["generic"] * 2 * FEW


def test_a_graph_is_captured_once_when_all_of_it_is_bound(captures):
    graph, slots = made(FEW + 1, passes.Graph)
    graph()
    for slot in slots:
        swap(slot)
    RAN.clear()
    graph()
    assert (captures, RAN) == ([FEW + 1], ["generic"] * (FEW + 1))
    graph()
    graph()
    assert captures == [FEW + 1] * 2
    assert RAN[FEW + 1 :] == ["fast"] * 2 * (FEW + 1)


def test_a_graph_with_a_kernel_that_was_taken_out_is_captured_at_once(captures):
    graph, slots = made(3 * FEW, passes.Graph)
    for slot in slots[:FEW]:
        swap(slot, "wrong")
    graph()
    for slot in slots[FEW:]:
        swap(slot)
    slots[0].swap(None, "rolled back", "it was wrong")
    RAN.clear()
    graph()
    assert RAN[0] == "generic"
    assert "fast" in RAN
    while "generic" in RAN[1:] or len(captures) < 3:
        RAN.clear()
        graph()
    assert RAN == ["generic"] + ["wrong"] * (FEW - 1) + ["fast"] * 2 * FEW


@pytest.fixture
def captures(monkeypatch):
    """How many launches each capture of a graph had."""
    found = []

    def capture(_graph, launches):
        found.append(len(launches))
        return launches

    monkeypatch.setattr(passes.Graph, "_put_together", capture)
    monkeypatch.setattr(passes.Graph, "_queue", lambda _graph, ready: [run() for run in ready.runs])
    return found


def test_who_queues_launches_keeps_the_interpreter(monkeypatch):
    """A launch returns at once; a thread that gave the interpreter up for it would wait for whoever computes."""
    monkeypatch.undo()
    code = passes._code()
    assert code is not None
    held = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p).value  # stands in for the driver's launch
    words, status = (ctypes.c_int64 * 4)(held, 0, 0, 0), ctypes.c_int32()
    assert code[1](ctypes.addressof(words), 1, ctypes.addressof(status)) == 0, "it was given up"
    assert status.value == 1
