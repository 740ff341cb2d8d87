"""Attention on the GPU as the bench sets it up: operands, the tile program, cuDNN beside it, and the judge.

The reference is computed in float64 on the GPU from the same 16-bit operands, for some heads and some of their queries,
drawn anew for the final check; within the bound of the operator's own reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright import operators
from tilewright.bench.attention_cases import AttentionCase
from tilewright.errors import VerificationError
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.evaluator import Problem
from tilewright.runtime.dispatch import Program

_HEADS, _QUERIES = 4, 32
"""Heads, and queries of each, that one check compares element by element."""
_ROUNDED = 2.0**-8
"""Probabilities and results are rounded to bf16: half of this each."""


@dataclass
class AttentionProblem:
    """Operands of one case, drawn from `seed`; all tensors are torch's, on the GPU."""

    case: AttentionCase
    seed: int

    def __post_init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator("cuda").manual_seed(self.seed)
        c = self.case
        self.q = self._normal(c.batch, c.heads, c.rows, c.width)
        self.k, self.v = (self._normal(c.batch, c.kv, c.length, c.width) for _ in range(2))
        self.o = torch.empty_like(self.q)
        self._padded = self._at_the_beginning() if self.case.lengths else self.q  # lives as long as graphs that read it
        self.redraw()

    def _at_the_beginning(self) -> Any:
        """Queries of a ragged batch as a padded one has them."""
        q = self.q.clone()
        for b, length in enumerate(self.case.lengths):
            q[b, :, :length] = self.q[b, :, self.case.rows - length :]
        return q

    def _normal(self, *shape: int) -> Any:
        values = self._torch.empty(shape, dtype=self._torch.bfloat16, device="cuda")
        return values.normal_(generator=self._random)

    def problem(self) -> Problem:
        """The case as a search sees it."""
        c = self.case
        grouped = (c.batch, c.kv, c.heads // c.kv, c.rows, c.width)
        tensors = {"q": self.q.view(grouped), **self._keys(), "o": self.o.view(grouped)}
        buffers = {name: Buffer.of(x) for name, x in tensors.items()}
        options = {"causal": True} if c.causal else {}
        traced = operators.attention.kernel.trace({n: b.dtype.name for n, b in buffers.items()}, options=options)
        return Problem(
            Program.of(traced), buffers, c.sizes, self.poison, self.check, {"scale": self.scale}, fixed=("D", "E")
        )

    def _keys(self) -> dict[str, Any]:
        """Keys and values; of a ragged batch nobody has written what lies behind a sequence."""
        if not self.case.lengths:
            return {"k": self.k, "v": self.v}
        k, v = self.k.clone(), self.v.clone()
        for b, length in enumerate(self.case.lengths):
            k[b, :, length:], v[b, :, length:] = math.nan, math.nan
        return {
            "k": k,
            "v": v,
            "lengths": self._torch.tensor(self.case.lengths, device="cuda", dtype=self._torch.int32),
        }

    @property
    def scale(self) -> float:
        """Of the scores."""
        return 1.0 / math.sqrt(self.case.width)

    def peer(self) -> Callable[[], object]:
        """What a user of torch runs, by cuDNN: no other backend is taken where it refuses.

        A ragged batch is padded: its prompts stand at the beginning of their rows, where the mask hides what follows.
        """
        torch = self._torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        c = self.case
        grouped = {"enable_gqa": True} if c.kv != c.heads else {}
        q = self._padded

        def call() -> object:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(
                    q, self.k, self.v, is_causal=c.causal, **grouped
                )

        return call

    # --------------------------------------------------------------------------------------- the judge
    def poison(self) -> None:
        """NaN in every element of the output."""
        self.o.fill_(math.nan)

    def redraw(self) -> None:
        """Other heads and queries are compared from now on."""
        torch, c = self._torch, self.case
        heads = torch.randperm(c.batch * c.heads, generator=self._random, device="cuda")[:_HEADS]
        queries = torch.randperm(c.rows, generator=self._random, device="cuda")[:_QUERIES]
        self._expected = [(int(n), queries, *self._reference(int(n), queries)) for n in heads]

    def _reference(self, head: int, queries: Any) -> tuple[Any, Any]:
        """(value, what roundings of its terms may add up to) in float64, for some queries of a head."""
        torch, c = self._torch, self.case
        b, h = divmod(head, c.heads)
        length = c.lengths[b] if c.lengths else c.length
        k, v = (x[b, h * c.kv // c.heads, :length].double() for x in (self.k, self.v))
        scores = self.q[b, h, queries].double() @ k.T * self.scale
        if c.causal:
            last = queries[:, None] + (length - c.rows)
            scores.masked_fill_(torch.arange(length, device="cuda")[None] > last, -math.inf)
        p = torch.softmax(scores, -1).nan_to_num(0.0)
        value = p @ v
        return value, _ROUNDED * (p @ v.abs()) + _ROUNDED * value.abs()

    def check(self) -> None:
        """VerificationError unless the output is within its bound of the float64 reference."""
        torch, c = self._torch, self.case
        if not bool(torch.isfinite(self.o).all()):
            raise VerificationError(f"{c.name}: elements are not finite, or were not written")
        for head, queries, value, limit in self._expected:
            b, h = divmod(head, c.heads)
            error = (self.o[b, h, queries].double() - value).abs()
            if not bool((error <= limit).all()):
                worst = (error - limit).max().item()
                raise VerificationError(f"{c.name}: head {head} is off its bound by {worst:.3g}")


__all__ = ["AttentionProblem"]
