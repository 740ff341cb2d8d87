"""Arithmetic intensity, and what bounds a kernel by the roofline (Williams et al., CACM 52(4), 2009)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Roofline:
    """Operations and bytes of a call against a machine's flop/s and bytes/s."""

    flops: float
    bytes: float
    peak: float
    bandwidth: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes if self.bytes else float("inf")

    @property
    def ridge(self) -> float:
        """Operations a byte from which on arithmetic is what bounds."""
        return self.peak / self.bandwidth

    @property
    def bound(self) -> str:
        """ "memory" or "compute"."""
        return "memory" if self.intensity < self.ridge else "compute"

    @property
    def seconds(self) -> float:
        """The least that the call takes."""
        return max(self.flops / self.peak, self.bytes / self.bandwidth)
