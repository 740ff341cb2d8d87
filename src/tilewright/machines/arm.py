"""The 64-bit ARM processor that this process runs on: NEON, which every one of them has."""

from __future__ import annotations

import platform

from tilewright.machines.caches import host_levels
from tilewright.machines.machine import Atom, Machine, VectorISA

NEON = VectorISA(bits=128, registers=32, features=("fp-armv8", "neon"))


def detect(available_cores: int) -> Machine:
    """The host as a Machine with `available_cores` and the vector registers of ARMv8's base."""
    return Machine(
        name=platform.processor() or "arm64",
        kind="arm",
        architecture="armv8",
        cores=available_cores,
        levels=host_levels(),
        atoms=(Atom("scalar", "f32", "f32", (1, 1, 1)), Atom("fma", "f32", "f32", (1, 4, 1))),
        vector=NEON,
    )
