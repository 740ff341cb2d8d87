"""Launches on a GPU that are counted, timed now and then, and that follow their slot.

A launch looks at its slot at each call: where another kernel was put there it is bound to that one first, on the same
operands. The kernel before lives on: the driver unloads none, so that a call under way, a graph and a record of
compiled code may go on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.knobs import knobs
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import counted, driver
from tilewright.runtime.cuda.kernel import GpuKernel, GpuLaunch
from tilewright.runtime.cuda.memory import Shared
from tilewright.runtime.cuda.packed import PackedLaunch
from tilewright.runtime.cuda.stopwatch import timed
from tilewright.runtime.cuda.streams import stream_of
from tilewright.runtime.monitor import MONITOR, SAMPLE, Counter, Tally
from tilewright.runtime.record import Part
from tilewright.runtime.table import Slot, Special

Inner = GpuLaunch | PackedLaunch


class Counted:
    """A launch whose calls are counted, and sometimes timed by the GPU's own clock."""

    __slots__ = ("_add", "_add_shape", "inner", "number", "shape", "tally")

    def __init__(self, inner: Inner, number: int, tally: Tally, shape: Counter) -> None:
        self.inner, self.number, self.tally, self.shape = inner, number, tally, shape
        self._add, self._add_shape = tally.add, shape.add

    @property
    def program(self) -> Any:
        """What it computes."""
        return self.inner.program

    @property
    def operands(self) -> Mapping[str, Buffer]:
        """What it was bound to."""
        return self.inner.operands

    @property
    def words(self) -> Any:
        """Where its pointers are."""
        return self.inner.words

    @property
    def relies_on_alignment(self) -> bool:
        """Alignment on a GPU is a part of the form of a call."""
        return False

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        return self.inner.pointer_word(name)

    def detached(self) -> Counted:
        """The same launch with words of its own, which keeps no operand alive. It stays with its kernel."""
        return Counted(self.inner.detached(), self.number, self.tally, self.shape)

    def record(self, sources: Sequence[tuple[int, int, int]]) -> list[Part]:
        """What compiled code needs to launch it on other pointers, as `GpuLaunch.record`, and to count that."""
        *before, last = self.inner.record(sources)
        return [*before, counted.part(last, self.number, self.tally, self.shape)]

    def __call__(self) -> None:
        self._add_shape()
        if self._add() & SAMPLE == 1:
            timed(self.number, stream_of(self.number), self.queue, self.tally)
        else:
            self.queue()

    def queue(self) -> None:
        """Launch, uncounted."""
        self.inner()


class Following(Counted):
    """A counted launch that looks at each call whether another kernel has been put in its slot.

    What a call uses is one tuple, made anew at a swap: calls under way on other threads keep their own, whole.
    """

    __slots__ = ("_buffers", "_now", "_origin", "_scalars", "_shared", "_sizes", "slot")

    def __init__(
        self,
        slot: Slot,
        origin: Any,
        bound: tuple[Special | None, Inner],
        buffers: Mapping[str, Buffer],
        scalars: Mapping[str, float | int],
        sizes: dict[str, int],
        shared: Shared | None = None,
    ) -> None:
        self.slot, self._origin, self._now, self._shared = slot, origin, bound, shared
        self._buffers, self._scalars, self._sizes = buffers, scalars, sizes
        super().__init__(bound[1], origin.number, slot.tally(tuple(sizes.items())), MONITOR.counter(slot.shape))

    @property
    def kernel(self) -> GpuKernel:
        """The kernel in use."""
        main: GpuLaunch = self.inner.main if isinstance(self.inner, PackedLaunch) else self.inner
        return main.kernel

    @property
    def bound(self) -> tuple[Special | None, Inner]:
        """What the slot said when it was bound last, and the launch by that kernel."""
        return self._now

    @property
    def stale(self) -> bool:
        """Whether another kernel has been put in its slot since its last call."""
        return self._now[0] is not self.slot.special

    def settle(self) -> None:
        """Make ready for the kernel that the slot now says."""
        special = self.slot.special
        kernel = kernel_for(self.slot, self._origin, special, self._sizes)
        with driver.inside(self.number):
            inner = kernel.bind(self._buffers, self._scalars, self._sizes, self._shared)
        self.inner, self._now = inner, (special, inner)

    def queue(self) -> None:
        """Launch by the kernel that the slot says, uncounted."""
        now = self._now
        if now[0] is not self.slot.special:
            self.settle()
            now = self._now
        now[1]()


def followed(
    slot: Slot,
    origin: Any,
    buffers: Mapping[str, Buffer],
    scalars: Mapping[str, float | int],
    sizes: dict[str, int],
) -> Following:
    """A launch of what the slot says on these operands."""
    special = slot.special
    kernel = kernel_for(slot, origin, special, sizes)
    return Following(slot, origin, (special, kernel.bind(buffers, scalars, sizes)), buffers, scalars, sizes)


def kernel_for(slot: Slot, origin: Any, special: Special | None, sizes: dict[str, int]) -> GpuKernel:
    """The special kernel, where there is one that keeps all bits which have to be kept; else the generic one."""
    if special is None or changes_bits(origin, special, sizes):
        generic: GpuKernel = origin.generic(sizes)
        return generic
    found: GpuKernel = special.kernel
    return found


def changes_bits(origin: Any, special: Special, sizes: dict[str, int]) -> bool:
    """Whether a kernel may not be used because results are pinned to the bits of the generic one."""
    if knobs().numerics != "pinned":
        return False
    from tilewright.design.pinned import differs

    return bool(differs(origin.program.kernel, special.kernel.design, origin.generic_design(sizes)))


__all__ = ["Counted", "Following", "changes_bits", "followed", "kernel_for"]
