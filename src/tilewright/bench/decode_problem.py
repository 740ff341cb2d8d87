"""A step of decoding on the GPU as the bench sets it up: caches, the tile program, torch's ways, and the judge.

The reference is computed in float64 on the GPU from the same 16-bit operands, for some requests and heads of keys,
drawn anew for the final check. What lies behind a sequence is NaN, and entries of the page table behind it are no
pages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewright import operators
from tilewright.bench.decode_cases import HEADS, KEY_HEADS, DecodeCase
from tilewright.errors import VerificationError
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.evaluator import Problem
from tilewright.runtime.dispatch import Program

_CHECKED = 6
"""Pairs of a request and a head of keys that one check compares element by element."""
_ROUNDED = 2.0**-8
"""Probabilities and results are rounded to bf16: half of this each."""


@dataclass
class DecodeProblem:
    """Operands of one case, drawn from `seed`; all tensors are torch's, on the GPU."""

    case: DecodeCase
    seed: int

    def __post_init__(self) -> None:
        import torch

        self._torch = torch
        self._random = torch.Generator("cuda").manual_seed(self.seed)
        c = self.case
        self.q = self._normal(c.batch, HEADS, 1, c.width)
        self.k, self.v = (self._normal(c.batch, KEY_HEADS, c.room, c.width) for _ in range(2))
        self.cached: tuple[Any, Any] = (self.k, self.v)
        self.scales: dict[str, Any] = {}
        if c.dtype != "bf16":
            self.cached, self.scales = self._narrow()
        self.o = torch.empty_like(self.q)
        self.lengths = torch.tensor(c.lengths, device="cuda", dtype=torch.int32)
        self.redraw()

    def _normal(self, *shape: int) -> Any:
        values = self._torch.empty(shape, dtype=self._torch.bfloat16, device="cuda")
        return values.normal_(generator=self._random)

    def _narrow(self) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Keys and values of 8 bits with a scale for each head; k and v become what they stand for."""
        torch, found = self._torch, []
        scales = {n: torch.exp2(torch.arange(-5.0, 3.0, device="cuda"))[:KEY_HEADS] for n in ("k_scale", "v_scale")}
        for x, scale in zip((self.k, self.v), scales.values(), strict=True):
            by = scale[:, None, None].bfloat16()  # a power of two
            found.append((x / by).to(torch.float8_e4m3fn))
            x.copy_(found[-1].bfloat16() * by)
        return (found[0], found[1]), scales

    # --------------------------------------------------------------------------------------- the program
    def problem(self) -> Problem:
        """The case as a search sees it."""
        c = self.case
        tensors = self._paged() if c.page else self._rows()
        buffers = {name: Buffer.of(x) for name, x in tensors.items()}
        operator = operators.paged_attention if c.page else operators.attention
        traced = operator.kernel.trace({n: b.dtype.name for n, b in buffers.items()}, options={"causal": True})
        shapes = [(p.dims, buffers[p.name].shape) for p in traced.params if p.dims is not None]
        sizes = {str(d): n for dims, shape in shapes for d, n in zip(dims, shape, strict=True)}
        fixed = ("D", "E", "P") if c.page else ("D", "E")
        return Problem(Program.of(traced), buffers, sizes, self.poison, self.check, {"scale": self.scale}, fixed=fixed)

    def _grouped(self) -> dict[str, Any]:
        c = self.case
        group = (c.batch, KEY_HEADS, HEADS // KEY_HEADS, 1, c.width)
        return {"q": self.q.view(group), "o": self.o.view(group), **self.scales}

    def _rows(self) -> dict[str, Any]:
        if not self.case.ragged:
            return {**self._grouped(), "k": self.cached[0], "v": self.cached[1]}
        k, v = (x.clone() for x in self.cached)
        for b, length in enumerate(self.case.lengths):
            k[b, :, length:], v[b, :, length:] = math.nan, math.nan
        return {**self._grouped(), "k": k, "v": v, "lengths": self.lengths}

    def _paged(self) -> dict[str, Any]:
        torch, c = self._torch, self.case
        count = c.batch * c.room // c.page
        order = torch.randperm(count, generator=self._random, device="cuda")
        pages = {}
        for name, x in zip(("k_pages", "v_pages"), self.cached, strict=True):
            bytes_ = x.view(torch.uint8)
            cut = bytes_.view(c.batch, KEY_HEADS, -1, c.page, bytes_.shape[-1]).transpose(1, 2)
            cut = cut.reshape(count, KEY_HEADS, c.page, -1)
            moved = torch.empty_like(cut)
            moved[order] = cut
            pages[name] = moved.view(x.dtype)
        table = order.view(c.batch, -1).int()
        for b, length in enumerate(c.lengths):
            table[b, -(-length // c.page) :] = -1
        return {**self._grouped(), **pages, "page_table": table, "lengths": self.lengths}

    @property
    def scale(self) -> float:
        """Of the scores."""
        return 1.0 / math.sqrt(self.case.width)

    # --------------------------------------------------------------------------------------- the peers
    def peers(self) -> dict[str, Callable[[], object]]:
        """What a user of torch runs, on rows as long as the room: cuDNN, and FlashAttention."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        def by(backend: Any) -> Callable[[], object]:
            def call() -> object:
                with sdpa_kernel(backend):
                    return self._torch.nn.functional.scaled_dot_product_attention(
                        self.q, self.k, self.v, enable_gqa=True
                    )

            return call

        return {"cudnn": by(SDPBackend.CUDNN_ATTENTION), "flash": by(SDPBackend.FLASH_ATTENTION)}

    # --------------------------------------------------------------------------------------- the judge
    def poison(self) -> None:
        """NaN in every element of the output."""
        self.o.fill_(math.nan)

    def redraw(self) -> None:
        """Other requests and heads are compared from now on."""
        pairs = self._torch.randperm(self.case.batch * KEY_HEADS, generator=self._random, device="cuda")[:_CHECKED]
        self._expected = [(int(n), *self._reference(int(n))) for n in pairs]

    def _reference(self, pair: int) -> tuple[Any, Any]:
        """(value, what roundings of its terms may add up to) in float64, for the queries of one head of keys."""
        b, h = divmod(pair, KEY_HEADS)
        length = self.case.lengths[b]
        k, v = (x[b, h, :length].double() for x in (self.k, self.v))
        p = self._torch.softmax(self._group(self.q, b, h).double() @ k.T * self.scale, -1)
        value = p @ v
        return value, _ROUNDED * (p @ v.abs()) + _ROUNDED * value.abs()

    def _group(self, x: Any, b: int, h: int) -> Any:
        size = HEADS // KEY_HEADS
        return x[b, h * size : (h + 1) * size, 0]

    def check(self) -> None:
        """VerificationError unless the output is within its bound of the float64 reference."""
        torch, c = self._torch, self.case
        if not bool(torch.isfinite(self.o).all()):
            raise VerificationError(f"{c.name}: elements are not finite, or were not written")
        for pair, value, limit in self._expected:
            error = (self._group(self.o, *divmod(pair, KEY_HEADS)).double() - value).abs()
            if not bool((error <= limit).all()):
                raise VerificationError(f"{c.name}: a head is off its bound by {(error - limit).max().item():.3g}")


__all__ = ["DecodeProblem"]
