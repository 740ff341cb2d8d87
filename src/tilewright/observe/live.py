"""What a running program shows of its table: plain data, kept in a small file while it runs, for `tilewright top`.

Nothing is written unless `publish` is called. The file is replaced as a whole, and what is read is checked.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilewright.errors import TraceError, in_words
from tilewright.knobs import knobs
from tilewright.runtime import learner, modes
from tilewright.runtime.events import events
from tilewright.runtime.table import TABLE, Row

FORMAT, VERSION = "tilewright live", 1
MOST_ROWS, MOST_EVENTS = 200, 20


def state() -> dict[str, Any]:
    """The most valuable rows of the table, the latest events, and what was counted, of this process."""
    at_work = learner.current()
    return {
        "format": FORMAT,
        "version": VERSION,
        "pid": os.getpid(),
        "at": time.time(),
        "mode": knobs().mode,
        "numerics": knobs().numerics,
        "rows": [_row(row) for row in TABLE.rows()[:MOST_ROWS]],
        "evictions": TABLE.evictions,
        "counts": asdict(modes.counts()),
        "learner": None if at_work is None else asdict(at_work.status()),
        "events": [{"at": e.at, "text": str(e)} for e in events()[-MOST_EVENTS:]],
    }


def _row(row: Row) -> dict[str, Any]:
    return {**asdict(row), "shape": str(row.shape), "sizes": dict(row.sizes)}


def live_folder() -> Path:
    """Where programs of this user keep what they show."""
    return knobs().cache_dir / "live"


def publish(path: Path | None = None, seconds: float = 1.0) -> Callable[[], None]:
    """Keep `path` (default: a file of this process in `live_folder()`) up to date; what is returned ends that.

    A file that cannot be written is let be: nobody is to fail because somebody wants to look.
    """
    file, ended = path or live_folder() / f"{os.getpid()}.json", threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            _write(file)

    _write(file)
    thread = threading.Thread(target=run, name="tilewright-live", daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(timeout=seconds + 1.0)
        with suppress(OSError):
            file.unlink()

    return end


def _write(file: Path) -> None:
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=file.parent, suffix=".unfinished")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(state(), out)
        os.replace(unfinished, file)


def read(path: Path | None = None) -> dict[str, Any]:
    """What a program shows: that of `path`, or of the last program that wrote; TraceError where there is none."""
    if path is None:
        found = sorted(live_folder().glob("*.json"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise TraceError(
                f"no program shows its table in {live_folder()}; start one with --mode learn, or call "
                "tilewright.observe.live.publish() in it"
            )
        path = found[-1]
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError(f"{path}: cannot be read ({in_words(error)})") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise TraceError(f"{path}: is not what a running Tilewright of this version shows")
    if not isinstance(data.get("rows"), list) or not all(isinstance(row, dict) for row in data["rows"]):
        raise TraceError(f"{path}: its rows are damaged")
    return data


__all__ = ["live_folder", "publish", "read", "state"]
