"""Kernels in the hand: a compiled operator, bound to operands, and called; and calls that follow the table."""

from __future__ import annotations

import ctypes
import math
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilewright.build.kernel_cache import Binary
from tilewright.design.design import Design
from tilewright.design.pinned import differs
from tilewright.emit import abi
from tilewright.language import ir
from tilewright.runtime import pool
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.host_record import HostCall
from tilewright.runtime.monitor import SAMPLE, Counter
from tilewright.runtime.record import Part
from tilewright.runtime.table import Slot, Special

PROTOTYPE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

# A region on the pool costs about a microsecond: less work than this (in seconds, at the rates below) runs alone.
_WORTH_A_TEAM = 6e-6
_BYTES_A_SECOND, _FLOPS_A_SECOND = 20e9, 60e9


@dataclass(frozen=True)
class Kernel:
    """A compiled operator for one class of operands: call `bind` to get launches."""

    name: str
    program: ir.Kernel
    design: Design
    binary: Binary
    flops_of: tuple[tuple[str, ...], ...]  # for each dot, the axes' dims whose product is its multiplications
    entry: Any = field(repr=False, compare=False)

    def bind(self, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int], sizes: dict[str, int]) -> Launch:
        """A launch on these operands."""
        given = [0] * abi.FIRST
        for p in self.program.params:
            if p.dims is not None:
                buffer = buffers[p.name]
                given.append(buffer.pointer)
                given += buffer.strides
        given += [sizes[dim] for dim in self.program.dims]
        given += [_scalar_bits(p, scalars[p.name]) for p in self.program.params if p.dims is None]
        words = np.array(given, np.int64)
        return Launch(self, words, self.place(words, self.work(buffers, sizes), sizes), buffers)

    def work(self, buffers: Mapping[str, Buffer], sizes: Mapping[str, int]) -> float:
        """Seconds that a call may take one thread, roughly: it decides how many are worth calling."""
        work = sum([math.prod(b.shape) * b.dtype.bytes for b in buffers.values()]) / _BYTES_A_SECOND
        for dims in self.flops_of:
            work += 2.0 * math.prod([sizes[d] for d in dims]) / _FLOPS_A_SECOND
        return work

    def place(self, words: np.ndarray, work: float, sizes: dict[str, int]) -> int:
        """Note in `words` on what threads this kernel runs; the bytes of workspace that a call takes."""
        team = self._team(work)
        words[abi.POOL], words[abi.ENTRY] = (0, 0) if team is None else (team.context_address, team.entry_address)
        threads = 1 if team is None else team.threads
        words[abi.THREADS] = threads
        return sum([r.bytes(sizes) * (threads if r.per_thread else 1) for r in self.binary.workspace])

    def _team(self, work: float) -> pool.Pool | None:
        """The pool, where there is enough to do; of no more threads than the design says it pays to use."""
        if work < _WORTH_A_TEAM:
            return None
        available = pool.available_threads()
        team = pool.get(min(available, self.design.number("threads", available)))
        return team if team.threads > 1 else None

    @property
    def relies_on_alignment(self) -> bool:
        """Whether it is right only where pointers lie as they did when it was bound."""
        return any(True for _ in self.design.prefixed("nontemporal"))

    @property
    def bound_for_good(self) -> bool:
        """Whether calls known by their form must be bound anew for it: they look where memory lies only if asked to."""
        return self.relies_on_alignment


class Launch:
    """A kernel tied to its operands: call it, as often as wanted, on what the memory then holds."""

    __slots__ = ("_address", "_entry", "_room", "kernel", "operands", "words")

    def __init__(self, kernel: Kernel, words: np.ndarray, room: int, operands: Mapping[str, Buffer]) -> None:
        self.kernel = kernel
        self.words = words  # see emit.abi
        self.operands = operands  # whose owners keep their memory alive
        self._address: int = words.__array_interface__["data"][0]
        self._entry = kernel.entry
        self._room = room

    def __call__(self) -> None:
        if self._room:
            _run_in_arena(self._entry, self.words, self._room)
        else:
            self._entry(self._address)

    @property
    def program(self) -> ir.Kernel:
        """What it computes."""
        return self.kernel.program

    @property
    def relies_on_alignment(self) -> bool:
        """Whether its kernel is right only where pointers lie as they did when it was bound."""
        return self.kernel.relies_on_alignment

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        return abi.tensor_word(self.kernel.program, name)

    def detached(self) -> Launch:
        """The same launch with words of its own, which keeps no operand alive."""
        return Launch(self.kernel, self.words.copy(), self._room, {})

    @property
    def room(self) -> int:
        """Bytes of workspace that a call takes."""
        return self._room

    def run_in(self, workspace: int) -> None:
        """As a call, in `room` bytes at this address, a multiple of 64."""
        self.words[abi.WORKSPACE] = workspace
        self._entry(self._address)


@dataclass(frozen=True, eq=False)
class Dispatch:
    """How a launch gets its kernel: from its slot while that has a special one that may serve, else the generic one.

    `pinned` is the generic design where every swap must leave each output bit as it was.
    """

    slot: Slot
    generic: Callable[[], Kernel]
    sizes: dict[str, int]
    pinned: Design | None

    def kernel(self, special: Special | None, strict: bool) -> Kernel:
        """The kernel to use. A `strict` launch takes none that relies on where memory lies."""
        if special is None or (strict and special.kernel.relies_on_alignment):
            return self.generic()
        if self.pinned is not None and differs(special.kernel.program, special.kernel.design, self.pinned):
            return self.generic()
        kernel: Kernel = special.kernel
        return kernel


class Dispatched(Launch):
    """A launch that is counted, and that looks at each call whether another kernel has been put in its slot.

    What a call uses is one tuple, made anew at a swap: calls under way on other threads keep their own, whole.
    """

    __slots__ = ("_add", "_add_shape", "_dispatch", "_now", "_strict", "_work", "shape", "slot", "tally")

    def __init__(
        self,
        launch: Launch,
        special: Special | None,
        dispatch: Dispatch,
        shape: Counter,
        work: float,
        strict: bool = False,
    ) -> None:
        super().__init__(launch.kernel, launch.words, launch.room, launch.operands)
        self._dispatch, self.slot, self._work = dispatch, dispatch.slot, work
        self._strict = strict
        self._now = (special, launch.kernel.entry, self._address, self._room, self.words, self.kernel)
        self.tally = dispatch.slot.tally(tuple(dispatch.sizes.items()))
        self.shape, self._add_shape, self._add = shape, shape.add, self.tally.add

    def __call__(self) -> None:
        self._add_shape()
        if self._add() & SAMPLE == 1:
            begun = time.perf_counter()
            self._run()
            self.tally.took(time.perf_counter() - begun)
            return
        now = self._now
        if now[0] is not self.slot.special:
            now = self._adopt()
        if now[3]:
            _run_in_arena(now[1], now[4], now[3])
        else:
            now[1](now[2])

    def detached(self) -> Dispatched:
        """The same launch with words of its own, which keeps no operand alive. It cannot come to rely on alignment."""
        bare = Launch(self.kernel, self.words.copy(), self._room, {})
        own = Dispatched.__new__(Dispatched)
        Launch.__init__(own, bare.kernel, bare.words, bare.room, {})
        own._dispatch, own.slot, own._work = self._dispatch, self.slot, self._work
        own._strict = self._strict or not self.relies_on_alignment
        own._now = (self._now[0], self._entry, own._address, own._room, own.words, own.kernel)
        own.tally, own.shape, own._add_shape, own._add = self.tally, self.shape, self._add_shape, self._add
        return own

    def record(self, sources: Sequence[tuple[int, int, int]]) -> list[Part]:
        """What compiled code needs to run it on other pointers; the record takes over, and its words with it."""
        return [HostCall(self).part(sources)]

    def settled(self) -> tuple[Kernel, int]:
        """The kernel that the slot now says, placed in these very words, and its bytes of workspace."""
        kernel = self._dispatch.kernel(self.slot.special, self._strict)
        return kernel, kernel.place(self.words, self._work, self._dispatch.sizes)

    def run_by(self, kernel: Kernel, room: int) -> None:
        """Run a settled kernel; the call is counted already."""
        if room:
            _run_in_arena(kernel.entry, self.words, room)
        else:
            kernel.entry(self._address)

    def _run(self) -> None:
        """A call that is counted already."""
        now = self._now
        if now[0] is not self.slot.special:
            now = self._adopt()
        if now[3]:
            _run_in_arena(now[1], now[4], now[3])
        else:
            now[1](now[2])

    def _adopt(self) -> tuple[Special | None, Any, int, int, np.ndarray, Kernel]:
        """Make ready for the kernel that the slot now says."""
        special = self.slot.special
        kernel, words = self._dispatch.kernel(special, self._strict), self.words.copy()
        room = kernel.place(words, self._work, self._dispatch.sizes)
        now = (special, kernel.entry, words.ctypes.data, room, words, kernel)
        self.kernel, self.words, self._address, self._room, self._entry = kernel, words, now[2], room, kernel.entry
        self._now = now
        return now


def _scalar_bits(p: ir.Param, value: float | int) -> int:
    if p.dtype.name == "f32":
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    if p.dtype.name == "f64":
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    return int(value)


_local = threading.local()


def _run_in_arena(entry: Any, words: np.ndarray, room: int) -> None:
    """Run a kernel in this thread's workspace, from words of this call's own.

    Threads may share a launch: words that they share would send one to the workspace of another, which ends with it.
    """
    own = words.copy()
    own[abi.WORKSPACE] = _arena(room)
    entry(own.__array_interface__["data"][0])


def _arena(room: int) -> int:
    """Address of at least `room` bytes of this thread's workspace, aligned to cache lines."""
    if getattr(_local, "room", 0) < room:
        _local.memory = np.empty(room + 64, np.uint8)
        _local.address = -(-_local.memory.ctypes.data // 64) * 64
        _local.room = room
    address: int = _local.address
    return address


__all__ = ["PROTOTYPE", "Dispatch", "Dispatched", "Kernel", "Launch"]
