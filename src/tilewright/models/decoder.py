"""The forward pass of a decoder-only transformer (Llama, Mistral, Qwen2, Qwen3), through Tilewright kernels only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ContextError
from tilewright.models.config import ModelConfig
from tilewright.models.kv_cache import KVCache
from tilewright.models.memory import aligned_empty, aligned_zeros
from tilewright.models.plan import Array, Plan, Recorder, Workspace
from tilewright.models.rope import rope_tables
from tilewright.models.weights import LayerWeights, Weights, load_weights
from tilewright.runtime.modes import compile_seconds

PREFILL_CHUNK = 512  # tokens of one prompt that pass through the layers together
_SCORE_CHUNK = 128  # tokens whose logits are computed together when all are wanted
_MAX_PLANS = PREFILL_CHUNK  # one for each length of a chunk: some 4 KB a launch, and a tenth of a millisecond to record


class Want(Enum):
    """What a pass is run for; nothing beyond it is computed."""

    CACHE = "cache"  # only the keys and values: an inner chunk of a prompt
    LAST = "last"  # logits after the last token of each sequence
    HIDDEN = "hidden"  # the normalised hidden state of every token


class Decoder:
    """A model ready to run. `operators` is `tilewright.ops` unless a test gives its own."""

    def __init__(self, config: ModelConfig, weights: Weights, operators: Any = None) -> None:
        self.config = config
        self.weights = weights
        # Imported here: a model's files can be read without any kernel machinery.
        self._operators = import_module("tilewright.ops") if operators is None else operators
        self._dtype = weights.dtype.numpy
        self._workspace = Workspace()
        self._plans: OrderedDict[tuple[int, int, int, int, Want], Plan] = OrderedDict()
        self._tables = rope_tables(config.rope, config.head_dim, 0)
        self.capture_seconds = 0.0
        """Seconds spent recording passes, without what was compiled for them."""

    @classmethod
    def from_folder(cls, folder: str | Path, dtype: str = "auto", operators: Any = None) -> Decoder:
        """The model in a Hugging Face folder; see `load_weights` for `dtype` and errors."""
        config = ModelConfig.from_folder(folder)
        return cls(config, load_weights(folder, config, dtype), operators)

    def new_cache(self, max_rows: int = 1, context: int | None = None) -> KVCache:
        """An empty cache for `max_rows` sequences of up to `context` tokens (the model's own context if None)."""
        c = self.config
        return KVCache(c.layers, c.kv_heads, c.head_dim, self._dtype, limit=context or c.context, max_rows=max_rows)

    # ------------------------------------------------------------------------------------------ running

    def prefill(self, cache: KVCache, row: int, ids: Sequence[int], want: Want = Want.LAST) -> Array | None:
        """Append `ids` to the sequence in `row`; at most PREFILL_CHUNK ids, or as many as one likes in several calls.

        Returns f32[vocab] logits after the last id, [ids, hidden] hidden states, or nothing, as `want` says. The
        result is a view that the next call overwrites.
        """
        first = int(cache.lengths[row]) if row < cache.rows else 0
        self.reserve(cache, row + 1, first + len(ids))
        plan = self.plan(cache, row, 1, len(ids), want)
        plan.ids[:] = ids
        plan.positions[0] = np.arange(first, first + len(ids))
        plan.lengths[0] = first + len(ids)
        plan.run()
        cache.lengths[row] += len(ids)
        return plan.output[0] if plan.output is not None and want is Want.LAST else plan.output

    def decode(self, cache: KVCache, ids: Sequence[int]) -> Array:
        """Append one id to each of the sequences in rows 0, 1, ...; returns their f32[len(ids), vocab] logits.

        The result is a view that the next call overwrites.
        """
        batch = len(ids)
        self.reserve(cache, batch, int(cache.lengths[:batch].max()) + 1)
        lengths = cache.lengths[:batch]
        plan = self.plan(cache, 0, batch, 1, Want.LAST)
        plan.ids[:] = ids
        plan.positions[:, 0] = lengths
        lengths += 1
        plan.lengths[:] = lengths
        plan.run()
        assert plan.output is not None
        return plan.output

    def logits(self, sequences: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float32]]:
        """For each sequence of ids, f32[tokens, vocab]: the logits after every token.

        Works in a cache of its own: sequences that are being generated elsewhere are not disturbed.
        """
        if not all(len(ids) for ids in sequences):
            raise ContextError("a sequence to score is empty; give at least one token")
        cache = self.new_cache()
        try:
            self.reserve(cache, 1, max(map(len, sequences), default=1))
            return [self._score(cache, ids) for ids in sequences]
        finally:
            self._forget(cache.layout)

    def _score(self, cache: KVCache, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """The logits after every token of one sequence, by way of row 0 of `cache`."""
        cache.clear(0)
        result = aligned_empty((len(ids), self.config.vocab), np.float32)
        for start in range(0, len(ids), _SCORE_CHUNK):
            part = ids[start : start + _SCORE_CHUNK]
            hidden = self.prefill(cache, 0, part, Want.HIDDEN)
            self._operators.linear(hidden, self.weights.head, out=result[start : start + len(part)])
        return result

    def reserve(self, cache: KVCache, rows: int, tokens: int) -> None:
        """Room for `rows` sequences of `tokens` tokens in the cache and in the tables of cosines."""
        layout = cache.layout
        cache.reserve(rows, tokens)
        if cache.capacity > len(self._tables[0]):
            self._tables = rope_tables(self.config.rope, self.config.head_dim, cache.capacity)
            self._plans.clear()
        elif cache.layout != layout:
            self._forget(layout)

    # ---------------------------------------------------------------------------------------- recording

    def plan(self, cache: KVCache, row: int, batch: int, tokens: int, want: Want) -> Plan:
        """The recorded pass for rows `row` .. `row + batch - 1` of `cache`, `tokens` new tokens each."""
        key = (cache.layout, row, batch, tokens, want)
        plan = self._plans.get(key)
        if plan is None:
            begun, compiling = time.perf_counter(), compile_seconds()
            plan = self._plans[key] = self._record(cache, row, batch, tokens, want)
            self.capture_seconds += time.perf_counter() - begun - (compile_seconds() - compiling)
            while len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return plan

    def _record(self, cache: KVCache, row: int, batch: int, tokens: int, want: Want) -> Plan:
        """The decoder, from token ids to logits."""
        assert batch == 1 or tokens == 1, "prompts pass one by one, single tokens in batches"
        w, eps = self.weights, self.config.norm_eps
        run = Recorder(self._operators, self._workspace, self._dtype)
        ids = aligned_zeros((batch * tokens,), np.int32)
        positions, lengths = aligned_zeros((batch, tokens), np.int32), aligned_zeros((batch,), np.int32)
        last_row = want is Want.LAST and tokens > 1  # then the last layer's work is for one token only

        x = run.embedding("x0", ids, w.embedding)
        h = run.rmsnorm("h", x, w.layers[0].input_norm, eps)
        for i, layer in enumerate(w.layers):
            final = i == len(w.layers) - 1
            kv = cache.keys[i][row : row + batch], cache.values[i][row : row + batch]
            qkv = run.linear("qkv", h, layer.qkv, layer.qkv_bias)
            q = run.rope_cache("q", qkv, self._tables, positions, kv, norms=(layer.q_norm, layer.k_norm), eps=eps)
            if final and want is Want.CACHE:
                return Plan(ids, positions, lengths, None, tuple(run.launches))
            if final and last_row:
                q, x = q[:, :, -1:], x[-1:]
            a = run.attention("a", q, kv, lengths, self.config.windows[i])
            o = run.linear("o", a, layer.output, layer.output_bias)
            h, x = run.add_rmsnorm(("h", "x1"), o, x, layer.mlp_norm, eps)
            d = run.linear("o", _mlp(run, layer, h), layer.down, layer.down_bias)
            h, x = run.add_rmsnorm(("h", "x0"), d, x, w.final_norm if final else w.layers[i + 1].input_norm, eps)
        output = h if want is Want.HIDDEN else run.linear("logits", h, w.head, dtype=np.float32)
        return Plan(ids, positions, lengths, output, tuple(run.launches))

    def _forget(self, layout: int) -> None:
        """Drop the plans of a cache's former memory, which they keep alive."""
        for key in [key for key in self._plans if key[0] == layout]:
            del self._plans[key]


def _mlp(run: Recorder, layer: LayerWeights, h: Array) -> Array:
    """The gated hidden layer: one fused kernel, or three where there are biases to add before the gate."""
    if layer.gate_bias is None:
        return run.gate_up("m", h, layer.gate, layer.up)
    gate = run.linear("gate", h, layer.gate, layer.gate_bias)
    return run.swiglu("m", gate, run.linear("up", h, layer.up, layer.up_bias))
