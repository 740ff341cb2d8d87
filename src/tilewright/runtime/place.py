"""Where the operands of a trial lie: guarded to be checked, and to be timed where chance has no part in it."""

from __future__ import annotations

import numpy as np

from tilewright.language.dtypes import dtype
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.checks import Check
from tilewright.runtime.guard import PAGE, Guarded
from tilewright.runtime.inputs import Array, poison_of

_LINE = 64


class Place:
    """Operands of one set of sizes in memory: guarded, inputs read-only, or to be timed.

    Those that are timed begin at lines of a page that are far apart. A load that a core has under way waits for an
    earlier store to the same place of any other page; where heaps happen to put operands, that made kernels which read
    and write by turns up to twice as slow as at all other places (docs/notes/0002-cost-model.md).
    """

    def __init__(self, check: Check, changing: frozenset[str], *, guarded: bool) -> None:
        self.sizes, self.scalars, self.changing = check.operands.sizes, check.operands.scalars, changing
        self.guards: dict[str, Guarded] = {}
        self.arrays: dict[str, Array] = {}
        tensors = check.operands.tensors
        for (name, like), offset in zip(tensors.items(), apart(len(tensors)), strict=True):
            if guarded:
                self.guards[name] = Guarded(like.nbytes, check.high)
                flat = self.guards[name].array((like.nbytes,), np.uint8)
            else:
                flat = _at(offset, like.nbytes)
            order = sorted(range(like.ndim), key=lambda d: -like.strides[d])
            memory = flat.view(like.dtype).reshape([like.shape[d] for d in order])
            self.arrays[name] = memory.transpose(np.argsort(order)) if like.ndim else memory.reshape(())
        self.fill(check)

    def fill(self, check: Check) -> None:
        """Take over the operands of a check of the same sizes."""
        self.scalars = check.operands.scalars
        for guard in self.guards.values():
            guard.read_only(False)
        for name, array in self.arrays.items():
            array[...] = check.operands.tensors[name]
        for name, guard in self.guards.items():
            guard.read_only(name not in self.changing)

    def poison(self, check: Check, updates: frozenset[str]) -> None:
        """Undo what a kernel has written: poison in outputs, their first contents in updates."""
        for name in self.changing:
            if name in updates:
                self.arrays[name][...] = check.operands.tensors[name]
            else:
                self.arrays[name].fill(poison_of(dtype(self.arrays[name].dtype)))

    def buffers(self) -> dict[str, Buffer]:
        """What a kernel is bound to."""
        return {name: Buffer.of(array) for name, array in self.arrays.items()}

    def spans(self) -> dict[str, list[int]]:
        """Address and bytes of each guarded block."""
        return {name: [g.address, g.nbytes] for name, g in self.guards.items()}


def apart(count: int) -> list[int]:
    """Offsets in bytes from the start of a page, of `count` operands: whole lines, as far apart as can be."""
    return [n * PAGE // count // _LINE * _LINE for n in range(count)]


def _at(offset: int, nbytes: int) -> Array:
    """Bytes that begin `offset` bytes behind the start of a page."""
    room = np.empty(nbytes + offset + PAGE, np.uint8)
    return room[-room.ctypes.data % PAGE + offset :][:nbytes]


__all__ = ["Place", "apart"]
