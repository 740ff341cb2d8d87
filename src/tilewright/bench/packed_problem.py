"""Packed attention on the GPU as the bench sets it up: operands, the call of `tw.ops`, torch's ways, and the judge.

The reference is computed in float64 on the GPU from the same 16-bit operands, for some heads of some sequences, drawn
anew for the final check.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright import ops
from tilewright.bench.packed_cases import PackedCase
from tilewright.errors import VerificationError

_CHECKED = 6
"""Pairs of a sequence and a head that one check compares element by element."""
_ROUNDED = 2.0**-8
"""Probabilities and results are rounded to bf16: half of this each."""


@dataclass
class PackedProblem:
    """Operands of one case, drawn from `seed`; all tensors are torch's, on `device`."""

    case: PackedCase
    seed: int
    device: str = "cuda"

    def __post_init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator(self.device).manual_seed(self.seed)
        c = self.case
        self.q = self._normal(sum(c.rows), c.heads, c.width)
        self.k, self.v = (self._normal(sum(c.keys), c.kv, c.width) for _ in range(2))
        self.o = torch.empty_like(self.q)
        self._from = [(0, *itertools.accumulate(n)) for n in (c.rows, c.keys)]
        self.starts = [torch.tensor(f, device=self.device, dtype=torch.int32) for f in self._from]
        self._padded = [self._rows(x, f, n) for x, f, n in self._sides()]
        self.redraw()

    def _normal(self, *shape: int) -> Any:
        values = self._torch.empty(shape, dtype=self._torch.bfloat16, device=self.device)
        return values.normal_(generator=self._random)

    def _sides(self) -> list[tuple[Any, tuple[int, ...], int]]:
        (queries, keys), c = self._from, self.case
        return [(self.q, queries, max(c.rows)), (self.k, keys, max(c.keys)), (self.v, keys, max(c.keys))]

    def _rows(self, x: Any, starts: tuple[int, ...], most: int) -> Any:
        """Sequences one beside the other, [B, heads, most, width], each at the beginning of its rows."""
        rows = self._torch.zeros(len(starts) - 1, x.shape[1], most, x.shape[2], dtype=x.dtype, device=self.device)
        for b, (start, stop) in enumerate(itertools.pairwise(starts)):
            rows[b, :, : stop - start] = x[start:stop].transpose(0, 1)
        return rows

    def ours(self) -> Callable[[], object]:
        """The call that a user makes, results to `o`."""
        return ops.varlen_attention.bind(self.q, self.k, self.v, *self.starts, causal=True, out=self.o)

    def peers(self) -> dict[str, Callable[[], object]]:
        """What a user of torch runs: FlashAttention by cumulative lengths, and cuDNN on a padded batch."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        torch, c = self._torch, self.case
        q, k, v = self._padded
        groups = {"enable_gqa": True} if c.kv != c.heads else {}
        causal = c.rows == c.keys  # of one query a request all keys are seen

        def padded() -> object:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, **groups)

        def packed() -> object:
            return torch.ops.aten._flash_attention_forward(
                self.q, self.k, self.v, *self.starts, max(c.rows), max(c.keys), 0.0, True, False
            )

        return {"packed flash": packed, "padded cuDNN": padded}

    # --------------------------------------------------------------------------------------- the judge
    def poison(self) -> None:
        """NaN in every element of the output."""
        self.o.fill_(math.nan)

    def redraw(self) -> None:
        """Other sequences and heads are compared from now on."""
        c = self.case
        pairs = self._torch.randperm(len(c.keys) * c.heads, generator=self._random, device=self.device)[:_CHECKED]
        self._expected = [(*divmod(int(n), c.heads), *self._reference(*divmod(int(n), c.heads))) for n in pairs]

    def _own(self, x: Any, side: int, b: int, h: int) -> Any:
        return x[self._from[side][b] : self._from[side][b + 1], h]

    def _reference(self, b: int, h: int) -> tuple[Any, Any]:
        """(value, what roundings of its terms may add up to) in float64, for the queries of one head of a sequence."""
        torch, c = self._torch, self.case
        k, v = (self._own(x, 1, b, h * c.kv // c.heads).double() for x in (self.k, self.v))
        scores = self._own(self.q, 0, b, h).double() @ k.T / math.sqrt(c.width)
        rows, keys = scores.shape
        last = torch.arange(rows, device=self.device)[:, None] + (keys - rows)
        p = torch.softmax(scores.masked_fill(torch.arange(keys, device=self.device)[None] > last, -math.inf), -1)
        value = p @ v
        return value, _ROUNDED * (p @ v.abs()) + _ROUNDED * value.abs()

    def check(self) -> None:
        """VerificationError unless the output is within its bound of the float64 reference."""
        if not bool(self._torch.isfinite(self.o).all()):
            raise VerificationError(f"{self.case.name}: elements are not finite, or were not written")
        for b, h, value, limit in self._expected:
            error = (self._own(self.o, 0, b, h).double() - value).abs()
            if not bool((error <= limit).all()):
                worst = (error - limit).max().item()
                raise VerificationError(f"{self.case.name}: head {h} of {b} is off its bound by {worst:.3g}")


__all__ = ["PackedProblem"]
