"""Panels: how packed operands of dots are called, and how much of one a copy moves at a time."""

from __future__ import annotations

WORDS = {16: "pair", 8: "quad"}
"""The packing that puts neighbours of the sum side by side as words of 32 bits, by the bits of an element."""

ROWS = 16
"""Rows that one copy turns into lanes at a time."""

TILE_BYTES = 64
"""Bytes of a row of a tile register: neighbours along the sum."""


def copied_depth(layout: str, itemsize: int) -> int:
    """Points of the summed axis that one copy into a panel moves: a register block transposes them in one go."""
    return {"panel": 16, "pair": 32, "quad": 64, "tile": TILE_BYTES // itemsize}[layout]


__all__ = ["ROWS", "TILE_BYTES", "WORDS", "copied_depth"]
