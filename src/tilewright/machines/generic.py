"""Any other processor: vectors of 128 bits, which LLVM legalises wherever it has none."""

from __future__ import annotations

import platform

from tilewright.machines.caches import host_levels
from tilewright.machines.machine import Atom, Machine, VectorISA


def detect(available_cores: int) -> Machine:
    """The host as a Machine of which nothing but its cores and caches is known."""
    family = platform.machine().lower() or "unknown"
    return Machine(
        name=platform.processor() or family,
        kind="generic",
        architecture=family,
        cores=available_cores,
        levels=host_levels(),
        atoms=(Atom("scalar", "f32", "f32", (1, 1, 1)),),
        vector=VectorISA(bits=128, registers=16),
    )
