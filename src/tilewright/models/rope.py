"""Rotary position embedding: the table of cosines and sines (Su et al. 2021, `RoFormer`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.models.config import Rope


def inverse_frequencies(rope: Rope, head_dim: int) -> npt.NDArray[np.float64]:
    """Radians per position of each of the `head_dim / 2` pairs, after the stretch that `rope.kind` names."""
    frequency = rope.theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if rope.kind == "linear":
        return frequency / rope.factor
    if rope.kind == "llama3":
        return _llama3(frequency, rope)
    return frequency


def _llama3(frequency: npt.NDArray[np.float64], rope: Rope) -> npt.NDArray[np.float64]:
    """Long waves are slowed by `factor`, short ones kept, those between blended (Llama 3.1 model code)."""
    turns = rope.original_context * frequency / (2 * math.pi)  # full turns within the original context
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = np.clip(keep, 0.0, 1.0)
    return keep * frequency + (1 - keep) * frequency / rope.factor


def rope_tables(rope: Rope, head_dim: int, tokens: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """`(cos, sin)`, each f32[tokens, head_dim], for positions 0 .. tokens-1.

    Both halves of a row are alike, as `ops.rope` wants them: element d turns with element d + head_dim/2.
    """
    angle = np.outer(np.arange(tokens, dtype=np.float64), inverse_frequencies(rope, head_dim))
    angle = np.concatenate([angle, angle], axis=1)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
