"""The process in which candidates for a GPU are checked and timed: `python -m tilewright.runtime.cuda.trial_worker`.

It answers the jobs of `runtime.trial_worker`. A kernel that traps leaves its context useless, so that this process ends
and the parent starts another; one that hangs is killed with it. What touches the device stands behind `Gpu`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from tilewright.build.cuda_kernel import build_cuda
from tilewright.build.kernel_cache import Request
from tilewright.design.design import Design
from tilewright.errors import IllegalDesign, LaunchError, OutOfDeviceMemory, TilewrightError, VerificationError
from tilewright.language.dtypes import dtype
from tilewright.runtime import child
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.checks import Check
from tilewright.runtime.cuda.dispatch import loaded, requested
from tilewright.runtime.cuda.measure import compare
from tilewright.runtime.inputs import Array, poison_of
from tilewright.runtime.measure import Comparison
from tilewright.runtime.trial_worker import Trials, Worker

Call = Callable[[], object]

ROOM = "end other programs on this GPU, or design for smaller sizes"
CONTEXT_LOST = 70
"""The exit status after a kernel that took the context with it."""


@dataclass
class Held:
    """Memory of a device in the layout of a host array: `like` says which, `owner` keeps it."""

    like: Array
    pointer: int
    owner: Any

    @property
    def _order(self) -> list[int]:
        return sorted(range(self.like.ndim), key=lambda d: -self.like.strides[d])

    def raw(self, array: Array) -> Array:
        """The bytes of an array as they lie in this memory."""
        return np.ascontiguousarray(array.transpose(self._order)).reshape(-1).view(np.uint8)

    def shaped(self, raw: Array) -> Array:
        """The array that such bytes are."""
        memory = raw.view(self.like.dtype).reshape([self.like.shape[d] for d in self._order])
        return memory.transpose(np.argsort(self._order)) if self.like.ndim else memory.reshape(())

    def buffer(self, device: str) -> Buffer:
        """As a kernel is bound to it."""
        strides = self.shaped(np.empty(self.like.nbytes, np.uint8)).strides
        elements = tuple(s // self.like.itemsize for s in strides)
        return Buffer(self.pointer, self.like.shape, elements, dtype(self.like.dtype), device, self.owner)


class Gpu(Protocol):
    """A device: memory, kernels tied to it, and times."""

    def hold(self, like: Array) -> Held:
        """Memory for such an array."""
        ...

    def write(self, held: Held, array: Array) -> None:
        """Copy to the device."""
        ...

    def copy(self, to: Held, held: Held) -> None:
        """Copy on the device."""
        ...

    def read(self, held: Held) -> Array:
        """Copy from the device, once all that was asked for is done; LaunchError where the context is lost."""
        ...

    def bind(
        self, request: Request, held: Mapping[str, Held], scalars: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> Call:
        """The kernel of a request on this memory."""
        ...

    def compare(
        self, calls: Mapping[str, Callable[[], object]], rounds: int, poison: Callable[[], object]
    ) -> Comparison:
        """Times of calls side by side."""
        ...


class CudaGpu:
    """GPU 0 of this process, by torch's allocator and streams."""

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def hold(self, like: Array) -> Held:
        """Memory for such an array; OutOfDeviceMemory where there is no room."""
        try:
            owner = self._torch.empty(max(1, like.nbytes), dtype=self._torch.uint8, device="cuda:0")
        except self._torch.OutOfMemoryError:
            raise OutOfDeviceMemory(f"no room for {like.nbytes / 2**20:.0f} MiB more; {ROOM}") from None
        return Held(like, owner.data_ptr(), owner)

    def write(self, held: Held, array: Array) -> None:
        """Copy to the device."""
        held.owner[: array.nbytes].copy_(self._torch.from_numpy(held.raw(array).copy()))

    def copy(self, to: Held, held: Held) -> None:
        """Copy on the device."""
        to.owner.copy_(held.owner)

    def read(self, held: Held) -> Array:
        """Copy from the device; LaunchError where the context is lost."""
        try:
            return held.shaped(held.owner[: held.like.nbytes].cpu().numpy())
        except RuntimeError as error:
            raise LaunchError(f"the kernel trapped: {str(error).splitlines()[0]}") from None

    def bind(
        self, request: Request, held: Mapping[str, Held], scalars: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> Call:
        """The kernel of a request on this memory."""
        return loaded(request, 0).bind({n: h.buffer("cuda:0") for n, h in held.items()}, scalars, sizes)

    def compare(
        self, calls: Mapping[str, Callable[[], object]], rounds: int, poison: Callable[[], object]
    ) -> Comparison:
        """Times of calls side by side, from a cold L2 cache."""
        try:
            return compare(calls, rounds=rounds, poison=poison)
        except RuntimeError as error:
            raise LaunchError(f"a kernel trapped: {str(error).splitlines()[0]}") from None


class GpuTrials(Trials):
    """What this process tries on a device; as on a CPU, without guarded memory."""

    def __init__(self, setup: dict[str, Any], gpu: Callable[[], Gpu]) -> None:
        self._describe(setup)
        self.device = gpu() if self.checks else None
        self._held: dict[tuple[tuple[str, int], ...], dict[str, Held]] = {}
        self._written: dict[tuple[tuple[str, int], ...], str] = {}  # the check whose inputs lie there
        self._poisons: dict[tuple[str, str], Held] = {}

    # ------------------------------------------------------------------------------------------- kernels
    def request(self, design: Design, sizes: dict[str, int], layouts: Any) -> Request:
        """What to build for a design."""
        return requested(self.program, layouts, sizes, self.machine, design, self.settled)

    def build(self, job: dict[str, Any]) -> dict[str, Any]:
        """Compile a design; no device is needed."""
        request = self.request(Design.from_json(job["design"]), self.sizes, self.layouts)
        try:
            binary = build_cuda(request, self.machine)
            return {"status": "ok", "seconds": binary.seconds, "usage": asdict(binary.usage)}
        except IllegalDesign as error:
            return {"status": "illegal", "reason": str(error)}
        except (TilewrightError, MemoryError, AssertionError, LookupError, ValueError) as error:
            return {"status": "compile", "reason": f"{type(error).__name__}: {error}"}

    def _operands(self, check: Check) -> dict[str, Held]:
        """Operands of a check on the device: inputs as drawn, outputs poisoned."""
        assert self.device is not None
        key = tuple(check.operands.sizes.items())
        if key not in self._held:
            self._held[key] = {n: self.device.hold(x) for n, x in check.operands.tensors.items()}
        if self._written.get(key) != check.named:
            for name, array in check.operands.tensors.items():
                self.device.write(self._held[key][name], array)
            self._written[key] = check.named
        self._poison_of(check)
        return self._held[key]

    def _poison_of(self, check: Check) -> None:
        assert self.device is not None
        for name in self.outputs:
            fresh = self._poisons.get((check.named, name))
            if fresh is None:
                like = check.operands.tensors[name]
                values = like if name in self.updates else np.full_like(like, poison_of(dtype(like.dtype)))
                fresh = self._poisons[check.named, name] = self.device.hold(like)
                self.device.write(fresh, values)
            self.device.copy(self._held[tuple(check.operands.sizes.items())][name], fresh)

    def _bound(self, design: Design, check: Check) -> Call:
        assert self.device is not None
        request = self.request(design, self.sizes, self.layouts)
        return self.device.bind(request, self._operands(check), check.operands.scalars, check.operands.sizes)

    # -------------------------------------------------------------------------------------------- verify
    def verify(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a design on the checks whose sizes it takes, and whose rows are aligned as those of the subject."""
        built = self.build(job)
        if built["status"] != "ok":
            return built
        worst = 0.0
        for check in [c for c in self.checks if all(c.operands.sizes[d] == self.sizes[d] for d in self.settled)]:
            try:
                self._bound(Design.from_json(job["design"]), check)()
                worst = max(worst, self._worst(check))
            except VerificationError as error:
                self._written.clear()  # it may have written where it should not
                return {"status": "wrong", "reason": f"on {check.named} operands: {error}"}
            except OutOfDeviceMemory as error:
                return {"status": "memory", "reason": f"GPU 0 ran out of memory: {error}"}
        return {"status": "ok", "worst": worst, "once": 0.0}  # copies would take most of it

    def _worst(self, check: Check) -> float:
        assert self.device is not None
        held = self._held[tuple(check.operands.sizes.items())]
        return max((check.compare(name, self.device.read(held[name])) for name in check.values), default=0.0)

    # ------------------------------------------------------------------------------------------- measure
    def _launch(self, design: Design) -> Call:
        return self._bound(design, self.checks[0])

    def _poison(self) -> None:
        self._poison_of(self.checks[0])

    def _compare(self, launches: dict[str, Any], seconds: float, rounds: int) -> Comparison:
        assert self.device is not None
        return self.device.compare(launches, rounds, self._poison)

    def _after(self, run: Call) -> str | None:
        """What is wrong with the results of a kernel that has been timed."""
        self._operands(self.checks[0])
        run()
        try:
            self._worst(self.checks[0])
        except VerificationError as error:
            return f"after timing: {error}"
        return None


class GpuWorker(Worker):
    """The jobs by name."""

    def __init__(self, gpu: Callable[[], Gpu]) -> None:
        super().__init__()
        self._gpu = gpu

    def setup(self, job: dict[str, Any]) -> dict[str, Any]:
        """Take in what is to be tried."""
        self.trials = GpuTrials(job, self._gpu)
        return {}

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """Any job but the first; a context that is lost ends the process."""
        try:
            return super().answer(job)
        except LaunchError as error:
            _give_up(error)


def _give_up(error: LaunchError) -> NoReturn:
    print(error, file=sys.stderr, flush=True)
    os._exit(CONTEXT_LOST)


def main(gpu: Callable[[], Gpu] = CudaGpu) -> None:
    """Serve until the parent is done."""
    worker = GpuWorker(gpu)
    child.serve(lambda job: worker.setup(job) if job["job"] == "setup" else worker.answer(job))


if __name__ == "__main__":
    main()
