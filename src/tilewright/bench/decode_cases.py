"""The cases of `tilewright bench decode`: one query a request, against caches of keys and values of many lengths."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.language.dtypes import dtype as _dtype

SHAPES = ((1, 4096), (1, 32768), (16, 4096), (64, 1024), (64, 4096))
"""(batch, room of each request in the cache)."""
HEADS, KEY_HEADS = 32, 8
PAGE = 16


@dataclass(frozen=True)
class DecodeCase:
    """One step of decoding: `batch` queries of 32 heads on up to `room` keys each of 8 heads, `width` elements wide.

    `page`: positions of a page, 0 for rows that lie one after the other. `ragged`: requests are of different lengths.
    `dtype`: of keys and values; queries and results are bf16.
    """

    family: str
    batch: int
    room: int
    width: int
    page: int = 0
    ragged: bool = False
    dtype: str = "bf16"

    @property
    def name(self) -> str:
        """As tables show it."""
        pages = f" pages of {self.page}" if self.page else ""
        return f"{self.dtype} d{self.width} B{self.batch} T{self.room}{pages}{' ragged' if self.ragged else ''}"

    @property
    def lengths(self) -> tuple[int, ...]:
        """True lengths of the requests: all of the room, or a tail of short ones."""
        if not self.ragged:
            return (self.room,) * self.batch
        return tuple(max(1, self.room * (n + 1) ** 2 // self.batch**2) for n in range(self.batch))

    @property
    def bytes(self) -> int:
        """Bytes that must move at least: keys and values that exist, queries and results, once."""
        cached = 2 * KEY_HEADS * sum(self.lengths) * _dtype(self.dtype).bytes
        return (cached + 2 * 2 * HEADS * self.batch) * self.width

    @property
    def flops(self) -> float:
        """Operations: two products of each query with each key."""
        return 4.0 * HEADS * sum(self.lengths) * self.width


def decode_cases() -> tuple[DecodeCase, ...]:
    """Every case, in the order of the tables."""
    full = [DecodeCase("attention_decode", b, t, width) for width in (128, 64) for b, t in SHAPES]
    paged = [DecodeCase("attention_paged", b, t, width, PAGE) for width in (128, 64) for b, t in SHAPES]
    ragged = [
        DecodeCase("attention_ragged", b, t, 128, page, True) for page in (0, PAGE) for b, t in ((16, 8192), (64, 4096))
    ]
    narrow = [
        DecodeCase("attention_fp8", b, t, width, page, dtype="f8e4m3")
        for width, page, (b, t) in (
            (128, 0, (1, 32768)),
            (128, 0, (64, 4096)),
            (128, PAGE, (64, 4096)),
            (64, 0, (64, 4096)),
        )
    ]
    return (*full, *paged, *ragged, *narrow)


__all__ = ["HEADS", "KEY_HEADS", "PAGE", "DecodeCase", "decode_cases"]
