"""The forward pass of a decoder-only transformer (Llama, Mistral, Qwen2, Qwen3), through Tilewright kernels only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Flag, auto
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tilewright.errors import ArgumentError, ContextError
from tilewright.language.dtypes import f8e4m3
from tilewright.models.config import ModelConfig
from tilewright.models.kv_cache import KVCache
from tilewright.models.kv_scales import kv_scales
from tilewright.models.memory import HOST, Array, Memory, aligned_empty, memory_of
from tilewright.models.plan import LEVELS, TOLD, Choice, Filters, Inputs, Penalties, Plan, Recorder, Told, Workspace
from tilewright.models.rope import rope_tables
from tilewright.models.weights import LayerWeights, Weights, load_weights
from tilewright.runtime.modes import compile_seconds

KV_CACHES = ("auto", "fp8")  # as the model is stored, or in e4m3
PREFILL_CHUNK = 512  # tokens of one prompt that pass through the layers together
_SCORE_CHUNK = 128  # tokens whose logits are computed together when all are wanted
Recorded = TypeVar("Recorded")
_MAX_PLANS = PREFILL_CHUNK  # one for each length of a chunk: some 4 KB a launch, and a tenth of a millisecond to record


class Want(Flag):
    """What a pass is run for; nothing beyond it is computed. What follows BEST is said beside it."""

    CACHE = auto()  # only the keys and values: an inner chunk of a prompt
    HIDDEN = auto()  # the normalised hidden state of every token
    LAST = auto()  # logits after the last token of each sequence
    BEST = auto()  # those, and the next token of each sequence, chosen where the model runs: the likeliest
    DRAWN = auto()  # some sequences draw at a temperature
    FILTERED = auto()  # and from a part of the vocabulary only
    PENALISED = auto()  # some make tokens less likely that they have already
    TOLD = auto()  # some ask for the probabilities of tokens


class Decoder:
    """A model ready to run, in the memory that its weights lie in. `operators` is `tilewright.ops` but for tests."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        operators: Any = None,
        memory: Memory = HOST,
        kv_cache: str = "auto",
    ) -> None:
        self.config = config
        self.weights = weights
        self.memory = memory
        if kv_cache not in KV_CACHES:
            raise ArgumentError(f"kv_cache is {kv_cache!r}; choose {' or '.join(KV_CACHES)}")
        self._scales = kv_scales(config, weights.layers, memory) if kv_cache == "fp8" else ()
        # Imported here: a model's files can be read without any kernel machinery.
        self._operators = import_module("tilewright.ops") if operators is None else operators
        self._dtype = weights.dtype.numpy
        self._workspace, self._landing = Workspace(memory), memory.landing()
        self._plans: OrderedDict[tuple[int, int, int, int, Want], Plan] = OrderedDict()
        self._tables = self._rope_tables(0)
        self.capture_seconds = 0.0
        """Seconds spent recording passes, without what was compiled for them."""

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        dtype: str = "auto",
        operators: Any = None,
        device: str = "cpu",
        kv_cache: str = "auto",
    ) -> Decoder:
        """The model in a Hugging Face folder, on a device; see `load_weights` and `memory_of` for both and errors."""
        config, memory = ModelConfig.from_folder(folder), memory_of(device)
        return cls(config, load_weights(folder, config, dtype, memory), operators, memory, kv_cache)

    def new_cache(self, max_rows: int = 1, context: int | None = None) -> KVCache:
        """An empty cache for `max_rows` sequences of up to `context` tokens (the model's own context if None)."""
        c = self.config
        limit = context or c.context
        element = f8e4m3.numpy if self._scales else self._dtype
        return KVCache(
            c.layers, c.kv_heads, c.head_dim, element, limit=limit, max_rows=max_rows, memory=self.memory,
            scales=self._scales,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------ running

    def prefill(self, cache: KVCache, row: int, ids: Sequence[int], want: Want = Want.LAST) -> Array | None:
        """Append `ids` to the sequence in `row`; at most PREFILL_CHUNK ids, or as many as one likes in several calls.

        Returns f32[vocab] logits after the last id, [ids, hidden] hidden states, or nothing, as `want` says. The
        result is a view that the next call overwrites.
        """
        plan = self.ready(cache, row, ids, want)
        plan.run()
        cache.lengths[row] += len(ids)
        if plan.output is None or want is Want.HIDDEN:
            return plan.output
        return self._landing.read(plan.output)[0]

    def decode(self, cache: KVCache, ids: Sequence[int]) -> Array:
        """Append one id to each of the sequences in rows 0, 1, ...; returns their f32[len(ids), vocab] logits.

        The result is a view that the next call overwrites.
        """
        batch = len(ids)
        self.reserve(cache, batch, int(cache.lengths[:batch].max()) + 1)
        lengths = cache.lengths[:batch]
        plan = self.plan(cache, 0, batch, 1, Want.LAST)
        plan.inputs.fill(ids, lengths, lengths + 1)
        lengths += 1
        plan.run()
        return self._landing.read(plan.output)

    def ready(self, cache: KVCache, row: int, ids: Sequence[int], want: Want) -> Plan:
        """The pass that appends `ids` to the sequence in `row`, its inputs in place, but for how a token is chosen."""
        first = int(cache.lengths[row]) if row < cache.rows else 0
        self.reserve(cache, row + 1, first + len(ids))
        plan = self.plan(cache, row, 1, len(ids), want)
        plan.inputs.fill(ids, np.arange(first, first + len(ids)), first + len(ids))
        return plan

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
            result[start : start + len(part)] = self._head(hidden)
        return result

    def _head(self, hidden: Array) -> npt.NDArray[Any]:
        """f32[tokens, vocab] logits of hidden states."""
        run = Recorder(self._operators, self._workspace, self._dtype)
        logits = self._bound(lambda: run.linear("logits", hidden, self.weights.head, dtype=np.float32))
        self.memory.run(run.launches)
        return self.memory.read(logits)

    def reserve(self, cache: KVCache, rows: int, tokens: int) -> None:
        """Room for `rows` sequences of `tokens` tokens in the cache and in the tables of cosines."""
        layout = cache.layout
        cache.reserve(rows, tokens)
        if cache.capacity > len(self._tables[0]):
            self._tables = self._rope_tables(cache.capacity)
            self._plans.clear()
        elif cache.layout != layout:
            self._forget(layout)

    def _rope_tables(self, tokens: int) -> tuple[Array, Array]:
        cos, sin = rope_tables(self.config.rope, self.config.head_dim, tokens)
        return self.memory.sealed(self.memory.holding(cos)), self.memory.sealed(self.memory.holding(sin))

    # ---------------------------------------------------------------------------------------- recording

    def plan(self, cache: KVCache, row: int, batch: int, tokens: int, want: Want) -> Plan:
        """The recorded pass for rows `row` .. `row + batch - 1` of `cache`, `tokens` new tokens each."""
        key = (cache.layout, row, batch, tokens, want)
        plan = self._plans.get(key)
        if plan is None:
            begun, compiling = time.perf_counter(), compile_seconds()
            plan = self._plans[key] = self._bound(lambda: self._record(cache, row, batch, tokens, want))
            self.capture_seconds += time.perf_counter() - begun - (compile_seconds() - compiling)
            while len(self._plans) > _MAX_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return plan

    def _bound(self, record: Callable[[], Recorded]) -> Recorded:
        """What `record` gives, with its launches bound; kernels are compiled side by side where that takes long."""
        recording = self.memory.recording()
        if recording is None:
            return record()
        with import_module("tilewright.ops").using(recording):
            recorded = record()
        recording.settle()
        self.memory.wait()  # scratch memory of the launches is being cleared
        return recorded

    def _record(self, cache: KVCache, row: int, batch: int, tokens: int, want: Want) -> Plan:
        """The decoder, from token ids to logits."""
        assert batch == 1 or tokens == 1, "prompts pass one by one, single tokens in batches"
        w, eps = self.weights, self.config.norm_eps
        run = Recorder(self._operators, self._workspace, self._dtype)
        inputs = Inputs(self.memory, batch, tokens)
        ids, positions, lengths = inputs.ids, inputs.positions, inputs.lengths
        last_row = (
            want not in (Want.CACHE, Want.HIDDEN) and tokens > 1
        )  # then the last layer's work is for one token only

        x = run.embedding("x0", ids, w.embedding)
        h = run.rmsnorm("h", x, w.layers[0].input_norm, eps)
        for i, layer in enumerate(w.layers):
            final = i == len(w.layers) - 1
            kv = cache.keys[i][row : row + batch], cache.values[i][row : row + batch]
            qkv = run.linear("qkv", h, layer.qkv, layer.qkv_bias)
            scales = cache.scales[i]
            q = run.rope_cache(
                "q", qkv, self._tables, positions, kv, norms=(layer.q_norm, layer.k_norm), eps=eps, scales=scales
            )
            if final and want is Want.CACHE:
                return Plan(inputs, None, tuple(run.launches), self.memory)
            if final and last_row:
                q, x = q[:, :, -1:], x[-1:]
            a = run.attention("a", q, kv, lengths, self.config.windows[i], scales)
            o = run.linear("o", a, layer.output, layer.output_bias)
            h, x = run.add_rmsnorm(("h", "x1"), o, x, layer.mlp_norm, eps)
            d = run.linear("o", _mlp(run, layer, h), layer.down, layer.down_bias)
            h, x = run.add_rmsnorm(("h", "x0"), d, x, w.final_norm if final else w.layers[i + 1].input_norm, eps)
        output = h if want is Want.HIDDEN else run.linear("logits", h, w.head, dtype=np.float32)
        choice = None
        if Want.BEST in want:
            marks = cache.marks(self.config.vocab)[row : row + batch] if Want.PENALISED in want else None
            choice = self._choice(want, marks, *((ids, positions, lengths) if tokens == 1 else ()))
            run.sample(output, choice, Want.DRAWN in want)
        return Plan(inputs, output, tuple(run.launches), self.memory, choice)

    def _choice(self, want: Want, marks: Array | None, *state: Array) -> Choice:
        """Room for the choice of tokens; `state` are ids, positions and lengths of a pass that goes on from it."""
        ids, positions, lengths = state or [self.memory.zeros((1,), np.int32) for _ in range(3)]
        batch = len(ids)

        def numbers(count: int) -> list[Array]:
            return [self.memory.zeros((batch,), np.float32) for _ in range(count)]

        filters, penalties, told = None, None, None
        if Want.FILTERED in want:
            cuts, fewest, portions, nothing = numbers(4)
            shares = self.memory.holding(np.arange(LEVELS, dtype=np.float32) / LEVELS)
            filters = Filters(cuts, fewest, portions, shares, nothing)
        if marks is not None:
            penalties = Penalties(marks, *numbers(3))
        if Want.TOLD in want:
            values, tokens = (self.memory.zeros((batch, TOLD), kind) for kind in (np.float32, np.int32))
            told = Told(values, tokens, *numbers(2))
        (temperatures, peaks), seeds = numbers(2), self.memory.zeros((batch,), np.int32)
        state = (ids, positions.reshape(batch), lengths)
        return Choice(*state, temperatures, seeds, peaks, filters, penalties, told)

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
