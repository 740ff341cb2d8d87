"""Tables of cosines and sines, against transformers' own for every kind of scaling."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright.models.config import Rope
from tilewright.models.rope import inverse_frequencies, rope_tables

KINDS = {
    "default": Rope(10000.0),
    "linear": Rope(10000.0, "linear", 4.0),
    "llama3": Rope(500000.0, "llama3", 8.0, 1.0, 4.0, 8192),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("head_dim", [64, 80, 128])
def test_frequencies_equal_transformers(kind, head_dim):
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rope = KINDS[kind]
    parameters = {"rope_type": kind, "rope_theta": rope.theta, "factor": rope.factor}
    if kind == "llama3":
        parameters |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_context,
        }
    config = transformers.LlamaConfig(head_dim=head_dim, rope_parameters=parameters, max_position_embeddings=131072)
    wanted = LlamaRotaryEmbedding(config).inv_freq.double().numpy()
    # transformers computes them in f32: a few roundings of 2^-24 each.
    np.testing.assert_allclose(inverse_frequencies(rope, head_dim), wanted, rtol=2e-6)


def test_tables_hold_each_pair_twice():
    cos, sin = rope_tables(KINDS["default"], 8, 5)
    assert cos.shape == sin.shape == (5, 8)
    assert cos.dtype == sin.dtype == np.float32
    angle = 3 * inverse_frequencies(KINDS["default"], 8)
    np.testing.assert_array_equal(cos[3], np.tile(np.cos(angle), 2).astype(np.float32))
    np.testing.assert_array_equal(sin[3], np.tile(np.sin(angle), 2).astype(np.float32))
