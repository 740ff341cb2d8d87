"""A KV cache of 8 bits: its scales come from the weights, and what it changes in the logits is small."""

from __future__ import annotations

import numpy as np
import pytest
from model_folders import make_model

from tilewright.errors import ArgumentError
from tilewright.language.dtypes import f8e4m3
from tilewright.models.decoder import Decoder

pytest.importorskip("torch")
IDS = [5, 17, 200, 3, 99, 42, 8, 8, 250, 31, 77, 1, 64, 128, 254, 19, 23]


@pytest.fixture(scope="module", params=["llama-rope3", "qwen2", "qwen3"])
def folder(request, tmp_path_factory):
    """A model without biases, one with them, and one whose keys are normalised."""
    found = tmp_path_factory.mktemp(request.param)
    make_model(request.param, found)
    return found


def test_logits_move_by_less_than_the_rounding_of_eight_bits(folder):
    """Keys and values are off by one part in 16 at most, each way: logits by far less than their spread."""
    exact = Decoder.from_folder(folder).logits([IDS])[0]
    narrow = Decoder.from_folder(folder, kv_cache="fp8")
    found = narrow.logits([IDS])[0]
    error = np.sqrt(np.mean((found - exact) ** 2)) / np.std(exact)
    assert 0 < error < 2.0**-4


def test_nothing_that_a_model_keeps_is_cut_off(folder):
    """Scales are powers of two; of a prompt nothing reaches the top of what 8 bits hold, nor only its bottom."""
    decoder = Decoder.from_folder(folder, kv_cache="fp8")
    cache = decoder.new_cache()
    decoder.prefill(cache, 0, IDS)
    assert cache.keys[0].dtype == f8e4m3.numpy
    for layer, scales in enumerate(cache.scales):
        for held, scale in zip((cache.keys[layer], cache.values[layer]), scales, strict=True):
            assert scale.shape == (decoder.config.kv_heads,)
            assert np.array_equal(np.log2(scale), np.round(np.log2(scale)))
            seen = np.abs(held[0, :, : len(IDS)].astype(np.float32)).reshape(len(scale), -1)
            assert (seen.max(1) < 448).all()
            assert (np.median(seen, axis=1) > 2.0**-6).all()  # not among the denormals


def test_a_cache_of_another_kind_is_refused(folder):
    with pytest.raises(ArgumentError, match="kv_cache is 'int4'; choose auto or fp8"):
        Decoder.from_folder(folder, kv_cache="int4")


def test_an_ordinary_cache_has_no_scales(folder):
    assert Decoder.from_folder(folder).new_cache().scales[0] == (None, None)
