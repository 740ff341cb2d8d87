"""The worker of a GPU without one: kernels are interpreted, and some designs behave as FAKE_GPU says, by their hash."""

from __future__ import annotations

import json
import os
import time

import numpy as np

from tilewright.errors import LaunchError, OutOfDeviceMemory
from tilewright.language.interpreter import run
from tilewright.runtime.cuda.trial_worker import Held, main
from tilewright.runtime.measure import CONTROL, Comparison


class FakeGpu:
    """Memory of the host; a launch that traps is known, as on a device, by the next copy."""

    def __init__(self):
        self.lost = False
        self.seconds = {}

    def hold(self, like):
        memory = np.zeros(like.nbytes, np.uint8)
        return Held(like, memory.ctypes.data, memory)

    def write(self, held, array):
        held.owner[:] = held.raw(array)

    def copy(self, to, held):
        to.owner[:] = held.owner

    def read(self, held):
        if self.lost:
            raise LaunchError("the kernel trapped: an illegal memory access was encountered")
        return held.shaped(held.owner)

    def bind(self, request, held, scalars, sizes):
        behaviour = json.loads(os.environ["FAKE_GPU"]).get(request.design.hash, "right")
        if behaviour == "large":
            raise OutOfDeviceMemory("no room for 9 MiB more; end other programs on this GPU")

        def call():
            if behaviour == "hang":
                time.sleep(1000)
            self.lost |= behaviour == "trap"
            if behaviour == "right":
                run(request.kernel, {n: h.shaped(h.owner) for n, h in held.items()}, scalars)

        self.seconds[call] = 1e-6 * (1 + int(request.design.hash[:4], 16))
        return call

    def compare(self, calls, rounds, poison):
        samples = {name: (1e9 * self.seconds[call],) * max(rounds, 7) for name, call in calls.items()}
        first = next(iter(calls))
        taken = {**samples, CONTROL: samples[first]}
        return Comparison(taken, dict.fromkeys(taken, 1), tuple(calls), True)


if __name__ == "__main__":
    main(FakeGpu)
