"""The cases of `tilewright bench attention`: prompts beside cuDNN, full and causal, with and without groups.

Whole prompts of one length, prompts of many lengths in one batch, and few queries over many keys.
"""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ((16, 512), (8, 2048), (2, 8192), (1, 16384))
"""(batch, length): as many tokens in each but the last two."""
HEADS = 32
RAGGED = (2048, 1536, 1100, 700, 512, 333, 128, 64)
"""Lengths of one batch: a long tail, as requests have."""
FEW = (16, 32, 64)
"""Queries over 4096 keys: a draft that is checked, a short part of a prompt."""


@dataclass(frozen=True)
class AttentionCase:
    """One call of attention: `batch` sequences of `length` keys, `heads` query heads on `kv` key heads.

    As many queries as keys, or `queries` of them, the last at the last key. `lengths` are the keys that each sequence
    has, if not all; queries before its first key see nothing.
    """

    family: str
    batch: int
    length: int
    width: int
    causal: bool
    heads: int = HEADS
    kv: int = HEADS
    dtype: str = "bf16"
    queries: int = 0
    lengths: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Queries of each sequence."""
        return self.queries or self.length

    @property
    def name(self) -> str:
        """As tables show it."""
        kind = "causal" if self.causal else "full"
        groups = f" {self.heads}/{self.kv} heads" if self.kv != self.heads else ""
        few = f"{self.queries} of " if self.queries else ""
        ragged = f" ragged, mean {sum(self.lengths) // self.batch}" if self.lengths else ""
        return f"{self.dtype} d{self.width} B{self.batch} {few}S{self.length} {kind}{groups}{ragged}"

    @property
    def sizes(self) -> dict[str, int]:
        """Of the operator's dimensions."""
        return {
            "B": self.batch, "H": self.kv, "G": self.heads // self.kv, "S": self.rows, "D": self.width,
            "T": self.length, "E": self.width,
        }  # fmt: skip

    @property
    def flops(self) -> float:
        """Operations: two products of every query with every key that it sees; of a causal mask, half."""
        pairs = float(sum(n * n for n in self.lengths) or self.batch * self.rows * self.length)
        return 4.0 * pairs * self.heads * self.width * (0.5 if self.causal else 1.0)

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: queries, keys, values and results, once."""
        keys = sum(self.lengths) or self.batch * self.length
        rows = sum(self.lengths) or self.batch * self.rows
        return 2 * self.width * 2 * (self.heads * rows + self.kv * keys)


def attention_cases() -> tuple[AttentionCase, ...]:
    """Every case, in the order of the tables."""
    square = [
        AttentionCase("attention_prefill", b, s, width, causal)
        for width in (128, 64)
        for causal in (False, True)
        for b, s in SHAPES
    ]
    grouped = [AttentionCase("attention_prefill", b, s, 128, True, kv=8) for b, s in SHAPES[1:3]]
    wide = [
        AttentionCase("attention_prefill", 2, 4096, width, causal) for width in (96, 256) for causal in (False, True)
    ]
    ragged = [
        AttentionCase("attention_prompts", len(RAGGED), max(RAGGED), width, True, kv=kv, lengths=RAGGED)
        for width, kv in ((128, HEADS), (128, 8), (64, HEADS))
    ]
    few = [AttentionCase("attention_prompts", 8, 4096, 128, False, kv=8, queries=n) for n in FEW]
    return (*square, *grouped, *wide, *ragged, *few)


__all__ = ["FEW", "HEADS", "RAGGED", "SHAPES", "AttentionCase", "attention_cases"]
