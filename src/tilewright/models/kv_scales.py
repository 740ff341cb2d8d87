"""Scales of a KV cache of 8 bits, from a model's weights alone: no prompt has to be seen first.

An e4m3 keeps 4 bits of a number between 2^-6 and 448, a range of 15 powers of two. What a head of keys or values may
hold is estimated from its projection: behind a norm with weights g the inputs of a row w are about of variance one, so
w x has a deviation of |w g|; the largest of a head, and its bias, are put well below the top of that range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilewright.models.config import ModelConfig
from tilewright.models.kv_cache import Scales
from tilewright.models.memory import Memory
from tilewright.models.weights import LayerWeights
from tilewright.operators.rope import MOST

DEVIATIONS = 32.0
"""How many deviations of a head's widest row are still held."""
_SAMPLED = 512  # columns of a row that are looked at: its norm within some percent

Array64 = npt.NDArray[np.float64]


def kv_scales(config: ModelConfig, layers: tuple[LayerWeights, ...], memory: Memory) -> tuple[Scales, ...]:
    """For each layer the scales of its heads of keys and of values, powers of two, f32[kv_heads] each in `memory`."""
    reaches = [_reach(config, layer, memory) for layer in layers]
    return tuple((_held(memory, _scale(keys)), _held(memory, _scale(values))) for keys, values in reaches)


def _reach(config: ModelConfig, layer: LayerWeights, memory: Memory) -> tuple[Array64, Array64]:
    """The largest numbers that keys, and values, of each head are thought to take: [kv_heads] each."""
    heads, width = config.kv_heads, config.head_dim
    first = config.heads * width
    rows = slice(first, first + 2 * heads * width)
    spread = DEVIATIONS * _deviations(layer, rows, memory)
    if layer.qkv_bias is not None:
        spread = spread + np.abs(_read(memory, layer.qkv_bias[rows]))
    keys, values = spread.reshape(2, heads, width).max(-1)
    if layer.k_norm is not None:  # keys are of length sqrt(width) before they meet these weights
        keys = np.full(heads, np.sqrt(width) * np.abs(_read(memory, layer.k_norm)).max())
    return np.sqrt(2) * keys, values  # rotation adds two of a pair


def _deviations(layer: LayerWeights, rows: slice, memory: Memory) -> Array64:
    """|w g| of each row, from some of its columns."""
    gains = _read(memory, layer.input_norm)
    weights = memory.read(layer.qkv[rows])
    step = max(1, weights.shape[1] // _SAMPLED)
    seen = weights[:, ::step].astype(np.float64) * gains[::step]
    deviations: Array64 = np.sqrt((seen**2).sum(-1) * weights.shape[1] / seen.shape[1])
    return deviations


def _scale(reach: Array64) -> npt.NDArray[np.float32]:
    """The power of two by which a head's numbers are divided; 1 for a head of zeros."""
    safe = np.where((reach > 0) & np.isfinite(reach), reach, MOST)
    return np.exp2(np.ceil(np.log2(safe / MOST))).astype(np.float32)


def _read(memory: Memory, array: object) -> Array64:
    return np.asarray(memory.read(array)).astype(np.float64)


def _held(memory: Memory, values: npt.NDArray[np.float32]) -> object:
    return memory.sealed(memory.holding(values))


__all__ = ["DEVIATIONS", "kv_scales"]
