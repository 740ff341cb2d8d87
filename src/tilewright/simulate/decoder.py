"""Decoder-only models as their sizes, and the weights and bytes that follow from them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from tilewright.errors import ArgumentError


@dataclass(frozen=True)
class Decoder:
    """The sizes of a Llama, from the `config.json` that its makers publish: gated MLPs and grouped heads.

    `context` is the most tokens of a sequence, `bytes` those of one element of weights and cache; `tied`: the
    embedding is the matrix that gives logits, too.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int = 128256
    context: int = 131072
    tied: bool = False
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

    @property
    def parameters(self) -> int:
        """Weights of all matrices and norms."""
        return self.layers * self.layer_weights + self.head_weights + (0 if self.tied else self.vocab * self.hidden)

    def share(self, chips: int) -> Decoder:
        """What each of `chips` chips holds under tensor parallelism.

        Heads of keys and values are dealt first; beyond them, the query heads that share one, and copies of the cache.
        Rows of the MLP and of the vocabulary are dealt too, rounded up. ArgumentError for no chips.
        """
        if chips < 1:
            raise ArgumentError(f"chips={chips}: a model lies on 1 or more")
        kv = -(-self.kv_heads // chips)
        group = min(self.heads // self.kv_heads, -(-self.heads // chips))
        inner, vocab = -(-self.intermediate // chips), -(-self.vocab // chips)
        return replace(self, heads=kv * group, kv_heads=kv, intermediate=inner, vocab=vocab)

    def cache_bytes(self, context: int) -> int:
        """Keys and values of one sequence in one layer."""
        return 2 * self.kv_heads * self.head_dim * context * self.bytes

    def token_bytes(self, context: int, batch: int = 1) -> int:
        """What one step reads: all layers, the head, and the cache of each sequence; of the embedding only rows."""
        weights = self.layers * self.layer_weights + self.head_weights
        return weights * self.bytes + batch * self.layers * self.cache_bytes(context)


DECODERS = {
    "llama-3.2-1b": Decoder(16, 2048, 8192, 32, 8, 64, tied=True),
    "llama-3.2-3b": Decoder(28, 3072, 8192, 24, 8, 128, tied=True),
    "llama-3.1-8b": Decoder(32, 4096, 14336, 32, 8, 128),
    "llama-3.1-70b": Decoder(80, 8192, 28672, 64, 8, 128),
}
"""By the names under which they are known."""


def decoder(name: str) -> Decoder:
    """The model called so; ArgumentError that names the nearest."""
    if name not in DECODERS:
        near = difflib.get_close_matches(name, DECODERS, 3) or sorted(DECODERS)
        raise ArgumentError(f"no model is called {name!r}; there are {', '.join(near)}")
    return DECODERS[name]


__all__ = ["DECODERS", "Decoder", "decoder"]
