"""Launches that copy first: pointers go where they belong, and copies lie in aligned rows."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from tilewright import operators
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import packed
from tilewright.runtime.cuda.packed import PackedLaunch, packed_buffer

MATMUL = operators.matmul.kernel.trace("bf16", options={"activation": None})


class Recorded:
    """A launch that notes the pointers it ran with."""

    def __init__(self, names, log):
        self.names, self.log, self.words = names, log, [0] * len(names)

    def pointer_word(self, name):
        return self.names.index(name)

    def detached(self):
        return Recorded(self.names, self.log)

    def record(self, sources):
        return [([*sources], (self,))]

    def __call__(self):
        self.log.append(dict(zip(self.names, self.words, strict=True)))


def operands(*pointers):
    kind = Buffer.of(np.zeros(1, np.float16)).dtype
    return {n: Buffer(p, (3, 5), (5, 1), kind, "cuda:0") for n, p in zip("abc", pointers, strict=True)}


def test_copies_run_first_and_the_kernel_reads_them():
    log = []
    main, copy = Recorded(["a", "b", "c"], log), Recorded(["x", "y"], log)
    main.words[0] = copy.words[1] = 900  # where the copy of a lies, as the launches were bound
    launch = PackedLaunch(MATMUL, main, [("a", copy)], [], operands(100, 200, 300))
    launch()
    assert log == [{"x": 100, "y": 900}, {"a": 900, "b": 200, "c": 300}]
    launch.words[launch.pointer_word("a")] = 111
    launch.words[launch.pointer_word("c")] = 333
    launch()
    assert log[2:] == [{"x": 111, "y": 900}, {"a": 900, "b": 200, "c": 333}]


def test_a_detached_launch_has_pointers_of_its_own():
    log = []
    launch = PackedLaunch(MATMUL, Recorded(["a", "b", "c"], log), [], [], operands(1, 2, 3))
    other = launch.detached()
    other.words[0] = 7
    launch()
    other()
    assert [entry["a"] for entry in log] == [1, 7]
    assert other.operands == {}


class Held:
    """Memory that a launch may hold."""


def test_copies_keep_their_memory_in_a_detached_launch_and_in_its_record():
    held = Held()
    alive = weakref.ref(held)
    log = []
    main, copy = Recorded(["a", "b", "c"], log), Recorded(["x", "y"], log)
    other = PackedLaunch(MATMUL, main, [("a", copy)], [held], operands(1, 2, 3)).detached()
    del held
    gc.collect()
    assert alive() is not None
    parts = other.record([(0, 0, 0), (1, 1, 0), (2, 2, 0)])
    del other
    gc.collect()
    assert alive() is not None
    del parts
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(("shape", "unit", "strides"), [
    ((3, 5), 1, (64, 1)),
    ((5, 3), 0, (1, 64)),
    ((2, 3, 70), 2, (384, 128, 1)),
    ((2, 70, 3), 1, (384, 1, 128)),
])  # fmt: skip
def test_rows_of_a_copy_start_at_whole_lines(monkeypatch, shape, unit, strides):
    class Memory:
        def __init__(self, size):
            self.size = size

        def data_ptr(self):
            return 4096

    asked = []
    monkeypatch.setattr(packed, "device_memory", lambda size, device, zeroed: asked.append(size) or Memory(size))
    kind = Buffer.of(np.zeros(1, np.float16)).dtype
    found = packed_buffer(Buffer(2, shape, (1,) * len(shape), kind, "cuda:0"), unit, 0)
    assert (found.shape, found.strides) == (shape, strides)
    low, high = found.span
    assert low == 4096
    assert high - low <= asked[0]
