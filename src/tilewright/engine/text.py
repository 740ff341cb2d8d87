"""The text of a running request: tokens in, text out as soon as no stop string can take it back."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.models.tokenizer import Detokenizer, Tokenizer


class TextStream:
    """Text that grows token by token and ends before the first stop string.

    `text` is what is settled: a suffix that may yet become a stop string is held back. Without a tokenizer it stays "".
    """

    def __init__(self, tokenizer: Tokenizer | None, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer, prompt_ids) if tokenizer is not None else None
        self._stops = tuple(stops)
        self._all = ""
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> None:
        """Add a token; `stopped` tells whether a stop string is complete."""
        if self._detokenizer is not None:
            self._extend(self._detokenizer.push(token))

    def finish(self) -> None:
        """No token follows: nothing needs to be held back any longer."""
        if self._detokenizer is not None and not self.stopped:
            self._extend(self._detokenizer.flush())
            self.text = self._all

    def _extend(self, piece: str) -> None:
        before = len(self._all)
        self._all += piece
        found = [i for stop in self._stops if (i := self._all.find(stop, max(0, before - len(stop) + 1))) >= 0]
        if found:
            self.stopped = True
            self._all = self._all[: min(found)]
        self.text = self._all if self.stopped else self._all[: len(self._all) - self._doubtful()]

    def _doubtful(self) -> int:
        """Length of the longest suffix with which a stop string begins."""
        return max((k for s in self._stops for k in range(1, len(s)) if self._all.endswith(s[:k])), default=0)
