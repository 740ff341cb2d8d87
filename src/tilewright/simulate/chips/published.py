"""Rooflines of decoding that others published, and the one rule that they are made by."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Published:
    """A published roofline: bytes of a token, and bytes/s of the whole system at peak."""

    system: str
    bandwidth: float
    tokens: float


PUBLISHED_BYTES = 15.4 * GIB
"""What a token of Llama-3.1-8B reads at a context of 4,096 (arXiv 2410.23668). Its GB are GiB, by its rooflines."""

# DGX H100 is given 24 TB/s by its authors (Gandhi et al., MLSys 2026, table 3), not 8 times the 3.35 of the data sheet.
PUBLISHED = (
    Published("SN40L-8", 8 * 1.6e12, 774),
    Published("SN40L-16", 16 * 1.6e12, 1548),
    Published("DGX H100", 24e12, 1451),
    Published("DGX H100 at 21% of its bandwidth", 0.21 * 24e12, 305),
)


def roofline(bytes_per_token: float, bandwidth: float) -> float:
    """Tokens a second of one sequence, if memory moved at `bandwidth` bytes/s and nothing else took time."""
    return bandwidth / bytes_per_token
