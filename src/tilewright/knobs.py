"""Every environment setting of Tilewright, typed, in one place: `knobs()` gives them as a frozen `Knobs`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from tilewright.errors import KnobError

MODES = ("learn", "frozen", "generic")
NUMERICS = ("free", "pinned")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _whole(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    """A parser of one word of `allowed`."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError("one of " + ", ".join(allowed))
        return text

    return parse


def _byte_count(text: str) -> int:
    """Bytes written as a whole number with an optional binary unit: 500M is 500 * 2**20."""
    plain = text.upper().removesuffix("B").removesuffix("I")
    number, unit = (plain[:-1], plain[-1:]) if plain[-1:] in "KMGT" else (plain, "")
    if not (number.isascii() and number.isdigit()):
        raise ValueError("a number of bytes such as 1073741824, 512M or 2G")
    return int(number) * _UNITS[unit]


def _folder(text: str) -> Path:
    if "\0" in text:
        raise ValueError("a path of a folder")
    return Path(text).expanduser().absolute()


def _book(text: str) -> Path | Literal[False]:
    return False if text.lower() == "off" else _folder(text)


def _name(text: str) -> str:
    return text


def _knob(variable: str, parse: Callable[[str], Any], default: Any, doc: str, *, shown: bool = True) -> Any:
    """A field of `Knobs` that is read from `variable`; a callable default is evaluated on each start.

    The value of one that is not to be `shown` is kept out of what is printed.
    """
    meta = {"variable": variable, "parse": parse, "doc": doc}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta, repr=shown)


@cache
def default_cache_dir() -> Path:
    """The platform's folder for caches: XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, %LOCALAPPDATA%.

    Without a home folder it is a folder of this user alone under the system's temporary folder.
    """
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG rule: a relative path is to be ignored
        return Path(xdg) / "tilewright"
    try:
        home = Path.home()
    except RuntimeError:
        return _private_temporary_folder()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "tilewright" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "tilewright"
    return home / ".cache" / "tilewright"


def _private_temporary_folder() -> Path:
    """A temporary folder that no other user may write: compiled code read from it will be executed."""
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"tilewright-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not folder.is_symlink() and found.st_uid == user and not found.st_mode & 0o022:
            return folder
    except OSError:
        return folder  # nothing can be created there: the writers warn and go on without a cache
    return Path(tempfile.mkdtemp(prefix="tilewright-"))


# ruff: noqa: RUF009  (`_knob` makes a field, as `field` does)
@dataclass(frozen=True)
class Knobs:
    """The settings of this process; the metadata of each field holds its variable, parser and doc."""

    debug: int = _knob(
        "DEBUG",
        _whole(0, 7),
        0,
        "what is printed to stderr: 1 machine and phases, 2 time per kernel, 3 decisions, 4 emitted source, "
        "5 IR, 6 thread listing, 7 machine code; each level includes those below",
    )
    cache_dir: Path = _knob(
        "TILEWRIGHT_CACHE_DIR",
        _folder,
        default_cache_dir,
        "folder of compiled kernels and measurements (default: the platform's cache folder)",
    )
    cache_bytes: int = _knob(
        "TILEWRIGHT_CACHE_BYTES", _byte_count, 2**30, "bound on the cache folder, such as 512M or 2G (default 1G)"
    )
    threads: int | None = _knob(
        "TILEWRIGHT_THREADS", _whole(1, 4096), None, "most CPU threads to use (default: the cores this process may use)"
    )
    mode: str = _knob(
        "TILEWRIGHT_MODE",
        _choice(*MODES),
        "learn",
        "learn: better kernels are designed beside a program that asks for it (--mode learn); frozen: "
        "no compile, no search, no write; generic: the generic kernels only",
    )
    numerics: str = _knob(
        "TILEWRIGHT_NUMERICS",
        _choice(*NUMERICS),
        "free",
        "pinned: only kernels whose output bits equal the generic kernel's; free: any kernel within its error bound",
    )
    book: Path | Literal[False] | None = _knob(
        "TILEWRIGHT_BOOK",
        _book,
        None,
        "file of the book of designs, or off to look none up (default: book.sqlite in the cache folder)",
    )
    machine: str | None = _knob(
        "TILEWRIGHT_MACHINE",
        _name,
        None,
        "name (or .json file) of the machine to design for (default: the machine this process runs on)",
    )
    api_key: str | None = _knob(
        "TILEWRIGHT_API_KEY",
        _name,
        None,
        "what clients of `tilewright serve` must send as a key (default: none)",
        shown=False,
    )


VARIABLES: tuple[str, ...] = tuple(f.metadata["variable"] for f in fields(Knobs))


def knobs() -> Knobs:
    """The settings that the environment holds now; an unset or empty variable takes its default.

    Raises KnobError, naming the variable, its value and the values allowed. A repeated call with an
    unchanged environment costs about half a microsecond.
    """
    held = getattr(os.environ, "_data", None)  # os.environ itself encodes each name and decodes each value it finds
    if held is None:
        return _parse(tuple([os.environ.get(v) for v in VARIABLES]))
    return _parse_held(tuple([held.get(v) for v in _HELD_VARIABLES]))


def shown_knobs() -> dict[str, Any]:
    """The settings by the names of their fields, for people to read: of a secret only whether it is set.

    Raises KnobError.
    """
    held = knobs()
    values = {f.name: (f.repr, getattr(held, f.name)) for f in fields(Knobs)}
    return {name: value if plain or value is None else "set" for name, (plain, value) in values.items()}


def knob_docs() -> dict[str, str]:
    """One line of documentation for each variable, in the order of `Knobs`."""
    return {f.metadata["variable"]: f.metadata["doc"] for f in fields(Knobs)}


def reset_knobs() -> None:
    """Forget parsed settings and the default cache folder (for a program that changes HOME or XDG_CACHE_HOME)."""
    default_cache_dir.cache_clear()
    _parse_held.cache_clear()
    _parse.cache_clear()


_HELD_VARIABLES: tuple[Any, ...] = VARIABLES if os.name == "nt" else tuple(os.fsencode(v) for v in VARIABLES)


@lru_cache(maxsize=16)
def _parse_held(held: tuple[Any, ...]) -> Knobs:
    return _parse(tuple([None if value is None else os.fsdecode(value) for value in held]))


@lru_cache(maxsize=16)
def _parse(texts: tuple[str | None, ...]) -> Knobs:
    values: dict[str, Any] = {}
    for spec, text in zip(fields(Knobs), texts, strict=True):
        if text is None or not text.strip():
            continue
        try:
            values[spec.name] = spec.metadata["parse"](text.strip())
        except (ValueError, RuntimeError) as e:  # RuntimeError: "~" without a home folder
            variable = spec.metadata["variable"]
            raise KnobError(f"{variable}={text!r} is not understood; set it to {e}, or unset it") from None
    return Knobs(**values)
