"""A Hugging Face folder of Llama's shape with random weights: as heavy as the real thing, free to write anywhere."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

CHUNK = 1 << 22
"""Weights drawn at a time, so that writing takes megabytes of memory whatever the model's size."""

SPREAD = 0.02
"""Standard deviation of the weights, as Llama is initialised."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama; the defaults are those of Llama 3.2 1B."""

    hidden: int = 2048
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    head_dim: int = 64
    intermediate: int = 8192
    vocabulary: int = 128256
    context: int = 8192

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every weight, in the order of the file."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (q, self.hidden),
            "self_attn.k_proj.weight": (kv, self.hidden),
            "self_attn.v_proj.weight": (kv, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, q),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.intermediate, self.hidden),
            "mlp.up_proj.weight": (self.intermediate, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.intermediate),
        }
        names: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        names |= {f"model.layers.{i}.{name}": shape for i in range(self.layers) for name, shape in layer.items()}
        return {**names, "model.norm.weight": (self.hidden,)}

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in bf16. All are read for each token (the embedding doubles as the output layer)."""
        return 2 * sum(math.prod(shape) for shape in self.tensors().values())

    def kv_bytes(self, tokens: int) -> int:
        """Bytes of keys and values of `tokens` positions in bf16."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim * tokens

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 32.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "bos_token_id": 0,
            "eos_token_id": 1,
        }


def write_checkpoint(folder: Path, shape: Shape, seed: int = 0) -> None:
    """Write config and bf16 weights of `shape` into `folder` (made if missing); the same seed gives the same bytes.

    There is no tokenizer: such a model has nothing to say, and prompts are token ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(shape.config(), indent=2))
    unfinished = folder / "model.safetensors.unfinished"
    with unfinished.open("wb") as file:
        _write_weights(file, shape, np.random.default_rng(seed))
    os.replace(unfinished, folder / "model.safetensors")


def _write_weights(file: BinaryIO, shape: Shape, rng: np.random.Generator) -> None:
    """The safetensors format: length of the header, header, tensors one after another."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dims in shape.tensors().items():
        end = offset + 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": list(dims), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name, dims in shape.tensors().items():
        for chunk in _values(math.prod(dims), rng, around=1.0 if "norm" in name else 0.0):
            file.write(chunk.tobytes())


def _values(count: int, rng: np.random.Generator, around: float) -> Iterator[np.ndarray[Any, Any]]:
    """`count` normal bf16 values in pieces: weights around 0, the scales of norms around 1."""
    for start in range(0, count, CHUNK):
        drawn = rng.standard_normal(min(CHUNK, count - start), dtype=np.float32)
        yield (around + SPREAD * drawn).astype(ml_dtypes.bfloat16)
