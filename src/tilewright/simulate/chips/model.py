"""Decoder-only models as the sizes that decoding depends on, and the bytes that one token reads."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tilewright.errors import ArgumentError

GIB = 2**30


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder with gated MLPs and grouped heads; `bytes` of one element of weights and cache."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    bytes: int = 2

    @property
    def layer_weights(self) -> int:
        """Elements of one layer: q, k, v, o, gate, up, down and two norms."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def head_weights(self) -> int:
        """Elements of the matrix that gives logits, and the norm before it."""
        return (self.vocab + 1) * self.hidden

    def cache_bytes(self, context: int) -> int:
        """Keys and values of one sequence in one layer."""
        return 2 * self.kv_heads * self.head_dim * context * self.bytes

    def token_bytes(self, context: int, batch: int = 1) -> int:
        """What one step reads: all layers, the head, and the cache of each sequence; of the embedding only rows."""
        weights = self.layers * self.layer_weights + self.head_weights
        return weights * self.bytes + batch * self.layers * self.cache_bytes(context)


SHAPES = {
    s.name: s
    for s in (
        DecoderShape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256),
        DecoderShape("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128256),
        DecoderShape("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256),
    )
}


def shape(name: str) -> DecoderShape:
    """The model called so; ArgumentError that names the nearest."""
    if name not in SHAPES:
        near = difflib.get_close_matches(name, SHAPES, 3) or sorted(SHAPES)
        raise ArgumentError(f"no model is called {name!r}; there are {', '.join(near)}")
    return SHAPES[name]


@dataclass(frozen=True)
class Published:
    """A published roofline: bytes of a token, and bytes/s of the whole system at peak."""

    system: str
    bandwidth: float
    tokens: float


PUBLISHED_BYTES = 15.4 * GIB
"""What a token of Llama-3.1-8B reads at a context of 4,096 (arXiv 2410.23668). Its GB are GiB, by its rooflines."""

# The bandwidth of DGX H100 that its roofline is made of is 24 TB/s, not 8 times the 3.35 TB/s of the data sheet.
PUBLISHED = (
    Published("SN40L-8", 8 * 1.6e12, 774),
    Published("SN40L-16", 16 * 1.6e12, 1548),
    Published("DGX H100", 24e12, 1451),
    Published("DGX H100 at 21% of its bandwidth", 0.21 * 24e12, 305),
)


def roofline(bytes_per_token: float, bandwidth: float) -> float:
    """Tokens a second of one sequence, if memory moved at `bandwidth` bytes/s and nothing else took time."""
    return bandwidth / bytes_per_token
