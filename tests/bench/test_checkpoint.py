"""The random checkpoint: right size, readable by others, the same bytes for the same seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tilewright.bench import checkpoint
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.models.config import ModelConfig

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48, vocabulary=100, context=64)


def test_the_default_shape_is_llama_3_2_1b():
    assert Shape().weight_bytes == 2 * 1_235_814_400
    assert Shape().kv_bytes(1) == 32 * 1024


def test_weights_are_as_described(tmp_path):
    write_checkpoint(tmp_path, TINY)
    found = load_file(tmp_path / "model.safetensors")
    assert {name: tuple(t.shape) for name, t in found.items()} == TINY.tensors()
    assert all(t.dtype == torch.bfloat16 for t in found.values())
    embedding = found["model.embed_tokens.weight"].float()
    assert abs(float(embedding.std()) - checkpoint.SPREAD) < 0.002
    assert abs(float(found["model.norm.weight"].float().mean()) - 1) < 0.02


def test_same_seed_same_bytes_and_nothing_unfinished(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a", TINY, seed=1)
    write_checkpoint(tmp_path / "b", TINY, seed=1)
    write_checkpoint(tmp_path / "c", TINY, seed=2)
    a, b, c = ((tmp_path / x / "model.safetensors").read_bytes() for x in "abc")
    assert a == b != c
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"config.json", "model.safetensors"}


def test_chunks_cover_every_weight(monkeypatch):
    monkeypatch.setattr(checkpoint, "CHUNK", 10)
    pieces = list(checkpoint._values(25, np.random.default_rng(0), around=0.0))
    assert [len(p) for p in pieces] == [10, 10, 5]


def test_transformers_and_tilewright_read_it(tmp_path):
    write_checkpoint(tmp_path, TINY)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    logits = model(torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, TINY.vocabulary)
    assert torch.isfinite(logits).all()
    config = ModelConfig.from_folder(tmp_path)
    assert (config.hidden, config.layers, config.vocab) == (TINY.hidden, TINY.layers, TINY.vocabulary)
    assert dataclasses.asdict(TINY)["context"] == config.context
