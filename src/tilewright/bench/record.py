"""A results file: what was measured, on what, with what, when, and how to do it again."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import tilewright
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine

FORMAT = 1
PACKAGES = ("numpy", "ml_dtypes", "llvmlite", "torch", "transformers", "tokenizers", "safetensors")


def describe(machine: Machine, results: Sequence[Result], command: Sequence[str], folder: Path) -> dict[str, Any]:
    """The contents of a results file. `folder` is where the git commit is looked up."""
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(command),
        "commit": git_commit(folder),
        "machine": machine.to_dict(),
        "fingerprint": machine.fingerprint,
        "system": {
            "platform": platform.platform(),
            "processor": processor_name(),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
        "versions": versions(),
        "results": [result.to_json() for result in results],
    }


def versions() -> dict[str, str]:
    """Versions of Python, of Tilewright and of every library that takes part; absent ones are left out."""
    found = {"python": platform.python_version(), "tilewright": tilewright.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, followed by `-dirty` where tracked files differ; None outside git."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


def processor_name() -> str:
    """The processor as the system names it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def save(record: dict[str, Any], folder: Path) -> Path:
    """Write `record` to `folder`/cpu-<machine>-<date>.json, whole or not at all; the path written."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = re.sub(r"[^a-z0-9]+", "-", str(record["machine"]["name"]).lower()).strip("-")
    path = folder / f"cpu-{machine}-{record['date'][:10]}.json"
    handle, unfinished = tempfile.mkstemp(dir=folder, suffix=".unfinished")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_to_text(record))
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, path)
    return path


def _to_text(record: dict[str, Any]) -> str:
    """Indented JSON with lists of numbers on one line each: a thousand samples are not a thousand lines."""
    text = json.dumps(record, indent=1)
    return re.sub(r"\[\s+([-\d.eE+,\s]+?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text) + "\n"


def load(path: Path) -> dict[str, Any]:
    """The record in `path`; ArgumentError, naming the file, for anything else."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ArgumentError(f"{path}: results of format {record['format']}, not {FORMAT}; measure again")
        record["results"] = [Result.from_json(data) for data in record["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path}: not a results file ({error}); write one with bench cpu --save") from None
    return record


def newest(folder: Path) -> Path:
    """The latest results file of `folder` by the date inside; ArgumentError where there is none."""
    paths = sorted(folder.glob("cpu-*.json"))
    if not paths:
        raise ArgumentError(f"{folder}: no results; run `tilewright bench cpu --save` first")
    return max(paths, key=lambda path: (load(path)["date"], path.name))


def this_command() -> list[str]:
    """The command line of this process, with the program's name alone."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
