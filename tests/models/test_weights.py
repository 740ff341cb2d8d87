"""Loading weights: what is shared with the file, what is fused or cast, and configurations that do not fit."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from model_folders import make_model

from tilewright.errors import DTypeError, WeightsError
from tilewright.models.config import ModelConfig
from tilewright.models.memory import CACHE_LINE, aligned_empty, aligned_zeros
from tilewright.models.weights import load_weights


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, transformers' state dict as NumPy arrays) of a Llama with biases."""
    folder = tmp_path_factory.mktemp("model")
    model = make_model("llama-linear-biases", folder)
    return folder, {k: v.numpy() for k, v in model.state_dict().items()}


def test_everything_is_in_its_place(saved):
    folder, state = saved
    config = ModelConfig.from_folder(folder)
    weights = load_weights(folder, config)
    layer, prefix = weights.layers[1], "model.layers.1."
    qkv = [state[f"{prefix}self_attn.{n}_proj.weight"] for n in "qkv"]
    np.testing.assert_array_equal(layer.qkv, np.concatenate(qkv))
    qkv_bias = [state[f"{prefix}self_attn.{n}_proj.bias"] for n in "qkv"]
    np.testing.assert_array_equal(layer.qkv_bias, np.concatenate(qkv_bias))
    for field, name in [
        ("input_norm", "input_layernorm.weight"),
        ("mlp_norm", "post_attention_layernorm.weight"),
        ("output", "self_attn.o_proj.weight"),
        ("output_bias", "self_attn.o_proj.bias"),
        ("gate", "mlp.gate_proj.weight"),
        ("gate_bias", "mlp.gate_proj.bias"),
        ("up", "mlp.up_proj.weight"),
        ("up_bias", "mlp.up_proj.bias"),
        ("down", "mlp.down_proj.weight"),
        ("down_bias", "mlp.down_proj.bias"),
    ]:
        np.testing.assert_array_equal(getattr(layer, field), state[prefix + name], err_msg=field)
    np.testing.assert_array_equal(weights.embedding, state["model.embed_tokens.weight"])
    np.testing.assert_array_equal(weights.head, state["lm_head.weight"])
    np.testing.assert_array_equal(weights.final_norm, state["model.norm.weight"])
    assert weights.bytes == sum(a.nbytes for a in state.values())


def test_unfused_weights_stay_in_the_file(saved):
    weights = load_weights(saved[0], ModelConfig.from_folder(saved[0]))
    assert not weights.layers[0].gate.flags.writeable
    assert not weights.embedding.flags.writeable


@pytest.mark.parametrize(("name", "numpy_dtype"), [("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
def test_cast_on_request(saved, name, numpy_dtype):
    folder, state = saved
    weights = load_weights(folder, ModelConfig.from_folder(folder), name)
    assert weights.dtype.name == name
    np.testing.assert_array_equal(weights.head, state["lm_head.weight"].astype(numpy_dtype))
    assert {a.dtype for a in vars(weights.layers[0]).values() if a is not None} == {np.dtype(numpy_dtype)}


def test_unsupported_dtype(saved):
    with pytest.raises(DTypeError, match="models run in f32, bf16, f16, not i8"):
        load_weights(saved[0], ModelConfig.from_folder(saved[0]), "i8")


def test_weights_of_integers_are_named(saved, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(saved[0] / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file({**tensors, name: np.zeros(tensors[name].shape, np.int16)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"tensor {name} has dtype int16; weights must be f64, f32, f16 or bf16"):
        load_weights(tmp_path, ModelConfig.from_folder(saved[0]))


def test_tied_head_is_the_embedding(tmp_path):
    make_model("llama-gqa8-tied", tmp_path)
    weights = load_weights(tmp_path, ModelConfig.from_folder(tmp_path))
    assert weights.head is weights.embedding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 64}, r"tensor model.embed_tokens.weight has shape \[256, 128\], config.json wants \[256, 64\]"),
        ({"vocab": 300}, r"model.embed_tokens.weight has shape \[256, 128\], config.json wants \[300, 128\]"),
        ({"intermediate": 99}, r"model.layers.0.mlp.gate_proj.weight has shape \[176, 128\], .* wants \[99, 128\]"),
        ({"kv_heads": 1}, r"model.layers.0.self_attn.k_proj.weight has shape \[128, 128\], .* wants \[64, 128\]"),
        ({"qk_norm": True}, r"model.layers.0.self_attn.q_norm.weight is missing and config.json wants it .*\[64\]"),
        ({"layers": 3}, r"tensor model.layers.2.input_layernorm.weight is missing"),
        ({"layers": 1}, r"config.json leaves no place for tensor model.layers.1.*correct config.json"),
        ({"mlp_bias": False}, r"config.json leaves no place for tensor model.layers.0.mlp.down_proj.bias \[128\]"),
    ],
)
def test_contradictions(saved, changes, message):
    config = ModelConfig.from_folder(saved[0])
    if "layers" in changes:
        changes = {**changes, "windows": (None,) * changes["layers"]}
    with pytest.raises(WeightsError, match=message):
        load_weights(saved[0], dataclasses.replace(config, **changes))


def test_untied_without_a_head(tmp_path):
    make_model("llama-gqa8-tied", tmp_path)
    config = dataclasses.replace(ModelConfig.from_folder(tmp_path), tied_embeddings=False)
    with pytest.raises(WeightsError, match=r"tensor lm_head.weight is missing"):
        load_weights(tmp_path, config)


_MEASURE = r"""
import re, sys
from tilewright.models.config import ModelConfig
from tilewright.models.weights import load_weights
def peak(): return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) * 1024
before = peak()
weights = load_weights(sys.argv[1], ModelConfig.from_folder(sys.argv[1]), sys.argv[2])
arrays = [weights.embedding, weights.head] + [a for l in weights.layers for a in vars(l).values() if a is not None]
pages = sum(int(a.reshape(-1).view("u1")[::512].sum()) for a in arrays)  # every page is read
print(weights.bytes, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
@pytest.mark.parametrize("dtype", ["auto", "bf16"])
def test_peak_memory(tmp_path, dtype):
    """Fusing and casting hold little more than the weights at any time, though the file is larger than they are."""
    make_model("llama", tmp_path, hidden_size=1024, intermediate_size=2816, num_attention_heads=16,
               num_key_value_heads=16, num_hidden_layers=4)  # fmt: skip
    out = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path), dtype], check=True, capture_output=True, text=True
    ).stdout
    size, peak = map(int, out.split())
    assert size > 80 << 20
    assert size <= 1.01 * peak  # all of it was resident
    assert peak <= 1.1 * size + (16 << 20)  # and one block of the copy


def test_aligned():
    for shape in [(3,), (1, 4), (5, 7)]:
        array = aligned_empty(shape, np.float32)
        assert array.shape == shape
        assert array.ctypes.data % CACHE_LINE == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert not aligned_zeros((9,), np.int32).any()
