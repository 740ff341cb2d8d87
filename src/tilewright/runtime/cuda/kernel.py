"""A kernel on a GPU: compiled and loaded, and tied to operands by a launch."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tilewright.build.cuda_kernel import CudaBinary
from tilewright.build.kernel_cache import Request
from tilewright.design.design import Design
from tilewright.design.gpu.product import product
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_abi import MAP_BYTES, TensorMap, Words, argument_bytes
from tilewright.errors import LaunchError
from tilewright.language import ir
from tilewright.machines.machine import Machine
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.memory import Shared, device_memory
from tilewright.runtime.cuda.packed import PackedLaunch, packed_buffer
from tilewright.runtime.cuda.streams import stream_of
from tilewright.runtime.record import Part, launch_words

_WIDEST = 128
"""Bytes: no access and no tensor map asks for a stricter alignment."""


@dataclass(frozen=True)
class GpuKernel:
    """A compiled operator on one device: call `bind` to get launches."""

    request: Request
    binary: CudaBinary
    function: driver.Function
    machine: Machine = field(repr=False)
    packs: tuple[tuple[str, GpuKernel], ...] = ()  # copies of operands that come first

    @property
    def name(self) -> str:
        """The name of the tile program."""
        return self.request.kernel.name

    @property
    def design(self) -> Design:
        """How it computes."""
        return self.request.design

    @property
    def bound_for_good(self) -> bool:
        """Calls that are known by their form hold the arguments of one kernel, as the driver takes them."""
        return True

    def bind(
        self,
        buffers: Mapping[str, Buffer],
        scalars: Mapping[str, float | int],
        sizes: Mapping[str, int],
        shared: Shared | None = None,
    ) -> GpuLaunch | PackedLaunch:
        """A launch on these operands, its scratch memory its own or `shared` with what runs before and after it."""
        if not self.packs:
            return self._bound(buffers, scalars, sizes, shared)
        copies, inside = [], dict(buffers)
        for name, copy in self.packs:
            strides = dict(copy.request.layouts)["y"].strides
            inside[name] = packed_buffer(buffers[name], strides.index(1), self.function.device)
            dims = dict(zip(("B", "R", "C")[3 - len(strides) :], buffers[name].shape, strict=True))
            copies.append((name, copy._bound({"x": buffers[name], "y": inside[name]}, {}, dims)))
        memory = [inside[name].owner for name, _ in copies]
        return PackedLaunch(self.request.kernel, self._bound(inside, scalars, sizes, shared), copies, memory, buffers)

    def _bound(
        self,
        buffers: Mapping[str, Buffer],
        scalars: Mapping[str, float | int],
        sizes: Mapping[str, int],
        shared: Shared | None = None,
    ) -> GpuLaunch:
        module, program, words = self.binary.module, self.request.kernel, self._words
        argument = driver.argument_memory(argument_bytes(len(module.maps), words.count))
        slots = argument[MAP_BYTES * len(module.maps) :].view(np.int64)
        for n, described in enumerate(module.maps):
            found = encoded(described, buffers[described.tensor])
            argument[MAP_BYTES * n : MAP_BYTES * (n + 1)] = np.frombuffer(found, np.uint8)
        scratch = self._scratch(slots, words, sizes, shared)
        for p in program.params:
            if p.dims is None:
                slots[words.scalar(p.name)] = _scalar_bits(p, scalars[p.name])
            else:
                at = words.tensor(p.name)
                slots[at] = buffers[p.name].pointer
                slots[at + 1 : at + 1 + len(p.dims)] = buffers[p.name].strides
        for dim in program.dims:
            slots[words.dim(dim)] = sizes[dim]
        blocks = module.grid.blocks(sizes, self._resident())
        early = module.pdl and self._starts_early(blocks, buffers)
        call = driver.Call(
            self.name, self.function, argument, blocks, module.threads, module.shared_bytes, module.grid.cluster, early
        )
        return GpuLaunch(self, call, words, scratch, buffers)

    @cached_property
    def _words(self) -> Words:
        return self.binary.module.words(self.request.kernel)

    def _starts_early(self, blocks: int, buffers: Mapping[str, Buffer]) -> bool:
        """Whether it pays to be there before the last kernel has gone; only products are ever better off later."""
        if not self._is_product:
            return True
        read = self.machine.memory.read or self.machine.memory.bandwidth
        moved = sum(b.size * b.dtype.bytes for b in buffers.values())
        return not read or starts_early(blocks / self._resident(), moved / read)

    @cached_property
    def _is_product(self) -> bool:
        return not isinstance(product(self.request.kernel), str)

    def _resident(self) -> int:
        return self.function.resident * self.machine.cores

    def _scratch(self, slots: np.ndarray, words: Words, sizes: Mapping[str, int], shared: Shared | None) -> list[Any]:
        owners, parts = list[Any](), self.binary.module.scratch
        if len([p for p in parts if not p.zeroed]) > 1:
            shared = None  # they would be one
        for part in parts:
            size = part.reserve.bytes(dict(sizes))
            if shared is None:
                memory = device_memory(size, self.function.device, zeroed=part.zeroed)
            else:
                memory = shared.take(size, part.zeroed, self.function.handle)
            slots[words.scratch_word(part.name)] = memory.data_ptr()
            owners.append(memory)
        return owners


_MOST_WAVES, _LONG_BLOCK = 3.0, 5e-6
"""Waves and seconds of a block: where waves are fewer and blocks longer, one that finds no place at first is missed."""


def starts_early(waves: float, seconds: float) -> bool:
    """Whether a product of so many waves and seconds should start while the kernel before it still runs.

    What still runs takes room: some blocks of the first wave come later, and the last wave ends later by a whole block.
    Where blocks are long and waves few that costs more than a launch. See docs/notes/0018-llama-on-a-gpu.md.
    """
    return not (1.0 < waves < _MOST_WAVES and seconds / waves > _LONG_BLOCK)


class GpuLaunch:
    """A kernel tied to its operands: call it, as often as wanted, on what the memory then holds.

    It runs on the stream in use (`streams.stream_of`). Pointers in `words` may be exchanged for others of the same
    alignment: tensor maps follow them.
    """

    __slots__ = ("_call", "_lock", "_mapped", "_scratch", "_words", "kernel", "operands", "words")

    def __init__(
        self, kernel: GpuKernel, call: driver.Call, words: Words, scratch: list[Any], operands: Mapping[str, Buffer]
    ) -> None:
        self.kernel, self.operands = kernel, operands
        self._call, self._words, self._scratch = call, words, scratch
        # A memoryview: its elements are read and written in a third of the time of NumPy's.
        self.words = call.argument[MAP_BYTES * len(kernel.binary.module.maps) :].data.cast("q")
        maps = kernel.binary.module.maps
        self._mapped = [
            [n, words.tensor(m.tensor), int(self.words[words.tensor(m.tensor)])] for n, m in enumerate(maps)
        ]
        self._lock = threading.Lock()

    @property
    def program(self) -> ir.Kernel:
        """What it computes."""
        return self.kernel.request.kernel

    @property
    def relies_on_alignment(self) -> bool:
        """Alignment on a GPU is a part of the form of a call."""
        return False

    @property
    def call(self) -> driver.Call:
        """The call of the driver that it makes."""
        return self._call

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self._call.blocks

    def pointer_word(self, name: str) -> int:
        """The word that holds the pointer of a tensor."""
        return self._words.tensor(name)

    def detached(self) -> GpuLaunch:
        """The same launch with words of its own, which keeps no operand alive."""
        return GpuLaunch(self.kernel, self._call.copy(), self._words, self._scratch, {})

    def record(self, sources: Sequence[tuple[int, int, int]]) -> list[Part]:
        """What compiled code needs to launch it on other pointers, on the stream that is current now.

        For each (word, n, bytes) of `sources` the word takes the n-th pointer, moved by so many bytes. The record takes
        over: it alone knows then which tensors the maps describe.
        """
        call, start = self._call, self._call.argument.ctypes.data
        first = start + MAP_BYTES * len(self._mapped)
        places = [(first + 8 * word, n, offset) for word, n, offset in sources]
        maps = [(start + MAP_BYTES * n, first + 8 * word, last) for n, word, last in self._mapped]
        again = call.again
        entry = call.addresses(stream_of(self.kernel.function.device))
        words = launch_words(entry, driver.address(driver.mover()), again, places, maps)
        return [(words, (self, call, again))]

    def __call__(self) -> None:
        with self._lock:
            words = self.words
            for entry in self._mapped:
                pointer = words[entry[1]]
                if pointer != entry[2]:
                    driver.move_map(self._call.argument, entry[0], pointer)
                    entry[2] = pointer
            self._call(stream_of(self.kernel.function.device))


_maps: dict[tuple[Any, ...], bytes] = {}
_MOST_MAPS = 4096


def encoded(described: TensorMap, buffer: Buffer) -> bytes:
    """The tensor map of a buffer, remembered: the same weights are described to many kernels, and again each call."""
    key = (buffer.pointer, buffer.shape, buffer.strides, buffer.dtype.name, described)
    found = _maps.get(key)
    if found is None:
        if len(_maps) >= _MOST_MAPS:
            _maps.clear()
        found = _maps[key] = _encode(described, buffer)
    return found


def _encode(described: TensorMap, buffer: Buffer) -> bytes:
    first, *rest = described.dims
    if buffer.strides[first] != 1 and buffer.shape[first] > 1:
        raise LaunchError(f"{described.tensor}: the copy engine wants stride 1 along dimension {first}")
    width = buffer.dtype.bytes
    strides = [_byte_stride(buffer, d, width) for d in rest]
    sizes = [max(1, buffer.shape[d]) for d in described.dims]  # of what is empty nothing is read
    return driver.tensor_map(
        buffer.pointer, buffer.dtype.name, sizes, strides, described.box, described.swizzle, described.l2_promotion
    )


def _byte_stride(buffer: Buffer, dim: int, width: int) -> int:
    """The stride of a dimension in bytes; one of a single position is never taken, and may be anything legal."""
    return buffer.strides[dim] * width if buffer.shape[dim] > 1 else 16


def layout_on_gpu(buffer: Buffer) -> TensorLayout:
    """Unit strides are part of a kernel, others are passed; `align` (a power of two) divides pointer and strides.

    What cannot be written to is constant: torch's tensors never are.
    """
    unit = next((d for d in reversed(range(len(buffer.shape))) if buffer.strides[d] == 1), None)
    step = buffer.pointer | _WIDEST
    for d, (size, stride) in enumerate(zip(buffer.shape, buffer.strides, strict=True)):
        if size > 1 and d != unit:
            step |= abs(stride) * buffer.dtype.bytes
    strides = tuple(1 if d == unit else None for d in range(len(buffer.shape)))
    return TensorLayout(strides, step & -step, not buffer.writable)


def _scalar_bits(p: ir.Param, value: float | int) -> int:
    if p.dtype.kind != "float":
        return int(value)
    code = ("<d", "<q") if p.dtype.bits == 64 else ("<f", "<i")
    return int(struct.unpack(code[1], struct.pack(code[0], value))[0])


__all__ = ["GpuKernel", "GpuLaunch", "encoded", "layout_on_gpu"]
