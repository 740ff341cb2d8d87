"""How the 32 lanes of a warp meet memory: sectors of a request, banks of shared memory, idle lanes."""

from __future__ import annotations

from collections.abc import Sequence

SECTOR, BANKS, BANK_BYTES, WARP = 32, 32, 4, 32


def sectors(addresses: Sequence[int], size: int) -> int:
    """Sectors of 32 bytes that one request of a warp moves: `size` bytes at each address (bytes).

    32 lanes of 4 bytes side by side take 4; 32 lanes a line apart take 32.
    """
    return len({s for a in addresses for s in range(a // SECTOR, (a + size - 1) // SECTOR + 1)})


def coalescing(addresses: Sequence[int], size: int) -> float:
    """Bytes that are asked for over bytes that are moved; at most 1 unless lanes ask for the same."""
    return len(set(addresses)) * size / (SECTOR * sectors(addresses, size)) if addresses else 1.0


def bank_passes(addresses: Sequence[int], size: int) -> int:
    """How many passes over the 32 banks of 4 bytes an access of a warp to shared memory takes.

    Lanes that ask one bank for the same word share it. 8 bytes a lane go half a warp at a time, 16 bytes a quarter:
    the least is 1, 2 and 4.
    """
    together = max(1, WARP * BANK_BYTES // max(BANK_BYTES, size))
    passes = 0
    for first in range(0, len(addresses), together):
        words: dict[int, set[int]] = {}
        for a in addresses[first : first + together]:
            for w in range(a // BANK_BYTES, (a + size - 1) // BANK_BYTES + 1):
                words.setdefault(w % BANKS, set()).add(w)
        passes += max((len(w) for w in words.values()), default=0)
    return passes


def divergence(threads: int, useful: int) -> float:
    """The share of lanes that idle: `useful` of `threads` work, in whole warps, the last of which may be short."""
    lanes = -(-threads // WARP) * WARP
    return 1.0 - min(useful, threads) / lanes if lanes else 0.0


def branch_divergence(taken: Sequence[bool]) -> float:
    """The share of lane slots lost where a warp's lanes part ways: both sides are issued one after the other."""
    if not taken:
        return 0.0
    return 0.5 if any(taken) and not all(taken) else 0.0
