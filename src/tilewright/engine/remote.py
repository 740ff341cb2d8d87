"""Decoding where the model runs: tokens are chosen there and fed back there, and the host reads them one step later.

While a step's tokens travel to the host, the next step is queued already, on the guess that the same requests go on.
Where the guess is wrong (one ended, another came), that step is thrown away and run again with whom there is: it wrote
keys and values that the same tokens at the same places write again, and what a request draws depends on nothing but its
seed and the place, so that neither shows. Tokens that it counted for penalties are counted anew from what the host has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.engine.request import Request
from tilewright.errors import ModelError
from tilewright.models.decoder import Decoder, Want
from tilewright.models.kv_cache import KVCache
from tilewright.models.memory import Array, Launch, Letter, Mailbox
from tilewright.models.plan import Choice, Plan

Values = npt.NDArray[Any]

HOTTEST = 1e30
"""Logits over this temperature, and times it, are still f32."""


@dataclass
class _Pass:
    """A recorded pass for a batch of some size, ready to be queued again and again."""

    plan: Plan
    launch: Launch
    mailbox: Mailbox


@dataclass
class _Flight:
    """A step that was queued: for whom, after how many tokens of each, and its tokens on their way."""

    requests: tuple[Request, ...]
    lengths: tuple[int, ...]
    letter: Letter
    done: _Pass


class RemoteSteps:
    """Steps of a decoder whose memory the host does not see."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self._decoder, self._cache = decoder, cache
        self._passes: dict[tuple[int, int, Want], _Pass] = {}
        self._flight: _Flight | None = None
        self._marked: dict[int, Request] = {}  # rows, and whose tokens are counted there, by what is queued
        self.thrown_away = 0  # steps that were run for nothing

    def prefill(self, request: Request, ids: Sequence[int], completes: bool) -> None:
        """Append `ids` to the request's row; with the last of its prompt it gets its first token."""
        self._drop()
        decoder = self._decoder
        if not completes:
            decoder.prefill(self._cache, request.row, ids, Want.CACHE)
            return
        plan = decoder.ready(self._cache, request.row, ids, _want([request]))
        assert plan.choice is not None
        place = int(self._cache.lengths[request.row]) + len(ids) - 1
        self._choose(plan, {request.row: request}, 1)
        decoder.memory.put(plan.choice.places, [place])
        plan.run()
        self._cache.lengths[request.row] += len(ids)
        self._accept([request], [decoder.memory.read(x) for x in _outcome(plan.choice)])

    def decode(self, requests: Sequence[Request]) -> None:
        """One more token for each of `requests`, which hold rows 0, 1, ..."""
        flight = self._flight
        lengths = tuple(self._cache.lengths[: len(requests)].tolist())
        if flight is None or flight.requests != tuple(requests) or flight.lengths != lengths:
            self._drop()
            flight = self._begin(requests, lengths)
        self._flight = self._go_on(flight) if self._may_go_on(requests) else None
        self._cache.lengths[: len(requests)] += 1
        self._accept(requests, flight.letter.read())

    # ------------------------------------------------------------------------------------------ steps
    def _begin(self, requests: Sequence[Request], lengths: tuple[int, ...]) -> _Flight:
        """A step from what the host knows: last tokens, lengths, how each request chooses."""
        decoder, cache, batch = self._decoder, self._cache, bucket(len(requests), self._cache.max_rows)
        decoder.reserve(cache, batch, max(lengths) + 1)
        done = self._pass(batch, _want(requests))
        ids = np.zeros(batch, np.int32)
        ids[: len(requests)] = [r.output_ids[-1] for r in requests]
        # Rows beyond the batch write behind what they hold, and look at one key: nobody reads the outcome.
        places = cache.lengths[:batch]
        seen = np.where(np.arange(batch) < len(requests), places + 1, 1)
        for array, values in ((done.plan.ids, ids), (done.plan.positions, places[:, None]), (done.plan.lengths, seen)):
            decoder.memory.put(array, values)
        for row in range(len(requests), batch):
            self._marked.pop(row, None)  # the pass counts there too
        self._choose(done.plan, dict(enumerate(requests)), batch)
        return self._queued(done, tuple(requests), lengths)

    def _go_on(self, flight: _Flight) -> _Flight:
        """The step after one that is under way: all that it needs is there already."""
        return self._queued(flight.done, flight.requests, tuple(n + 1 for n in flight.lengths))

    def _queued(self, done: _Pass, requests: tuple[Request, ...], lengths: tuple[int, ...]) -> _Flight:
        done.launch()
        return _Flight(requests, lengths, done.mailbox.post(), done)

    def _may_go_on(self, requests: Sequence[Request]) -> bool:
        """Whether the next step can be queued before this one's tokens are known, and may well be wanted."""
        rows = len(requests)
        if any(r.ends_after_next for r in requests):
            return False
        return int(self._cache.lengths[:rows].max()) + 2 <= self._cache.capacity

    def _pass(self, batch: int, want: Want) -> _Pass:
        """The pass for a batch, captured when it is first wanted, and again when the cache has moved."""
        key = (self._cache.layout, batch, want)
        if key not in self._passes:
            self._passes = {k: p for k, p in self._passes.items() if k[0] == self._cache.layout}
            decoder = self._decoder
            plan = decoder.plan(self._cache, 0, batch, 1, want)
            assert plan.choice is not None
            mailbox = decoder.memory.mailbox(_outcome(plan.choice))
            self._passes[key] = _Pass(plan, decoder.memory.replayed(plan.launches), mailbox)
        return self._passes[key]

    def _choose(self, plan: Plan, requests: dict[int, Request], batch: int) -> None:
        """How each request, by the row it holds, chooses, for the pass to read; rows of none are greedy."""
        choice, memory, made = plan.choice, self._decoder.memory, list(requests.values())
        assert choice is not None

        def put(arrays: Sequence[Array], values: Sequence[Sequence[float]], kind: npt.DTypeLike = np.float32) -> None:
            """A column of values for each array."""
            for array, column in zip(arrays, np.array(values, kind).T, strict=True):
                memory.put(array, np.pad(column, (0, batch - len(made))))

        put([choice.temperatures], [[_heat(r.params.temperature)] for r in made])
        put([choice.seeds], [[r.sampler.key] for r in made], np.int32)
        if (filters := choice.filters) is not None:
            put((filters.cuts, filters.fewest, filters.portions), [r.sampler.limits for r in made])
        if (penalties := choice.penalties) is not None:
            ways = [r.sampler.penalties for r in made]
            put([penalties.repetitions], [[min(max(way[0], 1 / HOTTEST), HOTTEST)] for way in ways])
            put([penalties.frequencies, penalties.presences], [way[1:] for way in ways])
            self._mark(requests)

    def _mark(self, requests: dict[int, Request]) -> None:
        """Which tokens penalised requests have, where what is queued has not counted them."""
        marks = self._cache.marks(self._decoder.config.vocab)
        for row, request in requests.items():
            if request.sampler.penalised and self._marked.get(row) is not request:
                self._decoder.memory.put(marks[row], request.sampler.marks)
                self._marked[row] = request

    def _drop(self) -> None:
        """Forget a step that was queued on a wrong guess."""
        if self._flight is not None:
            self._flight.letter.read()  # its slot is free again
            for row in range(len(self._flight.requests)):
                self._marked.pop(row, None)  # it has counted tokens that are not to be
            self._flight = None
            self.thrown_away += 1

    # ---------------------------------------------------------------------------------------- outcomes
    def _accept(self, requests: Sequence[Request], outcome: Sequence[Values]) -> None:
        """Give each request its token, and its log probabilities if it asked for them."""
        tokens, peaks, *told = outcome
        for n, request in enumerate(requests):
            token = int(tokens[n])
            if not math.isfinite(peaks[n]):
                raise ModelError(f"the model gave logit {peaks[n]} for token {token}; its weights are damaged")
            request.accept_token(token, request.sampler.told(token, *(x[n] for x in told)) if told else None)


def _outcome(choice: Choice) -> list[Array]:
    """What the host reads of a step."""
    return [choice.tokens, choice.peaks, *(choice.told.arrays if choice.told is not None else ())]


def _heat(temperature: float) -> float:
    """A temperature by which an f32 can be divided: what is colder is greedy, what is hotter no different."""
    return 0.0 if temperature < 1 / HOTTEST else min(temperature, HOTTEST)


def _want(requests: Sequence[Request]) -> Want:
    """What the steps of these requests have to do, for any of them."""
    asked = {
        Want.DRAWN: any(not r.params.greedy for r in requests),
        Want.FILTERED: any(r.sampler.filtered for r in requests),
        Want.PENALISED: any(r.sampler.penalised for r in requests),
        Want.TOLD: any(r.params.logprobs is not None for r in requests),
    }
    return reduce(or_, (want for want, any_ in asked.items() if any_), Want.BEST)


def bucket(batch: int, most: int) -> int:
    """The size of the pass that serves `batch` sequences: the next power of two, at most `most`."""
    return min(1 << (batch - 1).bit_length(), most)


__all__ = ["RemoteSteps", "bucket"]
