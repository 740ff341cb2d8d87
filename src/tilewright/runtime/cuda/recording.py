"""Launches recorded for a GPU: bound together once all are known, so that their kernels are compiled side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from tilewright.build.kernel_cache import Request
from tilewright.design.gpu.product import product
from tilewright.design.gpu.rows import counted_dims, fixed_dims
from tilewright.knobs import knobs
from tilewright.language import structure
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import dispatch, driver
from tilewright.runtime.cuda.follow import Following, changes_bits
from tilewright.runtime.cuda.kernel import GpuKernel, layout_on_gpu
from tilewright.runtime.cuda.memory import Shared
from tilewright.runtime.cuda.origin import GpuOrigin
from tilewright.runtime.dispatch import Program, described, slot_of
from tilewright.runtime.table import Slot, Special


@dataclass(eq=False)
class Later:
    """A launch that can be called once its recording is settled."""

    operator: Any
    options: Mapping[str, Any]
    program: Program
    buffers: Mapping[str, Buffer]
    scalars: Mapping[str, float | int]
    sizes: dict[str, int]
    request: Request
    slot: Slot
    origin: GpuOrigin
    special: Special | None
    launch: Any = None

    def __call__(self) -> None:
        self.launch()


class Recording:
    """What takes the place of the kernels (a backend of `tilewright.ops`) while a pass is recorded.

    `shared` is scratch memory for what is recorded, where it always runs on one stream.
    """

    def __init__(self, device: int, shared: Shared | None = None) -> None:
        self._device, self._shared = device, shared
        self.launches: list[Later] = []

    def __call__(
        self, operator: Any, buffers: Mapping[str, Buffer], scalars: Mapping[str, float | int],
        options: Mapping[str, object],
    ) -> Later:  # fmt: skip
        """Note a launch; ArgumentError where its operands lie on several devices."""
        program, sizes = described(operator, buffers, options)
        dispatch.device_of(program.kernel.name, buffers)
        layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
        fixed = tuple(dict.fromkeys((*architecture(program), *dispatch.fixed_of(program, sizes))))
        told = tuple(pinned_sizes(program).items()) if pinned() else ()
        origin = GpuOrigin(program, layouts, operator, tuple(sorted(options.items())), self._device, fixed, told)
        slot = slot_of(origin, sizes, knobs())
        special = slot.special
        if special is None or changes_bits(origin, special, sizes):
            request = origin.generic_request(sizes)
        else:
            request = cast(GpuKernel, special.kernel).request
        noted = Later(operator, options, program, buffers, scalars, sizes, request, slot, origin, special)
        self.launches.append(noted)
        return noted

    def settle(self) -> None:
        """Compile what no cache knows, in threads, and bind every launch."""
        kernels = dispatch.load_many([n.request for n in self.launches], self._device)
        with driver.inside(self._device):
            for noted, kernel in zip(self.launches, kernels, strict=True):
                on = noted.buffers, noted.scalars, noted.sizes
                bound = noted.special, kernel.bind(*on, self._shared)
                noted.launch = Following(noted.slot, noted.origin, bound, *on, self._shared)


def architecture(program: Program) -> tuple[str, ...]:
    """Dims of a program that a model fixes once and for all: how many its products sum, and for how many columns.

    A kernel that knows them may split a sum where SMs would idle; under pinned numerics none does.
    """
    return () if pinned() else _summed(program)


@lru_cache(maxsize=1024)
def _summed(program: Program) -> tuple[str, ...]:
    found = product(program.kernel)
    return () if isinstance(found, str) else (found.k.over, found.n.over)


def pinned() -> bool:
    """Whether a request must get the same bits whatever runs beside it."""
    return knobs().numerics == "pinned"


@lru_cache(maxsize=1024)
def pinned_sizes(program: Program) -> dict[str, int]:
    """Sizes to choose designs by under pinned numerics: what depends on other requests looks the same to all.

    How many sequences there are, how many rows there are, and how much room there is for keys decide how sums are
    dealt out, and so in which order they are added; each gets one value here, whatever it is.
    """
    found, axes = product(program.kernel), structure.axes(program.kernel).values()
    if not isinstance(found, str):
        return {found.m.over: _ROWS}
    alone = {a.over: 1 for a in axes if a.each and a.over in program.kernel.dims}
    rows = dict.fromkeys(counted_dims(program.kernel), _ROWS) if fixed_dims(program.kernel) else {}
    return {**rows, **alone, **{a.over: _KEYS for a in axes if a.stop is not None and a.over in program.kernel.dims}}


_ROWS, _KEYS = 64, 4096


__all__ = ["Later", "Recording", "architecture"]
