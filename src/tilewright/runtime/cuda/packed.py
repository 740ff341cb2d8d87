"""A launch whose operands are copied first: every copy, and then the kernel on the copies."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from tilewright.design.gpu.packing import ALIGNED
from tilewright.language import ir
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.memory import device_memory
from tilewright.runtime.record import Part

_Part = tuple[Any, tuple[tuple[int, int], ...]]


class PackedLaunch:
    """A kernel on operands of any alignment: call it, as often as wanted, on what their memory then holds.

    `copies` are launches from an operand `x` to a copy that `main` was bound to. `memory` is what holds these copies:
    this launch's own, for a detached launch keeps no operand, and a copy is an operand of `main`.
    """

    __slots__ = ("_copies", "_lock", "_main", "_memory", "_names", "_parts", "_program", "operands", "words")

    def __init__(
        self,
        program: ir.Kernel,
        main: Any,
        copies: Sequence[tuple[str, Any]],
        memory: Sequence[Any],
        operands: Mapping[str, Buffer],
    ) -> None:
        self._program, self._main, self._copies, self.operands = program, main, tuple(copies), operands
        self._memory = tuple(memory)
        self._names = tuple(p.name for p in program.params if p.dims is not None)
        self.words = memoryview(array("q", [0] * len(self._names)))
        for name, buffer in operands.items():
            self.words[self.pointer_word(name)] = buffer.pointer
        copied = {name for name, _ in copies}
        sources = [(launch, ((launch.pointer_word("x"), self.pointer_word(name)),)) for name, launch in copies]
        own = tuple((main.pointer_word(n), self.pointer_word(n)) for n in self._names if n not in copied)
        self._parts: tuple[_Part, ...] = (*sources, (main, own))
        self._lock = threading.Lock()

    @property
    def program(self) -> ir.Kernel:
        """What it computes."""
        return self._program

    @property
    def relies_on_alignment(self) -> bool:
        """Alignment on a GPU is a part of the form of a call."""
        return False

    @property
    def main(self) -> Any:
        """The launch that follows the copies."""
        return self._main

    @property
    def launches(self) -> tuple[Any, ...]:
        """All of its launches, in order."""
        return tuple(launch for launch, _ in self._parts)

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        return self._names.index(name)

    def detached(self) -> PackedLaunch:
        """The same launch with words of its own, which keeps no operand alive."""
        copies = [(n, c.detached()) for n, c in self._copies]
        made = PackedLaunch(self._program, self._main.detached(), copies, self._memory, {})
        made.words[:] = self.words
        return made

    def record(self, sources: Sequence[tuple[int, int, int]]) -> list[Part]:
        """What compiled code needs to launch copies and kernel on other pointers, as `GpuLaunch.record`.

        A part keeps this launch, and with it the memory of its copies.
        """
        given = {word: (n, offset) for word, n, offset in sources}
        parts = [launch.record([(there, *given[here]) for there, here in pointers]) for launch, pointers in self._parts]
        return [(words, (self, *kept)) for part in parts for words, kept in part]

    def __call__(self) -> None:
        with self._lock:
            for launch, pointers in self._parts:
                for there, here in pointers:
                    launch.words[there] = self.words[here]
                launch()


def packed_buffer(buffer: Buffer, unit: int, device: int) -> Buffer:
    """Memory for a copy of `buffer` whose rows along dimension `unit` start at multiples of ALIGNED bytes."""
    width = buffer.dtype.bytes
    order = [*(d for d in range(len(buffer.shape)) if d != unit), unit]
    strides, step = [0] * len(buffer.shape), 1
    for d in reversed(order):
        strides[d] = step
        step *= buffer.shape[d]
        if d == unit:
            step = -(-step * width // ALIGNED) * ALIGNED // width
    memory = device_memory(step * width, device, zeroed=False)
    return Buffer(memory.data_ptr(), buffer.shape, tuple(strides), buffer.dtype, buffer.device, memory)


__all__ = ["PackedLaunch", "packed_buffer"]
