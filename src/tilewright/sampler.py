"""Batches of similar length for training: less padding, fewer shapes, and what both would have been at random."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tilewright.errors import ArgumentError


@dataclass(frozen=True)
class Padding:
    """What batches cost beyond their tokens. `shapes` counts the different (rows, padded length) of the batches."""

    batches: int
    tokens: int
    padded: int
    shapes: int

    @property
    def waste(self) -> float:
        """The share of all positions that hold no token."""
        return 1 - self.tokens / self.padded if self.padded else 0.0

    @property
    def recompiles(self) -> int:
        """How often a compiler that specialises to shapes compiles again after its first time."""
        return max(self.shapes - 1, 0)


class LengthGroupedBatches:
    """Batches of sequences of similar length: `DataLoader(data, batch_sampler=LengthGroupedBatches(...))`.

    lengths: tokens of each sequence of the data set.
    batch_size: sequences of a batch; the last one of an epoch may be smaller unless `drop_last`.
    multiple: what lengths are padded up to a multiple of (in the collate function; `padded_length` says to what).
    window: batches that are sorted together. A window of the whole epoch gives the least padding; a smaller one
        leaves more of the order to chance.
    rank, replicas: this process gives every `replicas`-th batch; all processes give equally many, so that a few
        batches of the epoch are left out.

    An epoch is a shuffle of the data (seed and `set_epoch` decide it), cut into windows; each is sorted by length and
    cut into batches, and the batches are shuffled. Every sequence comes once. It has the protocol of
    `torch.utils.data.Sampler` and needs no torch. Raises ArgumentError for numbers that make no batch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        multiple: int = 64,
        window: int = 50,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        replicas: int = 1,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("multiple", multiple), ("window", window)):
            if value < 1:
                raise ArgumentError(f"{name}={value} makes no batch; give at least 1")
        if not 0 <= rank < replicas:
            raise ArgumentError(f"rank={rank} is none of {replicas} replicas; give 0 to replicas - 1")
        self.lengths = [int(n) for n in lengths]
        if any(n < 0 for n in self.lengths):
            raise ArgumentError("a sequence has a negative length; give the tokens of each")
        self.batch_size = batch_size
        self.multiple = multiple
        self.window = window
        self.seed = seed
        self.drop_last = drop_last
        self.rank, self.replicas = rank, replicas
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which shuffle comes next; with the same number it is the same one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._grouped(random.Random(f"{self.seed} {self.epoch}"))
        count = len(self)
        return iter(batches[self.rank :: self.replicas][:count])

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return (whole + bool(rest and not self.drop_last)) // self.replicas

    def padded_length(self, batch: Sequence[int], multiple: int | None = None) -> int:
        """The length that the sequences of a batch are padded to: that of the longest, rounded up."""
        longest, step = max((self.lengths[i] for i in batch), default=0), multiple or self.multiple
        return -(-longest // step) * step

    def padding(self) -> Padding:
        """What this epoch costs."""
        return self._padding(list(self))

    def random_padding(self, multiple: int | None = None) -> Padding:
        """What an epoch of batches at random costs, padded by the same rule or to another multiple (1: not rounded)."""
        return self._padding(self._cut(self._shuffled(random.Random(f"{self.seed} {self.epoch}"))), multiple)

    def _padding(self, batches: Sequence[Sequence[int]], multiple: int | None = None) -> Padding:
        padded = [(len(batch), self.padded_length(batch, multiple)) for batch in batches]
        tokens = sum(self.lengths[i] for batch in batches for i in batch)
        return Padding(len(batches), tokens, sum(rows * n for rows, n in padded), len(set(padded)))

    def _grouped(self, chance: random.Random) -> list[list[int]]:
        order, step = self._shuffled(chance), self.window * self.batch_size
        windows = [order[start : start + step] for start in range(0, len(order), step)]
        batches = [b for w in windows for b in self._cut(sorted(w, key=self.lengths.__getitem__))]
        chance.shuffle(batches)
        return batches

    def _shuffled(self, chance: random.Random) -> list[int]:
        order = list(range(len(self.lengths)))
        chance.shuffle(order)
        return order

    def _cut(self, order: list[int]) -> list[list[int]]:
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return [b for b in batches if len(b) == self.batch_size] if self.drop_last else batches


__all__ = ["LengthGroupedBatches", "Padding"]
