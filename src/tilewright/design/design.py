"""A design: the decisions that turn a tile program into one kernel, as immutable data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Choice = int | str | bool | tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """A flat set of decisions, sorted by name; two designs are equal if all their decisions are.

    Decisions of x86 (axes, values and tensors by their names in the tile program):

    - `tile.AXIS`: points of the axis that one register tile covers
    - `apart.AXIS`: positions between the points of one register tile, where they are no neighbours
    - `block.AXIS`: points of the axis that one cache block covers (a multiple of the tile)
    - `unroll.AXIS`: tiles of a serial loop written out in one pass
    - `split.AXIS`: accumulators that a sum over a serial loop is split over, joined when it ends
    - `part.AXIS`: points of a serial loop that one thread takes, where it is dealt out; what parts come to is joined
    - `lanes`: axes that lie across vector lanes, first choice first
    - `order`: parallel axes outside blocks, slowest first; `inner`: the same inside a block
    - `pack.TENSOR`: `panel`, `pair`, `quad` or `tile`: repacked before the loops, or read where it lies (absent)
    - `local.TENSOR`: packed inside each cache block, by the thread that uses it
    - `atom.DOT`: the instruction that multiplies (`fma`, `bf16x2`, `vnni`, `amx_bf16`, `amx_int8`)
    - `keep.VALUE`: read back from scratch where an earlier loop over the same row has computed it (see `twins`)
    - `prefetch.LOAD`: iterations of the parallel loop that a load is fetched ahead
    - `ahead.LOAD`: tiles of the serial loop around it that a load is fetched ahead, into the second cache
    - `nontemporal.TENSOR`: written around the caches
    - `threads`: most threads that it pays to use
    - `dealt`: how threads come to their tiles: a run of neighbours each (absent), one by one in `turns`, or short runs
      `drawn` by whoever is free
    """

    decisions: tuple[tuple[str, Choice], ...] = ()

    @classmethod
    def of(cls, decisions: Mapping[str, Choice]) -> Design:
        """A design from a mapping."""
        return cls(tuple(sorted(decisions.items())))

    def get(self, name: str, default: Choice | None = None) -> Choice | None:
        """The decision called `name`, or `default`."""
        return dict(self.decisions).get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """A decision that is a number."""
        value = self.get(name, default)
        assert isinstance(value, int)
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """A decision that is a list of names; empty if not taken."""
        value = self.get(name, ())
        assert isinstance(value, tuple)
        return value

    def prefixed(self, prefix: str) -> Iterator[tuple[str, Choice]]:
        """Decisions `prefix.X` as (X, choice)."""
        for name, choice in self.decisions:
            if name.startswith(prefix + "."):
                yield name[len(prefix) + 1 :], choice

    def with_(self, **changes: Choice) -> Design:
        """The same design with some decisions changed; dots in names are written `__`."""
        return Design.of({**dict(self.decisions), **{k.replace("__", "."): v for k, v in changes.items()}})

    def to_json(self) -> str:
        """Canonical JSON: equal designs give equal text."""
        return json.dumps({k: list(v) if isinstance(v, tuple) else v for k, v in self.decisions}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Design:
        """The design written by `to_json`; ValueError if it is none."""
        data = json.loads(text)
        if not isinstance(data, dict) or not all(isinstance(v, (int, str, bool, list)) for v in data.values()):
            raise ValueError("a design is a JSON object of numbers, words and lists of words")
        return cls.of({str(k): tuple(map(str, v)) if isinstance(v, list) else v for k, v in data.items()})

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits that name the design."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]
