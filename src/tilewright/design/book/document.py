"""A book as readable JSON: what export writes, import reads, and the shipped starter book is made of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tilewright import __version__
from tilewright.design.book.record import Measurement, Quarantined, Record, now
from tilewright.errors import BookError, in_words

FORMAT = "tilewright-book"
SCHEMA = 1
"""Raised whenever the meaning of a document changes; a later one is refused."""


@dataclass(frozen=True)
class Document:
    """Records, what failed, what was measured, and the programs and machines that all this is about.

    `keys`, `programs` and `machines` hold texts by hash. `refused` says what could not be read.
    """

    records: tuple[Record, ...] = ()
    quarantine: tuple[tuple[str, Quarantined], ...] = ()
    measurements: tuple[Measurement, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    def to_text(self) -> str:
        """The document as JSON, indented."""
        data = {
            "format": FORMAT,
            "schema": SCHEMA,
            "version": __version__,
            "date": now(),
            "records": [r.to_dict() for r in self.records],
            "quarantine": [{"key": key, **q.to_dict()} for key, q in self.quarantine],
            "measurements": [m.to_dict() for m in self.measurements],
            "keys": {hash_: json.loads(text) for hash_, text in sorted(self.keys.items())},
            "programs": {hash_: text.splitlines() for hash_, text in sorted(self.programs.items())},
            "machines": {hash_: json.loads(text) for hash_, text in sorted(self.machines.items())},
        }
        return json.dumps({name: part for name, part in data.items() if part or name == "records"}, indent=1) + "\n"

    @classmethod
    def of(cls, text: str, where: str) -> Document:
        """The document in `text`; entries that are damaged are left out, and named in `refused`.

        Raises BookError, which names `where` the text is from, for anything but a document of this schema.
        """
        data = _read(text, where)
        refused: list[str] = []
        records = _each(data, "records", Record.from_dict, refused)
        quarantine = _each(data, "quarantine", _quarantined, refused)
        measurements = _each(data, "measurements", Measurement.from_dict, refused)
        keys = {h: json.dumps(k, sort_keys=True, separators=(",", ":")) for h, k in _part(data, "keys", dict).items()}
        programs = {h: "\n".join(map(str, lines)) + "\n" for h, lines in _part(data, "programs", dict).items()}
        machines = {h: json.dumps(m) for h, m in _part(data, "machines", dict).items()}
        return cls(tuple(records), tuple(quarantine), tuple(measurements), keys, programs, machines, tuple(refused))

    @classmethod
    def load(cls, path: Path) -> Document:
        """The document in a file; BookError for a file that cannot be read or holds none."""
        try:
            return cls.of(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise BookError(
                f"{path} cannot be read ({in_words(error)}); give a file that `tilewright book export` wrote"
            ) from None

    def hints(self, origin: str) -> tuple[Record, ...]:
        """The records as another host takes them: unverified."""
        return tuple(replace(r, verified=False, origin=origin) for r in self.records)


def write(path: Path, text: str) -> None:
    """Write a file in one atomic step; BookError where that is impossible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BookError(f"{path} cannot be written ({in_words(error)}); give a path in a folder that can be") from None


def _read(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BookError(f"{where} is no JSON ({error}); give a file that `tilewright book export` wrote") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("schema"), int):
        raise BookError(f"{where} is no exported book; give a file that `tilewright book export` wrote")
    if data["schema"] > SCHEMA:
        raise BookError(f"{where} was written by a later Tilewright ({data.get('version')}); update to read it")
    return data


def _part(data: dict[str, Any], name: str, kind: type) -> Any:
    found = data.get(name, kind())
    return found if isinstance(found, kind) else kind()


def _each(data: dict[str, Any], name: str, read: Any, refused: list[str]) -> list[Any]:
    """What `read` makes of each entry of a list; the others are refused with their reason."""
    found = []
    for number, entry in enumerate(_part(data, name, list)):
        try:
            found.append(read(entry))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            refused.append(f"{name}[{number}]: {error}")
    return found


def _quarantined(data: Any) -> tuple[str, Quarantined]:
    rest: Iterable[tuple[str, Any]] = ((name, value) for name, value in data.items() if name != "key")
    return str(data["key"]), Quarantined.from_dict(dict(rest))
