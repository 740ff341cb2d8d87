"""The cases of `tilewright bench attention`: whole prompts beside cuDNN, full and causal, with and without groups."""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ((16, 512), (8, 2048), (2, 8192), (1, 16384))
"""(batch, length): as many tokens in each but the last two."""
HEADS = 32


@dataclass(frozen=True)
class AttentionCase:
    """One call of attention: `batch` sequences of `length` queries and keys, `heads` query heads on `kv` key heads."""

    family: str
    batch: int
    length: int
    width: int
    causal: bool
    heads: int = HEADS
    kv: int = HEADS
    dtype: str = "bf16"

    @property
    def name(self) -> str:
        """As tables show it."""
        kind = "causal" if self.causal else "full"
        groups = f" {self.heads}/{self.kv} heads" if self.kv != self.heads else ""
        return f"{self.dtype} d{self.width} B{self.batch} S{self.length} {kind}{groups}"

    @property
    def sizes(self) -> dict[str, int]:
        """Of the operator's dimensions."""
        return {
            "B": self.batch, "H": self.kv, "G": self.heads // self.kv, "S": self.length, "D": self.width,
            "T": self.length, "E": self.width,
        }  # fmt: skip

    @property
    def flops(self) -> float:
        """Operations: two products of every query with every key that it sees; of a causal mask, half."""
        pairs = float(self.batch) * self.heads * self.length * self.length
        return 4.0 * pairs * self.width * (0.5 if self.causal else 1.0)

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: queries, keys, values and results, once."""
        return 2 * self.batch * self.length * self.width * 2 * (self.heads + self.kv)


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
    return (*square, *grouped, *wide)


__all__ = ["HEADS", "SHAPES", "AttentionCase", "attention_cases"]
