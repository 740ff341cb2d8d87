"""The answers in OpenAI's JSON: whole ones, and the chunks of a stream."""

from __future__ import annotations

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.serve.job import Delta, Logprobs
from tilewright.serve.vocabulary import Vocabulary

Json = dict[str, Any]


@dataclass
class Choice:
    """One completion as it grows."""

    index: int
    text: str = ""
    tokens: int = 0
    logprobs: list[Logprobs] = field(default_factory=list)
    finish_reason: str | None = None
    offset: int = 0  # characters of the tokens whose log probabilities were sent

    def add(self, delta: Delta) -> None:
        """Grow by what is new."""
        self.text += delta.text
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason


class Answer(ABC):
    """All that goes back for one HTTP request: `choices` completions of prompts of `prompt_tokens` tokens in all.

    `top` is how many likeliest tokens are told beside each chosen one; None for no log probabilities.
    """

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, vocabulary: Vocabulary, choices: int, prompt_tokens: int, top: int | None) -> None:
        self.id = f"{self.prefix}-{uuid.uuid4().hex}"
        self.model, self.created, self.top = model, int(time.time()), top
        self.choices = [Choice(i) for i in range(choices)]
        self._vocabulary, self._prompt_tokens = vocabulary, prompt_tokens

    def whole(self) -> Json:
        """The answer when every choice has ended."""
        return self._around(self.whole_object, [self._whole(c) for c in self.choices], self.usage)

    def begin(self) -> list[Json]:
        """Chunks before the first token."""
        return []

    def chunks(self, index: int, delta: Delta) -> list[Json]:
        """Chunks of what is new of a choice: its text, if any, and its end."""
        choice, found = self.choices[index], []
        if delta.text or delta.logprobs:
            found.append(self.chunk([self._piece(choice, delta)]))
        choice.add(delta)
        if delta.finish_reason is not None:
            found.append(self.chunk([self._end(choice)]))
        return found

    def chunk(self, choices: Sequence[Json], usage: Json | None = None) -> Json:
        """A chunk of a stream; the one with the usage has no choices."""
        return self._around(self.chunk_object, choices, usage)

    @property
    def usage(self) -> Json:
        """Tokens read and made so far; a prompt counts once, however many choices it has."""
        made = sum(c.tokens for c in self.choices)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self._prompt_tokens + made,
        }

    def _around(self, kind: str, choices: Sequence[Json], usage: Json | None) -> Json:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return head if usage is None else {**head, "usage": usage}

    @abstractmethod
    def _whole(self, choice: Choice) -> Json: ...

    @abstractmethod
    def _piece(self, choice: Choice, delta: Delta) -> Json: ...

    @abstractmethod
    def _end(self, choice: Choice) -> Json: ...


class CompletionAnswer(Answer):
    """Of /v1/completions. `echoes` are the texts before each choice, where the prompt is to be repeated."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"
    echoes: Sequence[str] = ()

    def begin(self) -> list[Json]:
        """The prompts, where they are to be repeated."""
        return [self.chunk([_text(i, text, None, None)]) for i, text in enumerate(self.echoes)]

    def _whole(self, choice: Choice) -> Json:
        text = (self.echoes[choice.index] if self.echoes else "") + choice.text
        return _text(choice.index, text, self._logprobs(choice.logprobs, 0), choice.finish_reason)

    def _piece(self, choice: Choice, delta: Delta) -> Json:
        logprobs = self._logprobs(delta.logprobs, choice.offset)
        choice.offset += sum(len(self._vocabulary.text(token)) for token, _ in delta.logprobs)
        return _text(choice.index, delta.text, logprobs, None)

    def _end(self, choice: Choice) -> Json:
        return _text(choice.index, "", None, choice.finish_reason)

    def _logprobs(self, told: Sequence[Logprobs], offset: int) -> Json | None:
        """Four lists, an entry for each token; offsets count characters of the completion."""
        if self.top is None:
            return None
        text = self._vocabulary.text
        found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, chances in told:
            entry: list[Any] = [text(token), chances[token], {}, offset]
            for other, chance in list(chances.items())[: self.top]:
                entry[2].setdefault(text(other), chance)  # of tokens with one text, the likeliest counts
            for values, value in zip(found.values(), entry, strict=True):
                values.append(value)
            offset += len(entry[0])
        return found


class ChatAnswer(Answer):
    """Of /v1/chat/completions."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def begin(self) -> list[Json]:
        """Who speaks, for each choice."""
        return [self.chunk([_delta(c.index, {"role": "assistant", "content": ""}, None, None)]) for c in self.choices]

    def _whole(self, choice: Choice) -> Json:
        return {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text},
            "logprobs": self._logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }

    def _piece(self, choice: Choice, delta: Delta) -> Json:
        return _delta(choice.index, {"content": delta.text}, self._logprobs(delta.logprobs), None)

    def _end(self, choice: Choice) -> Json:
        return _delta(choice.index, {}, None, choice.finish_reason)

    def _logprobs(self, told: Sequence[Logprobs]) -> Json | None:
        """For each token its own entry, and those of the likeliest."""
        if self.top is None:
            return None
        content = [
            {**self._token(i, chances[i]), "top_logprobs": [self._token(*x) for x in list(chances.items())[: self.top]]}
            for i, chances in told
        ]
        return {"content": content}

    def _token(self, token: int, chance: float) -> Json:
        text = self._vocabulary.text(token)
        return {"token": text, "logprob": chance, "bytes": list(text.encode())}


def _text(index: int, text: str, logprobs: Json | None, finish_reason: str | None) -> Json:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _delta(index: int, delta: Json, logprobs: Json | None, finish_reason: str | None) -> Json:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


__all__ = ["Answer", "ChatAnswer", "Choice", "CompletionAnswer"]
