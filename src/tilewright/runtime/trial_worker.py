"""The process in which candidates are compiled, checked and timed: `python -m tilewright.runtime.trial_worker`.

It is told what to try once, at its setup, and then answers jobs: `build` (compile into the cache on disk), `verify`
(run on guarded memory, compare with the reference), `measure` (time side by side, then check again). Whatever a
candidate does here, the parent (`trial.TrialRunner`) only loses this process.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.build.jit import Target, compile_ir, load
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.errors import IllegalDesign, TilewrightError, VerificationError
from tilewright.language.parser import parse
from tilewright.machines.machine import Machine
from tilewright.runtime import child, dispatch, pool
from tilewright.runtime.checks import Check
from tilewright.runtime.guard import Guarded
from tilewright.runtime.inputs import Array
from tilewright.runtime.measure import Comparison, cache_flusher, compare, joined
from tilewright.runtime.place import Place


class Trials:
    """What this process tries: made by the setup job."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._describe(setup)
        self._kernels: dict[Design, dispatch.Kernel] = {}
        self._timed: list[Place] = []
        self._at = 0
        if self.checks:
            self._settle(setup["threads"])
        child.bound_memory(setup["address_space"])

    def _describe(self, setup: dict[str, Any]) -> None:
        """Take over what is to be tried."""
        self.machine = Machine.from_dict(setup["machine"])
        self.program = dispatch.Program.of(parse(setup["kernel"]))
        self.sizes = {d: setup["sizes"][d] for d in self.program.kernel.dims}
        self.layouts = tuple((n, abi.TensorLayout(tuple(s), *more)) for n, s, *more in setup["layouts"])
        self.settled = tuple(setup["settled"])
        self.outputs, self.updates = frozenset(setup["outputs"]), frozenset(setup["updates"])
        self.checks = [Check.load(c) for c in setup["checks"]]
        self.cold = bool(setup["cold"])

    def _settle(self, threads: int) -> None:
        """Threads on cores of their own, and memory for everything, before anything is timed or bounded."""
        self.flush = cache_flusher() if self.cold else False
        pool.pin_threads()
        self.wake = waker(pool.get(threads))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        self.places: dict[tuple[tuple[str, int], ...], Place] = {}
        for check in self.checks:
            at = tuple(check.operands.sizes.items())
            if at not in self.places:
                self.places[at] = Place(check, self.outputs, guarded=True)

    @property
    def timed(self) -> Place:
        """Operands as users have them, at the place where kernels are timed now."""
        while len(self._timed) <= self._at:
            self._timed.append(Place(self.checks[0], self.outputs, guarded=False))
        return self._timed[self._at]

    # -------------------------------------------------------------------------------------------- kernels
    def request(self, design: Design, sizes: dict[str, int], layouts: dispatch.Layouts) -> Any:
        """What to build for a design."""
        return dispatch.requested(self.program, layouts, sizes, self.machine, design)

    def kernel(self, design: Design) -> dispatch.Kernel:
        """The kernel of a design at the sizes of the subject, compiled where it is not on disk."""
        if design not in self._kernels:
            request = self.request(design, self.sizes, self.layouts)
            self._kernels[design] = dispatch.compiled(self.program, request, self.machine)
        return self._kernels[design]

    def build(self, job: dict[str, Any]) -> dict[str, Any]:
        """Compile a design."""
        try:
            kernel = self.kernel(Design.from_json(job["design"]))
            return {"status": "ok", "seconds": kernel.binary.seconds, "code": _code(kernel)}
        except IllegalDesign as error:
            return {"status": "illegal", "reason": str(error)}
        except (TilewrightError, MemoryError, AssertionError, LookupError, ValueError) as error:
            return {"status": "compile", "reason": f"{type(error).__name__}: {error}"}

    # -------------------------------------------------------------------------------------------- verify
    def verify(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a design on every check, and on the second one in the memory of the first."""
        built = self.build(job)
        if built["status"] != "ok":
            return built
        kernel, worst, once = self.kernel(Design.from_json(job["design"])), 0.0, math.inf
        try:
            for check in self.checks:
                place = self.places[tuple(check.operands.sizes.items())]
                if self._serves(kernel, place):
                    share, seconds = self._checked(kernel, place, check)
                    worst = max(worst, share)
                    once = min(once, seconds) if check.operands.sizes == self.sizes else once
        except VerificationError as error:
            return {"status": "wrong", "reason": str(error)}
        return {"status": "ok", "worst": worst, "once": once}

    def _serves(self, kernel: dispatch.Kernel, place: Place) -> bool:
        """Whether the machine code may be used on these operands: it may rely on how rows are aligned."""
        actual = {n: dispatch.layout_of(b).align for n, b in place.buffers().items()}
        relied = dict(self.request(kernel.design, self.sizes, self.layouts).layouts)
        return all(actual[n] >= layout.align for n, layout in relied.items())

    def _checked(self, kernel: dispatch.Kernel, place: Place, check: Check) -> tuple[float, float]:
        """The worst error as a share of its bound, and seconds of the one run."""
        place.fill(check)
        place.poison(check, self.updates)
        launch = kernel.bind(place.buffers(), check.operands.scalars, check.operands.sizes)
        workspace = Guarded(launch.room)
        workspace.array((launch.room,), np.uint8).fill(0xFF)
        try:
            begun = time.perf_counter()
            launch.run_in(workspace.address)
            seconds = time.perf_counter() - begun
            for name, guard in {**place.guards, "its workspace": workspace}.items():
                if stray := guard.stray():
                    raise VerificationError(f"{stray} of {name}")
            return self._compared(place, check), seconds
        except VerificationError as error:
            raise VerificationError(f"on {check.named} operands: {error}") from None
        finally:
            workspace.free()

    @staticmethod
    def _compared(place: Place, check: Check) -> float:
        return max((check.compare(name, place.arrays[name]) for name in check.values), default=0.0)

    # -------------------------------------------------------------------------------------------- measure
    def measure(self, job: dict[str, Any]) -> dict[str, Any]:
        """Time designs side by side, the first against itself too; then check each of them again.

        `slow`: stop after a first look, and go on with those only that are not slower than the first by this factor.
        """
        designs = {text: Design.from_json(text) for text in dict.fromkeys(job["designs"])}
        launches = self._launches(designs)
        first = job["designs"][0]
        found: dict[str, Any] = {"samples": {}, "ratios": {}, "undisturbed": {}, "dropped": []}
        if job.get("slow"):
            look = self._compare(launches, 0.0, job["look"])
            slow = [t for t in launches if look.ratio(t, first).low > job["slow"]]
            found["dropped"] = slow
            self._note(found, look, slow, first)
            launches = {t: run for t, run in launches.items() if t not in slow}
        final = self._compare_at(job.get("places", 1), {t: designs[t] for t in launches}, job["seconds"], job["rounds"])
        self._note(found, final, list(launches), first)
        found |= {"noise": final.noise, "noise_class": final.noise_class, "cache": "cold" if final.flush else "warm"}
        found["wrong"] = {text: reason for text, run in launches.items() if (reason := self._after(run))}
        return found

    def _compare_at(self, places: int, designs: dict[str, Design], seconds: float, rounds: int) -> Comparison:
        """Rounds on operands at several places: each favours some kernels, and another process has other places."""
        seen = []
        try:
            for at in range(places):
                self._at = at
                seen.append(self._compare(self._launches(designs), seconds / places, -(-rounds // places)))
        finally:
            self._at = 0
        return joined(seen)

    def _launches(self, designs: dict[str, Design]) -> dict[str, Any]:
        return {text: self._launch(design) for text, design in designs.items()}

    def _compare(self, launches: dict[str, Any], seconds: float, rounds: int) -> Comparison:
        return compare(
            launches, seconds=seconds, flush=self.flush, poison=self._poison, wake=self.wake, rest=False,
            min_rounds=rounds,
        )  # fmt: skip

    @staticmethod
    def _note(found: dict[str, Any], seen: Comparison, texts: list[str], first: str) -> None:
        for text in texts:
            ratio = seen.ratio(text, first)
            found["undisturbed"][text] = _undisturbed(seen.samples[text]) / _undisturbed(seen.samples[first])
            found["samples"][text] = [ns * 1e-9 for ns in seen.samples[text]]
            found["ratios"][text] = [ratio.median, ratio.low, ratio.high]

    def _poison(self) -> None:
        self.timed.poison(self.checks[0], self.updates)

    def _launch(self, design: Design) -> Callable[[], object]:
        place = self.timed
        return self.kernel(design).bind(place.buffers(), place.scalars, place.sizes)

    def _after(self, run: Callable[[], object]) -> str | None:
        """What is wrong with a kernel that has been timed: its output, or what it did to its inputs."""
        self._poison()
        run()
        try:
            self._compared(self.timed, self.checks[0])
        except VerificationError as error:
            return f"after timing: {error}"
        for name, array in self.timed.arrays.items():
            if name not in self.outputs and not _same_bytes(array, self.checks[0].operands.tensors[name]):
                self.timed.fill(self.checks[0])
                return f"after timing: its input {name} has changed"
        return None


def waker(team: pool.Pool) -> Callable[[], object] | None:
    """A call that wakes the threads of a team, which then wait for the next call as between two kernels of a model."""
    if team.threads == 1:
        return None
    nothing = load(compile_ir("define void @nothing(ptr %a, i64 %b, i64 %c) {\n  ret void\n}\n", Target.host()))
    address = nothing.address("nothing")

    def wake() -> object:
        team.run([address])
        return nothing  # the code must live as long as this function

    return wake


def _code(kernel: dispatch.Kernel) -> str:
    """What two kernels have in common that nothing can tell apart: machine code, workspace, and threads at most."""
    said = f"{kernel.binary.library.digest} {kernel.binary.workspace} {kernel.design.get('threads')}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _undisturbed(samples: Sequence[float]) -> float:
    """A time that other programs had no part in, as far as few samples show: what they add is never negative."""
    return sorted(samples)[len(samples) // 4]


def _same_bytes(one: Array, other: Array) -> bool:
    return bool(np.array_equal(np.ascontiguousarray(one).view(np.uint8), np.ascontiguousarray(other).view(np.uint8)))


class Worker:
    """The jobs by name."""

    def __init__(self) -> None:
        self.trials: Trials | None = None

    def setup(self, job: dict[str, Any]) -> dict[str, Any]:
        """Take in what is to be tried; where the guarded operands lie."""
        self.trials = Trials(job)
        if not self.trials.checks:
            return {}
        assert self.trials.timed
        return {"spans": [place.spans() for place in self.trials.places.values()]}

    def answer(self, job: dict[str, Any]) -> dict[str, Any]:
        """Any job but the first."""
        assert self.trials is not None
        return {"build": self.trials.build, "verify": self.trials.verify, "measure": self.trials.measure}[job["job"]](
            job
        )


def main() -> None:
    """Serve until the parent is done."""
    worker = Worker()
    child.serve(lambda job: worker.setup(job) if job["job"] == "setup" else worker.answer(job))


if __name__ == "__main__":
    main()
