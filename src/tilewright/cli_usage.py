"""What a command line got wrong, as one line that names the word and the fix."""

from __future__ import annotations

import re
from typing import Any

import typer

UsageError: Any = typer.BadParameter.__mro__[1]
"""What typer raises for a command line that it cannot read; some of its versions bring click, some have their own."""


def usage_line(error: Any) -> str:
    """One line for a UsageError: what is wrong, which value, and the command whose help says what is right.

    Empty where the help itself was the answer: for a command of commands given nothing.
    """
    said = _said(error).rstrip(".")
    end = "" if said.endswith("?") else ";"
    return said and f"{said}{end} `{_command(error)} --help` says what there is"


def _said(error: Any) -> str:
    message: str = error.format_message()
    if found := re.fullmatch(r"Missing \w+ '(.+?)'\.?.*", message):
        return f"{found[1]} is missing"
    bad = re.fullmatch(r"Invalid value for '(.+?)': (.+)", message, re.DOTALL)
    if bad is None:
        return message[:1].lower() + message[1:]
    given, wanted = _given(error), bad[2].removeprefix("Value error, ").partition(", unable to parse")[0]
    wanted = re.sub(r"^'.*?' is not one of ", "it is one of ", wanted)
    wanted = re.sub(r"^Input should be ", "it must be ", wanted)
    return f"{bad[1]}{given}: {wanted}"


def _given(error: Any) -> str:
    """The value that was given, as far as the error knows it."""
    details = getattr(error.__cause__, "errors", None)
    found = details() if callable(details) else []
    return f" {found[0]['input']}" if found and isinstance(found[0].get("input"), str) else ""


def _command(error: Any) -> str:
    return error.ctx.command_path if error.ctx is not None else "tilewright"


__all__ = ["UsageError", "usage_line"]
