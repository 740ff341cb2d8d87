"""Chat templates: the Jinja program that a model ships, and the conversations it is rendered with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.errors import ModelError
from tilewright.models.config import read_text

if TYPE_CHECKING:
    import jinja2

Message = Mapping[str, Any]


class ChatTemplate:
    """A chat template; compiled when first rendered, so that a model without use for it never pays for it."""

    def __init__(self, source: str, where: str = "chat_template") -> None:
        self.source = source
        self.where = where

    @classmethod
    def from_folder(cls, folder: Path, settings: Mapping[str, Any]) -> ChatTemplate | None:
        """The template of a model folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`."""
        path = folder / "chat_template.jinja"
        if path.is_file():
            return cls(read_text(path), str(path))
        found = settings.get("chat_template")
        if isinstance(found, list):  # several, by name
            found = {t.get("name"): t.get("template") for t in found if isinstance(t, Mapping)}.get("default")
        return cls(found, str(folder / "tokenizer_config.json")) if isinstance(found, str) else None

    def render(self, messages: Sequence[Message], **variables: Any) -> str:
        """The prompt for `messages`, each a mapping with `role` and `content`.

        `variables` are the template's others: the special tokens, `tools`, `add_generation_prompt` and its own.
        Raises ModelError, with the template's own words, where it refuses the conversation or is not valid Jinja.
        """
        _check_messages(messages)
        try:
            return self._compiled.render(messages=list(messages), **variables)
        except Exception as error:  # whatever a program of others does wrong: TemplateError, 1 / 0, a missing index
            raise ModelError(f"{self.where}: the chat template refused the messages: {error}; change them") from None

    @cached_property
    def _compiled(self) -> jinja2.Template:
        # Imported here: a prompt that is no conversation need not wait for it.
        from tilewright.models.jinja import environment

        return environment().from_string(self.source)


def _check_messages(messages: Sequence[Message]) -> None:
    """ModelError unless every message is a mapping with a role."""
    if not messages:
        raise ModelError("the conversation is empty; give at least one message with role and content")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ModelError(f"message {i} is {message!r}; a message is a mapping with role and content")
