"""Small JSON records about this host, kept in the cache folder; a folder that cannot be used costs a warning only."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from tilewright.errors import CacheWarning
from tilewright.knobs import knobs

_warned: set[str] = set()


def folder() -> Path:
    """Where the records lie."""
    return knobs().cache_dir / "machines"


def load(name: str) -> dict[str, Any] | None:
    """The record called `name`, or None where there is none or it is damaged."""
    path = folder() / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as e:
        warn_once(f"{path} cannot be read ({e}); its contents are measured again. Delete it if this repeats")
        return None
    return record if isinstance(record, dict) else None


def save(name: str, record: dict[str, Any]) -> bool:
    """Write the record in one atomic step; False, with a warning given once, where that is impossible.

    In frozen mode nothing is written.
    """
    if knobs().mode == "frozen":
        return False
    import tempfile  # a start that only reads has no use for it

    path, temporary = folder() / f"{name}.json", None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}-", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
        os.replace(temporary, path)
    except OSError as e:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        warn_once(f"{path.parent} cannot be written ({e}); set TILEWRIGHT_CACHE_DIR to a folder that can")
        return False
    return True


def warn_once(message: str) -> None:
    """Give a CacheWarning, the first time that this process meets `message`."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, CacheWarning, stacklevel=3)
