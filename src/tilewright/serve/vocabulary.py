"""The text of single tokens, for log probabilities."""

from __future__ import annotations

from functools import lru_cache

from tilewright.models.tokenizer import Tokenizer

_KEPT = 65536


class Vocabulary:
    """Texts of tokens, each looked up once. A part of a character is U+FFFD, as no text holds it by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.text = lru_cache(maxsize=_KEPT)(lambda token: tokenizer.decode([token], skip_special_tokens=False))


__all__ = ["Vocabulary"]
