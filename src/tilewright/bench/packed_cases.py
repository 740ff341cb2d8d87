"""The packed cases of `tilewright bench attention`: sequences one after the other, told by where each begins."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.bench.attention_cases import HEADS, RAGGED

FAMILY = "attention_packed"
_SHORT = tuple(100 + 37 * n % 400 for n in range(64))
_CACHED = tuple(max(1, 4096 * (n + 1) ** 2 // 64**2) for n in range(64))
"""Lengths of 64 requests: a long tail of short ones."""


@dataclass(frozen=True)
class PackedCase:
    """One call of packed attention: sequences of `keys` keys, whose last `queries` (all, if none are said) ask.

    `heads` query heads on `kv` heads of keys, `width` elements wide; causal.
    """

    label: str
    keys: tuple[int, ...]
    width: int
    kv: int = HEADS
    queries: tuple[int, ...] = ()
    heads: int = HEADS
    family: str = FAMILY

    @property
    def rows(self) -> tuple[int, ...]:
        """Queries of each sequence."""
        return self.queries or self.keys

    @property
    def name(self) -> str:
        """As tables show it."""
        groups = f" {self.heads}/{self.kv} heads" if self.kv != self.heads else ""
        return f"bf16 d{self.width} {self.label}{groups}"

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that it sees."""
        return sum(n * t - n * (n - 1) // 2 for n, t in zip(self.rows, self.keys, strict=True))

    @property
    def flops(self) -> float:
        """Operations: two products of every query with every key that it sees."""
        return 4.0 * self.heads * self.width * self.pairs

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: queries, keys, values and results, once."""
        return 2 * self.width * 2 * (self.heads * sum(self.rows) + self.kv * sum(self.keys))


def packed_cases() -> tuple[PackedCase, ...]:
    """Every case, in the order of the tables."""
    ragged = [
        PackedCase(f"8 prompts of 64 to {max(RAGGED)}", RAGGED, d, kv) for d, kv in ((128, 32), (128, 8), (64, 32))
    ]
    return (
        *ragged,
        PackedCase("8 prompts of 2048", (2048,) * 8, 128),
        PackedCase("64 prompts of 100 to 500", _SHORT, 128, 8),
        PackedCase("64 requests of one query, to 4096 keys", _CACHED, 128, 8, (1,) * len(_CACHED)),
    )


__all__ = ["FAMILY", "PackedCase", "packed_cases"]
