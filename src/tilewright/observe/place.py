"""Where calls are bound that a trace holds or that are asked about: this host's processor, or one of its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.runtime.buffer import Buffer

if TYPE_CHECKING:
    from tilewright.runtime.cuda.gpu import Gpu


@dataclass(frozen=True)
class Place:
    """A GPU, or the processor where there is None."""

    gpu: Gpu | None

    @property
    def machine(self) -> Machine | None:
        """What kernels are for; None for this host."""
        return None if self.gpu is None else self.gpu.machine

    def buffers(self, tensors: Mapping[str, Any]) -> dict[str, Buffer]:
        """Arrays where kernels find them: copied to a GPU."""
        held = tensors if self.gpu is None else {name: self.gpu.holding(x) for name, x in tensors.items()}
        return {name: Buffer.of(x) for name, x in held.items()}

    def run(self, launch: Callable[[], object]) -> None:
        """Call a launch, and return once it has run."""
        if self.gpu is None:
            launch()
            return
        self.gpu.run([launch])
        self.gpu.wait()


@cache
def place(device: str) -> Place:
    """The place that a device names: cpu, cuda, or cuda:1 and so on.

    ArgumentError for any other name, MachineError for a GPU that is not there.
    """
    kind, _, number = device.partition(":")
    if device == "cpu":
        return Place(None)
    if kind != "cuda" or not (number or "0").isdigit():
        raise ArgumentError(f"device {device!r}: a kernel runs on cpu, on cuda, or on cuda:1 and so on")
    from tilewright.runtime.cuda.gpu import Gpu

    return Place(Gpu(int(number or 0)))


__all__ = ["Place", "place"]
