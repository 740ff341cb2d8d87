"""Chat templates: the Jinja program that a model ships, rendered in jinja2's sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tilewright.errors import ModelError
from tilewright.models.config import read_text

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
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise ModelError(f"{self.where}: the chat template refused the messages: {error}; change them") from None

    @cached_property
    def _compiled(self) -> jinja2.Template:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        return environment.from_string(self.source)


def _check_messages(messages: Sequence[Message]) -> None:
    """ModelError unless every message is a mapping with a role."""
    if not messages:
        raise ModelError("the conversation is empty; give at least one message with role and content")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ModelError(f"message {i} is {message!r}; a message is a mapping with role and content")


class _Generation(Extension):
    """`{% generation %}` marks what the model said, for training; in a prompt it is just its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares the attribute so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja2's own filter escapes for HTML, which would change the prompt."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
