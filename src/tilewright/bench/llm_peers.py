"""A whole model on a GPU as users of transformers run it: eagerly, and compiled with a static cache and CUDA graphs.

The weights are drawn once, by torch on the GPU, and both they and Tilewright read the same memory.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from tilewright.bench.checkpoint import SPREAD, Shape
from tilewright.language.dtypes import bf16
from tilewright.models.config import ModelConfig
from tilewright.models.weights import Weights, layer_weights
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.arrays import DeviceArray

ROOM = 1024
"""Tokens that a static cache holds."""


def drawn_model(shape: Shape, seed: int = 0) -> Any:
    """transformers' model of a shape on the GPU, in bf16, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    options = {k: v for k, v in shape.config().items() if k not in ("architectures", "model_type", "torch_dtype")}
    generator = torch.Generator("cuda").manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = LlamaForCausalLM(LlamaConfig(**options)).eval()
    finally:
        torch.set_default_dtype(before)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, SPREAD, generator=generator)
    return model


@contextmanager
def in_f32(model: Any) -> Iterator[Any]:
    """A copy of a model in f32, which computes in nothing less, inside the `with` block."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield copy.deepcopy(model).float()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
        torch.cuda.empty_cache()


class SharedWeights:
    """A reader of weights (see `models.weights.Reader`) that lie in a model of transformers."""

    def __init__(self, model: Any) -> None:
        self._tensors = dict(model.state_dict())

    def take(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """The tensor `name`, where it lies."""
        return _seen(self._tensors[name], shape)

    def stack(self, parts: list[tuple[str, tuple[int, ...]]]) -> DeviceArray:
        """Tensors below one another, copied to one."""
        rows = sum(shape[0] for _, shape in parts)
        return _seen(torch.cat([self._tensors[name] for name, _ in parts]), (rows, *parts[0][1][1:]))


def _seen(tensor: Any, shape: tuple[int, ...]) -> DeviceArray:
    assert tuple(tensor.shape) == shape
    return DeviceArray(replace(Buffer.of(tensor.contiguous()), owner=tensor, writable=False))


def shared_weights(model: Any, config: ModelConfig) -> Weights:
    """The weights of a model of transformers for Tilewright's decoder; queries, keys and values are copied to one."""
    reader = SharedWeights(model)
    embedding = reader.take("model.embed_tokens.weight", (config.vocab, config.hidden))
    layers = tuple(layer_weights(reader, config, i) for i in range(config.layers))
    head = embedding if config.tied_embeddings else reader.take("lm_head.weight", (config.vocab, config.hidden))
    norm = reader.take("model.norm.weight", (config.hidden,))
    torch.cuda.synchronize()
    return Weights(bf16, embedding, layers, norm, head)


class Eager:
    """Greedy decoding with transformers as it comes, as lean as its interface allows.

    All of it runs in inference mode: what one call makes there, another may write.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device: torch.device = model.device
        self._cache: Any = None
        self._token: Any = None

    def prefill(self, prompts: list[list[int]]) -> None:
        """Read new prompts of one length and choose the first token of each."""
        with torch.inference_mode():
            self._token = self._read(torch.tensor(prompts, device=self._device))
        self._wait()

    def steps(self, count: int) -> None:
        """Choose so many more tokens for each prompt."""
        with torch.inference_mode():
            for _ in range(count):
                self._token = self._forward(self._token)
        self._wait()

    def logits(self, ids: list[int], count: int) -> Any:
        """f32[count, vocab] logits after each of the last tokens of a prompt."""
        with torch.inference_mode():
            found = self._model(torch.tensor([ids], device=self._device), logits_to_keep=count).logits[0]
            return found.float().cpu().numpy()

    @property
    def tokens(self) -> list[int]:
        """The newest token of each prompt."""
        return [int(i) for i in self._token.reshape(-1).cpu()]

    def _read(self, ids: Any) -> Any:
        from transformers import DynamicCache

        self._cache = DynamicCache(config=self._model.config)
        return self._forward(ids)

    def _forward(self, ids: Any) -> Any:
        output = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1].argmax(dim=-1, keepdim=True)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


class Compiled(Eager):
    """The same, with a static cache and the step compiled: torch.compile(mode="reduce-overhead") makes CUDA graphs."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._places: Any = None
        self._named = "cache_position" in inspect.signature(model.forward).parameters
        self._compiled = torch.compile(self._one, mode="reduce-overhead", dynamic=False)

    def _read(self, ids: Any) -> Any:
        """Eagerly; the memory of the cache stays where it is."""
        from transformers import StaticCache

        if self._cache is None:
            self._cache = StaticCache(config=self._model.config, max_cache_len=ROOM)
        self._cache.reset()
        self._places = torch.full((1,), ids.shape[1], device=self._device, dtype=torch.int64)
        return self._one(ids, torch.arange(ids.shape[1], device=self._device))

    def _forward(self, ids: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        token = self._compiled(ids, self._places).clone()
        self._places += 1
        return token

    def _one(self, ids: Any, places: Any) -> Any:
        named = {"cache_position": places} if self._named else {}
        positions = places[None].expand(ids.shape[0], -1)
        output = self._model(
            ids, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1, **named
        )
        return output.logits[:, -1].argmax(dim=-1, keepdim=True)


__all__ = ["ROOM", "Compiled", "Eager", "SharedWeights", "drawn_model", "in_f32", "shared_weights"]
