"""The weights of a decoder, checked against its configuration and laid out for the kernels.

Query, key and value projections are copied into one matrix; all else is used where the file is mapped, unless the
dtype must change. Peak memory stays near one copy of the weights: every copied page of the map is given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.errors import DTypeError, WeightsError
from tilewright.language.dtypes import DType, bf16, f16, f32, f64
from tilewright.language.dtypes import dtype as to_dtype
from tilewright.models.config import ModelConfig
from tilewright.models.memory import HOST, Array, Memory, aligned_empty
from tilewright.models.safetensors import Checkpoint

COMPUTE_DTYPES = (f32, bf16, f16)
_HARMLESS = ("rotary_emb.inv_freq",)  # old checkpoints store what rope_tables computes


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer; matrices are [out, in] (C contiguous), vectors [out]; an absent bias is None."""

    input_norm: Array
    qkv: Array  # [(heads + 2 kv_heads) * head_dim, hidden], rows in the order q, k, v
    qkv_bias: Array | None
    q_norm: Array | None  # [head_dim]
    k_norm: Array | None
    output: Array  # [hidden, heads * head_dim]
    output_bias: Array | None
    mlp_norm: Array
    gate: Array  # [intermediate, hidden]
    gate_bias: Array | None
    up: Array
    up_bias: Array | None
    down: Array  # [hidden, intermediate]
    down_bias: Array | None


@dataclass(frozen=True)
class Weights:
    """All weights, of one `dtype`; `head` is `embedding` itself where they are tied."""

    dtype: DType
    embedding: Array  # [vocab, hidden]
    layers: tuple[LayerWeights, ...]
    final_norm: Array
    head: Array  # [vocab, hidden]

    @property
    def bytes(self) -> int:
        """Bytes of all distinct weights."""
        arrays = [self.embedding, self.final_norm, *([] if self.head is self.embedding else [self.head])]
        arrays += [a for layer in self.layers for a in vars(layer).values() if a is not None]
        return sum(a.nbytes for a in arrays)


def load_weights(
    folder: str | Path, config: ModelConfig, dtype: str | DType = "auto", memory: Memory = HOST
) -> Weights:
    """The weights in `folder`, as `config` describes them, in `memory`.

    `dtype` is "bf16", "f16", "f32", or "auto" for the dtype of the embedding in the file (f64 becomes f32). Raises
    WeightsError where a file is damaged or missing, or a tensor is missing, surplus, or of another shape than the
    configuration wants; DTypeError for a dtype that kernels do not compute in.
    """
    checkpoint = Checkpoint(folder)
    found = compute_dtype(checkpoint, dtype)
    reader = RemoteReader(checkpoint, found, memory) if memory.remote else _Reader(checkpoint, found)
    embedding = reader.take("model.embed_tokens.weight", (config.vocab, config.hidden))
    weights = Weights(
        dtype=reader.dtype,
        embedding=embedding,
        layers=tuple(layer_weights(reader, config, i) for i in range(config.layers)),
        final_norm=reader.take("model.norm.weight", (config.hidden,)),
        head=embedding if config.tied_embeddings else reader.take("lm_head.weight", (config.vocab, config.hidden)),
    )
    reader.expect_nothing_more(tied=config.tied_embeddings)
    return weights


class Reader(Protocol):
    """Where weights come from: tensors by name and shape, and tensors stacked below one another."""

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor `name`, of that shape."""
        ...

    def stack(self, parts: list[tuple[str, tuple[int, ...]]]) -> Array:
        """Tensors by name and shape, as one."""
        ...


def compute_dtype(checkpoint: Checkpoint, wanted: str | DType) -> DType:
    """The dtype to compute in; one of COMPUTE_DTYPES."""
    if wanted == "auto":
        info = checkpoint.get("model.embed_tokens.weight")
        return next((t for t in COMPUTE_DTYPES if info is not None and info.dtype == t.numpy), f32)
    found = to_dtype(wanted)
    if found not in COMPUTE_DTYPES:
        names = ", ".join(t.name for t in COMPUTE_DTYPES)
        raise DTypeError(f"models run in {names}, not {found.name}; ask for one of these or 'auto'")
    return found


def layer_weights(reader: Reader, config: ModelConfig, i: int) -> LayerWeights:
    """Layer `i`."""
    prefix, d, hidden, inner = f"model.layers.{i}.", config.head_dim, config.hidden, config.intermediate
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    rows = {"q": config.heads * d, "k": config.kv_heads * d, "v": config.kv_heads * d}

    def bias(name: str, rows: int, present: bool) -> Array | None:
        return reader.take(name + ".bias", (rows,)) if present else None

    return LayerWeights(
        input_norm=reader.take(prefix + "input_layernorm.weight", (hidden,)),
        qkv=reader.stack([(f"{attention}{n}_proj.weight", (r, hidden)) for n, r in rows.items()]),
        qkv_bias=reader.stack([(f"{attention}{n}_proj.bias", (r,)) for n, r in rows.items()])
        if config.qkv_bias
        else None,
        q_norm=reader.take(attention + "q_norm.weight", (d,)) if config.qk_norm else None,
        k_norm=reader.take(attention + "k_norm.weight", (d,)) if config.qk_norm else None,
        output=reader.take(attention + "o_proj.weight", (hidden, rows["q"])),
        output_bias=bias(attention + "o_proj", hidden, config.output_bias),
        mlp_norm=reader.take(prefix + "post_attention_layernorm.weight", (hidden,)),
        gate=reader.take(mlp + "gate_proj.weight", (inner, hidden)),
        gate_bias=bias(mlp + "gate_proj", inner, config.mlp_bias),
        up=reader.take(mlp + "up_proj.weight", (inner, hidden)),
        up_bias=bias(mlp + "up_proj", inner, config.mlp_bias),
        down=reader.take(mlp + "down_proj.weight", (hidden, inner)),
        down_bias=bias(mlp + "down_proj", hidden, config.mlp_bias),
    )


class _Reader:
    """Takes tensors from a checkpoint, one by one, and knows which were taken."""

    def __init__(self, checkpoint: Checkpoint, dtype: DType) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.taken: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor in place if it has our dtype already, else a converted copy."""
        self._check(name, shape)
        source = self.checkpoint.tensor(name)
        if source.dtype == self.dtype.numpy and source.flags.aligned:
            return source
        out = aligned_empty(shape, self.dtype.numpy)
        self.checkpoint.copy_into(name, out)
        return out

    def stack(self, parts: Sequence[tuple[str, tuple[int, ...]]]) -> Array:
        """The tensors one under the other, in one new array."""
        for name, shape in parts:
            self._check(name, shape)
        rows = [shape[0] for _, shape in parts]
        out = aligned_empty((sum(rows), *parts[0][1][1:]), self.dtype.numpy)
        for (name, _), part in zip(parts, np.split(out, np.cumsum(rows)[:-1]), strict=True):
            self.checkpoint.copy_into(name, part)
        return out

    def expect_nothing_more(self, tied: bool) -> None:
        """WeightsError for a tensor that no part of the model uses: the configuration contradicts the file."""
        for name in self.checkpoint:
            if name in self.taken or name.endswith(_HARMLESS) or (tied and name == "lm_head.weight"):
                continue
            raise WeightsError(
                f"{self.checkpoint.folder}: config.json leaves no place for tensor {name} "
                f"{list(self.checkpoint[name].shape)}; correct config.json (layers, biases, architecture)"
            )

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        """WeightsError unless the tensor is there, is floating point and has the shape."""
        if name not in self.checkpoint:
            raise WeightsError(
                f"{self.checkpoint.folder}: tensor {name} is missing and config.json wants it with shape "
                f"{list(shape)}; correct config.json or fetch the weights again"
            )
        info = self.checkpoint[name]
        if info.shape != shape:
            raise WeightsError(
                f"{self.checkpoint.folder}: tensor {name} has shape {list(info.shape)}, config.json wants "
                f"{list(shape)}; correct config.json or fetch the weights that belong to it"
            )
        if info.dtype not in (t.numpy for t in (*COMPUTE_DTYPES, f64)):
            raise WeightsError(
                f"{self.checkpoint.folder}: tensor {name} has dtype {info.dtype}; weights must be f64, f32, f16 or bf16"
            )
        self.taken.add(name)


class RemoteReader(_Reader):
    """As its base, for weights that lie elsewhere: each tensor goes there from the file that is mapped."""

    def __init__(self, checkpoint: Checkpoint, dtype: DType, memory: Memory) -> None:
        super().__init__(checkpoint, dtype)
        self._memory = memory

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """The tensor, in a new array."""
        return self.stack([(name, shape)])

    def stack(self, parts: Sequence[tuple[str, tuple[int, ...]]]) -> Array:
        """The tensors one under the other, in one new array."""
        for name, shape in parts:
            self._check(name, shape)
        out = self._memory.empty((sum(shape[0] for _, shape in parts), *parts[0][1][1:]), self.dtype.numpy)
        first = 0
        for name, shape in parts:
            self._memory.put(out[first : first + shape[0]], self._values(name, shape))
            first += shape[0]
        return self._memory.sealed(out)

    def _values(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The tensor as it lies in its file, or a converted copy."""
        source = self.checkpoint.tensor(name)
        if source.dtype == self.dtype.numpy and source.flags.aligned:
            return source
        copy = aligned_empty(shape, self.dtype.numpy)
        self.checkpoint.copy_into(name, copy)
        return copy
