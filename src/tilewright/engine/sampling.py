"""Sampling: the parameters of a request, by vLLM's names, and the choice of the next token from its logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.errors import ModelError, SamplingError
from tilewright.models.plan import TOLD
from tilewright.operators.penalties import CHOSEN, PROMPTED

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
REACH = 110.0
"""A token so many temperatures below the likeliest is never drawn: in f32 its probability is 0."""


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens and when to stop. Any value outside its range raises SamplingError at construction.

    n: completions per prompt; only 1.
    temperature: at least 0; 0 is greedy, the likeliest token, the lowest id among equals.
    top_k: keep the k likeliest tokens (and those tied with the last); 0 or -1 keeps all.
    top_p: in (0, 1]; keep the fewest likeliest tokens whose probabilities sum to at least top_p.
    min_p: in [0, 1]; drop tokens less likely than min_p times the likeliest.
    repetition_penalty: above 0; logits of tokens in prompt or output are divided (if positive) or multiplied by it.
    presence_penalty, frequency_penalty: in [-2, 2]; taken off logits of output tokens, once or per occurrence.
    seed: makes the random choices of this request repeatable, whatever runs beside it.
    stop, stop_token_ids: end the output; a stop string is cut from the text.
    max_tokens: at most so many new tokens; None is as many as the context holds.
    ignore_eos: go on after the model's end token.
    logprobs: also give log probabilities of so many likeliest tokens (0 to 20) and of the chosen one.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    max_tokens: int | None = 16
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if self.n != 1:
            raise SamplingError(f"n is {self.n!r}; it must be 1, repeat the prompt for more completions")
        self._number("temperature", 0, math.inf)
        self._number("top_p", 0, 1, open_low=True)
        self._number("min_p", 0, 1)
        self._number("repetition_penalty", 0, math.inf, open_low=True)
        self._number("presence_penalty", -2, 2)
        self._number("frequency_penalty", -2, 2)
        self._integer("top_k", -1)
        self._integer("seed", 0, optional=True)
        self._integer("max_tokens", 1, optional=True)
        self._integer("logprobs", 0, TOLD, optional=True)
        if not isinstance(self.ignore_eos, bool):
            raise SamplingError(f"ignore_eos is {self.ignore_eos!r}; it must be True or False")
        single = self.stop is None or isinstance(self.stop, str)
        if not (single or _all_are(str, self.stop)) or self.stop == "" or not all(self.stops):
            raise SamplingError(f"stop is {self.stop!r}; it must be a string or a list of strings, none empty")
        ids = () if self.stop_token_ids is None else self.stop_token_ids
        if not _all_are(Integral, ids) or any(i < 0 for i in ids):
            raise SamplingError(f"stop_token_ids is {self.stop_token_ids!r}; it must be a list of token ids")

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, however they were given."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def greedy(self) -> bool:
        """Whether the choice is free of chance."""
        return self.temperature == 0

    def _number(self, name: str, low: float, high: float, open_low: bool = False) -> None:
        value = getattr(self, name)
        number = _finite(value)
        if number is None or number < low or number > high or (open_low and number == low):
            if high == math.inf:
                wanted = f"a number {'above' if open_low else 'of at least'} {low}"
            else:
                wanted = f"a number in {'(' if open_low else '['}{low}, {high}]"
            raise SamplingError(f"{name} is {value!r}; it must be {wanted}")
        object.__setattr__(self, name, number)

    def _integer(self, name: str, low: int, high: int | None = None, optional: bool = False) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            wanted = f"an integer of at least {low}" if high is None else f"an integer in [{low}, {high}]"
            raise SamplingError(f"{name} is {value!r}; it must be {wanted}{' or None' if optional else ''}")
        object.__setattr__(self, name, int(value))


def _finite(value: Any) -> float | None:
    """A number, NumPy's too, as a float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _all_are(kind: type, values: object) -> bool:
    """Whether `values` is a list, a tuple or an array of this kind."""
    if not isinstance(values, Collection) or isinstance(values, (str, bytes, Mapping)):
        return False
    return all(isinstance(x, kind) and not isinstance(x, bool) for x in values)


class Sampler:
    """Chooses the tokens of one request: its parameters, its own random generator, what it has seen so far."""

    def __init__(self, params: SamplingParams, prompt_ids: Sequence[int], vocab: int) -> None:
        self.params, self._vocab = params, vocab
        self._random = np.random.default_rng(params.seed)
        self.key = int(np.random.SeedSequence(params.seed).generate_state(1)[0]) >> 1  # for draws on other machines
        p = params
        self.penalised = (p.repetition_penalty, p.presence_penalty, p.frequency_penalty) != (1.0, 0.0, 0.0)
        """Whether the choice depends on which tokens the sequence has already."""
        if self.penalised:
            self.marks = np.zeros(vocab, np.int32)
            """What the sequence has of each token, see `operators.penalties`; none where nothing is penalised."""
            self.marks[list(prompt_ids)] = PROMPTED

    @property
    def penalties(self) -> tuple[float, float, float]:
        """What logits are divided by, what is taken off for each time a token was chosen, and what once."""
        return self.params.repetition_penalty, self.params.frequency_penalty, self.params.presence_penalty

    @property
    def filtered(self) -> bool:
        """Whether tokens are drawn from a part of the vocabulary only."""
        p = self.params
        return not p.greedy and (p.top_k > 0 or p.top_p < 1 or p.min_p > 0)

    @property
    def limits(self) -> tuple[float, float, float]:
        """How many temperatures a logit may lie below the best, how many tokens stay, and which share of those."""
        p = self.params
        cut = max(-REACH, math.log(p.min_p)) if p.min_p > 0 else -REACH
        return cut, float(p.top_k if 0 < p.top_k < self._vocab else self._vocab), p.top_p

    def choose(self, logits: Logits) -> int:
        """The next token for f32[vocab] `logits`, which are left as they are."""
        token = self._choose(self._with_penalties(logits) if self.penalised else logits)
        self.count(token)
        return token

    def count(self, token: int) -> None:
        """The sequence goes on with `token`, wherever it was chosen."""
        if self.penalised:
            self.marks[token] += CHOSEN

    def logprobs(self, logits: Logits, token: int) -> dict[int, float] | None:
        """Natural log probabilities by the model itself, before penalties and temperature; None if unasked.

        Likeliest first; `token` is always among them.
        """
        if self.params.logprobs is None:
            return None
        x = logits.astype(np.float64)
        top = np.argsort(-x, kind="stable")[: self.params.logprobs]
        lse = x.max() + math.log(np.exp(x - x.max()).sum())
        return {int(i): float(x[i] - lse) for i in dict.fromkeys([*top.tolist(), token])}

    def told(self, token: int, values: Logits, tokens: Ids, lse: float, logit: float) -> dict[int, float] | None:
        """The same, of what another machine tells: the likeliest logits and tokens, log-sum-exp, `token`'s logit."""
        if (number := self.params.logprobs) is None:
            return None
        top = {int(i): float(x) for i, x in zip(tokens[:number], values[:number], strict=True) if i < self._vocab}
        return {i: float(x) - float(lse) for i, x in (top | {token: logit}).items()}  # in its place, if it is there

    def _choose(self, logits: npt.NDArray[Any]) -> int:
        best = int(np.argmax(logits))
        if not math.isfinite(logits[best]):
            raise ModelError(f"the model gave logit {logits[best]} for token {best}; its weights are damaged")
        if self.params.greedy:
            return best
        ids, weights = _candidates(logits, self.params)
        bounds = np.cumsum(weights)
        place = np.searchsorted(bounds, self._random.random() * bounds[-1], side="right")
        return int(ids[min(int(place), len(ids) - 1)])

    def _with_penalties(self, logits: Logits) -> npt.NDArray[np.float64]:
        p, x, chosen, has = self.params, logits.astype(np.float64), self.marks // CHOSEN, self.marks > 0
        x[has] = np.where(x[has] > 0, x[has] / p.repetition_penalty, x[has] * p.repetition_penalty)
        x -= p.frequency_penalty * chosen
        x -= p.presence_penalty * (chosen > 0)
        return x


def _candidates(logits: npt.NDArray[Any], p: SamplingParams) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Token ids that may be chosen, ascending, and their weights (probabilities up to a common factor)."""
    ids = np.arange(len(logits))
    if 0 < p.top_k < len(logits):
        ids = np.flatnonzero(logits >= np.partition(logits, -p.top_k)[-p.top_k])
    x = logits[ids].astype(np.float64)
    with np.errstate(
        over="ignore", under="ignore"
    ):  # at a temperature near 0 all but the likeliest are infinitely far away
        weights = np.exp((x - x.max()) / p.temperature)
    if p.min_p > 0:
        keep = weights >= p.min_p  # the likeliest has weight 1
        ids, weights = ids[keep], weights[keep]
    if p.top_p < 1:
        keep = _nucleus(weights, p.top_p)
        ids, weights = ids[keep], weights[keep]
    return ids, weights


def _nucleus(weights: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    """Indices, ascending, of the fewest largest weights that sum to at least `top_p` of the whole."""
    total = float(weights.sum())
    # What is below this threshold sums to less than 1 - top_p in all, so it is outside: far fewer remain to be sorted.
    large = np.flatnonzero(weights >= (1 - top_p) * total / len(weights) * (1 - 1e-9))
    order = large[np.argsort(-weights[large], kind="stable")]
    last = int(np.searchsorted(np.cumsum(weights[order]), top_p * total, side="left"))
    return np.sort(order[: last + 1])
