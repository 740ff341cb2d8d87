"""The messages of a conversation as OpenAI's clients write them, made into those that chat templates read."""

from __future__ import annotations

from typing import Any

from tilewright.models.chat import Message
from tilewright.serve.problem import Problem

ROLES = ("system", "developer", "user", "assistant", "tool")


def checked_messages(messages: Any) -> list[Message]:
    """Each with a known role and its text as one string; Problem, naming the message, for anything else."""
    if not isinstance(messages, list) or not messages:
        raise Problem(
            'messages is missing or empty; give a list, as in [{"role": "user", "content": "..."}]', param="messages"
        )
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise Problem(f"{where} is {message!r:.60}; it must be an object with role and content", param=where)
    role = message.get("role")
    if role not in ROLES:
        raise Problem(f"{where}.role is {role!r:.60}; it must be one of {', '.join(ROLES)}", param=f"{where}.role")
    text = _text(message.get("content"), role, f"{where}.content")
    return {**message, "role": "system" if role == "developer" else role, "content": text}


def _text(content: Any, role: str, where: str) -> str:
    """The text of a message: a string, or a list of parts of text."""
    if isinstance(content, str):
        return content
    if content is None and role == "assistant":
        return ""
    if not isinstance(content, list) or not content:
        raise Problem(f"{where} is {content!r:.60}; it must be a string, or a list of parts of text", param=where)
    return "".join(_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Problem(
        f'{where} is no text; models here read text alone: {{"type": "text", "text": "..."}}',
        param=where,
        code="unsupported",
    )


__all__ = ["ROLES", "checked_messages"]
