"""Instructions that multiply on x86, by the names that designs give them: what each asks of a machine and operands."""

from __future__ import annotations

ATOMS = {
    "fma": None, "bf16x2": "avx512bf16", "vnni": "avx512vnni", "amx_bf16": "amx-bf16", "amx_int8": "amx-int8",
}  # fmt: skip
"""Instructions that multiply, and the feature that a machine must have for each."""

PAIRED = {"bf16x2": "bf16", "vnni": "i8"}
"""Instructions that multiply two neighbours of the sum in each lane, and the element type of their operands."""

TILED = {"amx_bf16": "bf16", "amx_int8": "i8"}
"""Instructions that multiply tile registers, and the element type of their operands."""

AT_ONCE, PORTION = 32, 16
"""Sums of pairs that are made at a time: all up to the first number, else so many, which take all their terms."""

__all__ = ["ATOMS", "AT_ONCE", "PAIRED", "PORTION", "TILED"]
