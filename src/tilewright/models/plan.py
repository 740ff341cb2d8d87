"""Plans: a forward pass recorded once as bound launches, then run as often as the shape recurs.

Binding looks up kernels, checks shapes and takes addresses; running only calls. Between runs nothing changes but the
contents of memory: token ids, positions, lengths, the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.models.kv_cache import Scales
from tilewright.models.memory import HOST, Array, Launch, Memory


@dataclass(frozen=True)
class Filters:
    """Which tokens may be drawn; f32 arrays of one element for each sequence, but for the last two.

    cuts: how many temperatures below the likeliest token's a logit may lie, at most 0 (min-p, as a logarithm). fewest:
    how many tokens are kept (top-k). portions: the share of their probability that is kept of those (top-p). shares:
    where levels are tried, see `operators.levels`. nothing: zeros, one for each sequence.
    """

    cuts: Array
    fewest: Array
    portions: Array
    shares: Array
    nothing: Array


@dataclass(frozen=True)
class Penalties:
    """What lowers the logits of tokens that a sequence has already, see `operators.penalties`.

    marks: i32[batch, vocab], counted on by each pass. repetitions, frequencies, presences: f32[batch].
    """

    marks: Array
    repetitions: Array
    frequencies: Array
    presences: Array


@dataclass(frozen=True)
class Told:
    """What a pass tells of its logits, before penalties; of each sequence.

    values, tokens: f32 and i32[batch, TOLD], the likeliest tokens, see `operators.likeliest`. lse: f32[batch], the
    log-sum-exp of all logits. logit: f32[batch], the logit of the token that was chosen.
    """

    values: Array
    tokens: Array
    lse: Array
    logit: Array

    @property
    def arrays(self) -> tuple[Array, ...]:
        """All of them, in that order."""
        return self.values, self.tokens, self.lse, self.logit


@dataclass(frozen=True)
class Choice:
    """What the choice of the next tokens reads and writes; arrays of one element for each sequence.

    tokens: i32, the chosen ones. places: i32, where the last token stands; one further after each pass, as are
    lengths, i32. temperatures: f32, 0 for the likeliest token. seeds: i32. peaks: f32, the score of what was chosen:
    not finite where the model's logits are not. filters: which tokens may be drawn at all; penalties: which are made
    less likely; told: what is told of the logits; each where it is asked for.
    """

    tokens: Array
    places: Array
    lengths: Array
    temperatures: Array
    seeds: Array
    peaks: Array
    filters: Filters | None = None
    penalties: Penalties | None = None
    told: Told | None = None


class Inputs:
    """What a pass over `batch` sequences of `tokens` new tokens each is told: one piece of memory, filled by one copy.

    ids: i32[batch * tokens]. positions: i32[batch, tokens], where each new token stands in its sequence. lengths:
    i32[batch], tokens of each sequence, the new ones included. Each may be written by itself too.
    """

    def __init__(self, memory: Memory, batch: int, tokens: int) -> None:
        self._memory, rows = memory, batch * tokens
        self._first, self._last = _begin_after(rows), _begin_after(_begin_after(rows) + rows)
        self._all = memory.zeros((self._last + batch,), np.int32)
        self.ids = self._all[:rows]
        self.positions = self._all[self._first : self._first + rows].reshape(batch, tokens)
        self.lengths = self._all[self._last :]

    def fill(self, ids: npt.ArrayLike, positions: npt.ArrayLike, lengths: npt.ArrayLike) -> None:
        """Tell all three, `positions` in any shape."""
        told, rows = np.zeros(self._all.shape, np.int32), len(self.ids)
        told[:rows] = ids
        told[self._first : self._first + rows] = np.ravel(positions)
        told[self._last :] = lengths
        self._memory.put(self._all, told)


def _begin_after(elements: int) -> int:
    """Where what comes after so many i32 begins: at a multiple of 128 bytes, as kernels ask for no more."""
    return -(-elements // 32) * 32


@dataclass(frozen=True)
class Plan:
    """A recorded pass over `batch` sequences of `tokens` new tokens each. Fill the inputs, `run`, read `output`."""

    inputs: Inputs
    output: Array | None  # f32[batch, vocab] logits, or [batch * tokens, hidden] hidden states, or nothing
    launches: tuple[Launch, ...]
    memory: Memory = HOST
    choice: Choice | None = None

    @property
    def ids(self) -> Array:
        """i32[batch * tokens]."""
        return self.inputs.ids

    @property
    def positions(self) -> Array:
        """i32[batch, tokens]: where each new token stands in its sequence."""
        return self.inputs.positions

    @property
    def lengths(self) -> Array:
        """i32[batch]: tokens of each sequence, the new ones included."""
        return self.inputs.lengths

    def run(self) -> None:
        """Execute every launch in order."""
        self._prepared()

    def make_ready(self) -> None:
        """Do now what the first run would do before its first launch."""
        _ = self._prepared

    @cached_property
    def _prepared(self) -> Launch:
        return self.memory.prepared(self.launches)


class Workspace:
    """Activations by role, shared between plans: plans run one at a time and none reads another's leftovers."""

    def __init__(self, memory: Memory = HOST) -> None:
        self._memory = memory
        self._flat: dict[str, Array] = {}

    def take(self, role: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """An array of `shape` for `role`, in memory that grows to the largest ever asked for."""
        wanted = math.prod(shape) * np.dtype(dtype).itemsize
        flat = self._flat.get(role)
        if flat is None or flat.nbytes < wanted:
            flat = self._flat[role] = self._memory.empty((wanted,), np.int8)
        return self._memory.reuse(flat, shape, dtype)


class Recorder:
    """Operators that, instead of running, bind their launch and return the array it will fill.

    The first argument of each is the role of its result in the workspace.
    """

    def __init__(self, operators: Any, workspace: Workspace, dtype: npt.DTypeLike) -> None:
        self._operators = operators
        self._workspace = workspace
        self._dtype = dtype
        self.launches: list[Launch] = []

    def embedding(self, role: str, ids: Array, table: Array) -> Array:
        """Rows of `table`: [ids, hidden]."""
        return self._bind("embedding", self._take(role, ids.size, table.shape[1]), ids, table)

    def rmsnorm(self, role: str, x: Array, weight: Array, eps: float) -> Array:
        """`x / rms(x) * weight` over the last dimension."""
        return self._bind("rmsnorm", self._take(role, *x.shape), x, weight, eps)

    def add_rmsnorm(
        self, roles: tuple[str, str], x: Array, residual: Array, weight: Array, eps: float
    ) -> tuple[Array, Array]:
        """`(rmsnorm(x + residual), x + residual)`."""
        out = (self._take(roles[0], *x.shape), self._take(roles[1], *x.shape))
        self._bind("add_rmsnorm", out, x, residual, weight, eps)
        return out

    def linear(self, role: str, x: Array, weight: Array, bias: Array | None = None, dtype: Any = None) -> Array:
        """`x weight^T + bias`, stored as `dtype` (the model's own if None)."""
        return self._bind("linear", self._take(role, len(x), len(weight), dtype=dtype), x, weight, bias)

    def gate_up(self, role: str, x: Array, gate: Array, up: Array) -> Array:
        """`silu(x gate^T) * (x up^T)`."""
        return self._bind("gate_up", self._take(role, len(x), len(gate)), x, gate, up)

    def swiglu(self, role: str, gate: Array, up: Array) -> Array:
        """`silu(gate) * up`."""
        return self._bind("swiglu", self._take(role, *gate.shape), gate, up)

    def rope_cache(
        self,
        role: str,
        qkv: Array,
        tables: tuple[Array, Array],
        positions: Array,
        cache: tuple[Array, Array],
        *,
        norms: tuple[Array | None, Array | None],
        eps: float,
        scales: Scales = (None, None),
    ) -> Array:
        """Split, normalise (`norms` of q and k, where there are any) and turn `qkv`; k and v go into the cache.

        `scales` are those of a cache of 8 bits. Returns q, [batch, heads, tokens, head_dim].
        """
        keys, values = cache
        batch, tokens = positions.shape
        kv_heads, head_dim = keys.shape[1], keys.shape[3]
        heads = qkv.shape[1] // head_dim - 2 * kv_heads
        split = qkv.reshape(batch, tokens, -1, head_dim)
        ends = (0, heads, heads + kv_heads, heads + 2 * kv_heads)
        parts = [split[:, :, start:end] for start, end in pairwise(ends)]
        out = self._take(role, batch, heads, tokens, head_dim)
        place = out.transpose(0, 2, 1, 3)
        self._bind(
            "rope_cache", place, *parts, *tables, positions, keys, values, q_norm=norms[0], k_norm=norms[1], eps=eps,
            **_named(scales),
        )  # fmt: skip
        return out

    def attention(
        self, role: str, q: Array, cache: tuple[Array, Array], lengths: Array, window: int | None,
        scales: Scales = (None, None),
    ) -> Array:  # fmt: skip
        """Causal attention of the newest tokens over all; [batch * tokens, heads * head_dim]."""
        batch, heads, tokens, head_dim = q.shape
        out, options = self._take(role, batch, tokens, heads, head_dim), {"window": window, **_named(scales)}
        self._bind("attention", out.transpose(0, 2, 1, 3), q, *cache, causal=True, lengths=lengths, **options)
        return out.reshape(batch * tokens, heads * head_dim)

    def sample(self, logits: Array, choice: Choice, drawn: bool) -> None:
        """The next token of each row of f32 `logits`, in two passes: over parts of the vocabulary, and over those.

        `drawn`: at the temperatures of `choice`, from the tokens that its filters leave; else the likeliest.
        """
        whole, penalties = logits, choice.penalties
        if penalties is not None:
            wanted = (penalties.marks, penalties.repetitions, penalties.frequencies, penalties.presences)
            logits = self._bind("penalise", self._take("penalised", *whole.shape, dtype=np.float32), whole, *wanted)
        split, scores, found = self._parts(logits, _PARTS)
        keys: tuple[Array | None, ...] = (choice.temperatures, choice.seeds, choice.places) if drawn else ()
        if choice.filters is not None:
            keys = (*keys, self._floors(logits, choice, choice.filters))
        self._bind("sample_parts", (scores, found), split, *keys)
        self._bind("sample_join", (choice.tokens, choice.peaks, choice.places, choice.lengths), scores, found)
        if penalties is not None:
            self._bind("mark", penalties.marks, choice.tokens)
        if choice.told is not None:
            self._tell(whole, choice.tokens, choice.told)

    def _tell(self, logits: Array, chosen: Array, told: Told) -> None:
        """The likeliest tokens of each row of f32 `logits`, and what else probabilities are made from."""
        rows, most = told.tokens.shape
        split, parts, _ = self._parts(logits, _LEVEL_PARTS)
        best = split.shape[1] * most
        values = self._take("likeliest_values", rows, split.shape[1], most, dtype=np.float32)
        tokens = self._take("likeliest_tokens", rows, split.shape[1], most, dtype=np.int32)
        self._bind("likeliest_parts", (values, tokens, parts), split, most)
        joined = (values.reshape(rows, best), tokens.reshape(rows, best), parts)
        self._bind("likeliest_join", told.arrays, *joined, logits, chosen, most)

    def _floors(self, logits: Array, choice: Choice, filters: Filters) -> Array:
        """f32[rows]: the logit that a token has to reach to be drawn; see `operators.levels`."""
        split, scores, found = self._parts(logits, _LEVEL_PARTS)
        rows, heats, shares = len(logits), choice.temperatures, filters.shares
        top, low, high, kept, least = (
            self._take(f"level_{n}", rows, dtype=np.float32) for n in ("top", "low", "high", "kept", "least")
        )
        levels = [self._take(f"levels_{n}", rows, LEVELS, dtype=np.float32) for n in range(2)]
        sums = [self._take(f"level_{n}", rows, LEVELS, split.shape[1], dtype=np.float32) for n in ("count", "mass")]

        def narrow(fewest: Array, least: Array) -> None:
            """Passes that end with `low` at the highest level that so many tokens of such a mass reach."""
            for n in range(LEVEL_PASSES):
                now, then = levels[n % 2], levels[1 - n % 2]
                self._bind("level_parts", tuple(sums), split, now, top, heats)
                self._bind("level_join", (low, high, kept, then), *sums, now, fewest, least, shares)

        self._bind("sample_parts", (scores, found), split)
        self._bind("level_begin", (top, low, high, levels[0]), scores, heats, filters.cuts, shares)
        narrow(filters.fewest, filters.nothing)
        self._bind("level_again", (least, high, levels[0]), top, low, kept, filters.portions, shares)
        narrow(filters.nothing, least)
        return low

    def _parts(self, logits: Array, near: int) -> tuple[Array, Array, Array]:
        """Logits in parts, and room for the score and the number of the best token of each part."""
        rows, vocab = logits.shape
        parts = _parts(vocab, near)
        scores = self._take(f"best_score_{near}", rows, parts, dtype=np.float32)
        return (
            logits.reshape(rows, parts, vocab // parts),
            scores,
            self._take(f"best_id_{near}", rows, parts, dtype=np.int32),
        )

    def _bind(self, name: str, out: Any, *operands: Any, **options: Any) -> Any:
        """Record `name(*operands, **options)` into `out`. The launch keeps all these arrays alive."""
        self.launches.append(getattr(self._operators, name).bind(*operands, **options, out=out))
        return out

    def _take(self, role: str, *shape: int, dtype: Any = None) -> Array:
        return self._workspace.take(role, shape, dtype or self._dtype)


def _named(scales: Scales) -> dict[str, Array]:
    """Scales of keys and values as options of operators, where there are any."""
    return {} if scales[0] is None else {"k_scale": scales[0], "v_scale": scales[1]}


TOLD = 20
"""How many of the likeliest tokens are told."""
_PARTS, _LEVEL_PARTS = 256, 64
"""Into about how many parts a vocabulary is split: one for a block in passes that read it once, fewer to be summed."""
LEVELS, LEVEL_PASSES = 16, 8
"""Levels that are tried at once, and how often: 16^8 parts of a range are finer than f32 tells apart."""


def _parts(vocab: int, near: int) -> int:
    """Into how many equal parts a vocabulary is split to be looked through: near `near`, as far as it divides."""
    return max((n for n in range(1, 3 * near // 2 + 1) if vocab % n == 0), key=lambda n: -abs(math.log(n / near)))
