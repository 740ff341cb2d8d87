"""Shape-only traces: which operators ran on which sizes, how often, and how long requests were. No data of any user.

A trace is JSON of a stated version. Whatever is read is checked field by field, and nothing beyond the fields below is
kept or accepted: names of operators and types, whole numbers, and the static options of operators.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewright.errors import TraceError, in_words

FORMAT, VERSION = "tilewright shape trace", 1
MOST_LINES = 1_000_000
"""Calls, and requests, that a trace may hold."""

Option = str | int | bool | None
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MOST = 2**48


@dataclass(frozen=True, order=True)
class Call:
    """An operator at one shape, and how often it ran. `options` are its static ones."""

    operator: str
    sizes: tuple[tuple[str, int], ...]
    dtypes: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, Option], ...] = ()
    device: str = "cpu"
    count: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "operator": self.operator,
            "sizes": dict(self.sizes),
            "dtypes": dict(self.dtypes),
            "options": dict(self.options),
            "device": self.device,
            "count": self.count,
        }


@dataclass(frozen=True)
class Request:
    """A served request: tokens of its prompt, and tokens that were generated."""

    prompt: int
    new: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"prompt": self.prompt, "new": self.new}


@dataclass(frozen=True)
class Trace:
    """Calls in no order, as a histogram, and requests in the order of their arrival."""

    calls: tuple[Call, ...] = ()
    requests: tuple[Request, ...] = ()

    def to_json(self) -> str:
        """The text of a trace file: a line for each call and each request."""
        head = f'"format": "{FORMAT}", "version": {VERSION}'
        calls, requests = (",\n".join(json.dumps(x.to_dict()) for x in part) for part in (self.calls, self.requests))
        return f'{{{head},\n"calls": [\n{calls}\n],\n"requests": [\n{requests}\n]}}\n'

    @staticmethod
    def from_json(text: str) -> Trace:
        """The trace of a text; TraceError that names the line at fault for anything that is none."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TraceError(
                f"no shape trace: it is no JSON ({error}); record one with tilewright trace record"
            ) from None
        fields = _object(data, "the trace", {"format", "version", "calls", "requests"})
        if fields["format"] != FORMAT:
            raise TraceError(f"no shape trace: its format is {fields['format']!r}, not {FORMAT!r}")
        if fields["version"] != VERSION:
            raise TraceError(f"a shape trace of version {fields['version']!r}; this Tilewright reads {VERSION}")
        return Trace(_list(fields["calls"], "calls", _call), _list(fields["requests"], "requests", _request))

    def save(self, path: Path) -> None:
        """Write the trace, whole or not at all. TraceError where that cannot be."""
        try:
            handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".unfinished")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            os.replace(unfinished, path)
        except OSError as error:
            raise TraceError(f"{path}: the trace cannot be written ({in_words(error)}); give another file") from None

    @staticmethod
    def load(path: Path) -> Trace:
        """The trace in a file; TraceError, naming the file, where there is none."""
        try:
            return Trace.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise TraceError(
                f"{path}: cannot be read ({in_words(error)}); record one with tilewright trace record"
            ) from None
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from None


# ------------------------------------------------------------------------------------------------ checks
def _object(data: Any, where: str, fields: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict) or set(data) != fields:
        found = ", ".join(sorted(map(str, data))) if isinstance(data, dict) else type(data).__name__
        raise TraceError(f"{where} needs exactly the fields {', '.join(sorted(fields))}; it has {found}")
    return data


def _list(data: Any, where: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if not isinstance(data, list) or len(data) > MOST_LINES:
        raise TraceError(f"{where} must be a list of at most {MOST_LINES} entries")
    return tuple(read(x, f"{where}[{n}]") for n, x in enumerate(data))


def _call(data: Any, where: str) -> Call:
    fields = _object(data, where, {"operator", "sizes", "dtypes", "options", "device", "count"})
    return Call(
        _word(fields["operator"], f"{where}.operator"),
        _pairs(fields["sizes"], f"{where}.sizes", _size),
        _pairs(fields["dtypes"], f"{where}.dtypes", _word),
        _pairs(fields["options"], f"{where}.options", _option),
        _word(fields["device"], f"{where}.device"),
        _number(fields["count"], f"{where}.count", 1),
    )


def _request(data: Any, where: str) -> Request:
    fields = _object(data, where, {"prompt", "new"})
    return Request(_number(fields["prompt"], f"{where}.prompt", 1), _number(fields["new"], f"{where}.new", 0))


def _pairs(data: Any, where: str, read: Callable[[Any, str], Any]) -> tuple[tuple[str, Any], ...]:
    if not isinstance(data, Mapping) or len(data) > 64:
        raise TraceError(f"{where} must be an object of at most 64 fields")
    return tuple((_word(name, where), read(value, f"{where}.{name}")) for name, value in data.items())


def _word(data: Any, where: str) -> str:
    if not isinstance(data, str) or not _WORD.fullmatch(data):
        raise TraceError(f"{where}={data!r} is no name of at most 64 letters, digits and underscores")
    return data


def _size(data: Any, where: str) -> int:
    return _number(data, where, 0)


def _number(data: Any, where: str, least: int) -> int:
    if type(data) is not int or not least <= data <= _MOST:
        raise TraceError(f"{where}={data!r} is no whole number from {least} on")
    return data


def _option(data: Any, where: str) -> Option:
    if data is None or isinstance(data, bool):
        return data
    return _word(data, where) if isinstance(data, str) else _number(data, where, -_MOST)


__all__ = ["FORMAT", "MOST_LINES", "VERSION", "Call", "Request", "Trace"]
