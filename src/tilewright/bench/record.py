"""A results file: what was measured, on what, with what, when, and how to do it again.

One file holds a machine's results of one day, and may be gathered in several runs: what is measured again takes
the place of what was there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import tilewright
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine

FORMAT = 2
ARCHIVED = Path(__file__).with_name("archived.txt")
"""Where `git archive` writes the commit, by .gitattributes."""
PACKAGES = (
    "numpy", "ml_dtypes", "llvmlite", "torch", "transformers", "tokenizers", "safetensors", "cuda-bindings",
    "nvidia-cuda-nvrtc", "nvidia-cublas",
)  # fmt: skip

COMMANDS = {"gpu": "gemm", "rows-gpu": "rows"}
"""The bench that writes results files of a kind, where it is called otherwise."""


def describe(
    machine: Machine, results: Sequence[Result], command: Sequence[str], folder: Path | None
) -> dict[str, Any]:
    """The contents of a results file after one run. `folder`, if there is one, is where the git commit is looked up."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    run = {
        "date": date,
        "command": shlex.join(command),
        "commit": git_commit(folder) if folder else None,
        "threads": sorted({result.threads for result in results}),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }
    return {
        "format": FORMAT,
        "date": date,
        "machine": machine.to_dict(),
        "fingerprint": machine.fingerprint,
        "system": {"platform": platform.platform(), "processor": processor_name()},
        "runs": [run],
        "results": [result.to_json() for result in results],
    }


def machine_key(record: dict[str, Any]) -> str:
    """A readable name of the machine for files: `amd-26-2-2-cores`, `intel-6-207-2-cores-as-x86-avx2`, `h200`."""
    machine = record["machine"]
    if machine.get("kind") == "nvidia":
        return re.sub(r"[^a-z0-9]+", "-", str(machine["name"]).partition(" (")[0].lower()).strip("-")
    _, restricted, isa = str(machine["name"]).partition(" as ")
    text = f"{machine['architecture']} {machine['cores']} cores" + (f" as {isa}" if restricted else "")
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` with those results of `old` that it did not measure again, and the runs that gave them.

    `old` is a loaded record, `new` a described one; the result is a described one.
    """
    offset = len(old["runs"])
    fresh = {r.key: replace(r, run=r.run + offset) for r in map(Result.from_json, new["results"])}
    results = [fresh.pop(r.key, r) for r in old["results"]] + list(fresh.values())
    runs, used = [*old["runs"], *new["runs"]], sorted({r.run for r in results})
    kept = [replace(r, run=used.index(r.run)).to_json() for r in results]
    return {**new, "runs": [runs[i] for i in used], "results": kept}


def versions() -> dict[str, str]:
    """Versions of Python, of Tilewright and of every library that takes part; absent ones are left out."""
    found = {"python": platform.python_version(), "tilewright": tilewright.__version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "llvmlite" in found:
        from llvmlite.binding import llvm_version_info

        found["llvm"] = ".".join(map(str, llvm_version_info))
    return found


def git_commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, followed by `-dirty` where tracked files differ, results left aside.

    A run that keeps its results as they come would else find itself dirty after the first of them. Outside git it is
    the commit that `git archive` wrote into ARCHIVED; None if neither says.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return _archived()
    changed = _git(
        folder, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results"
    )
    return commit + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    """What git says, or nothing where it fails or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _archived() -> str | None:
    try:
        text = ARCHIVED.read_text().strip()
    except OSError:
        return None
    return text if re.fullmatch("[0-9a-f]{40}", text) else None  # in a checkout it holds git's placeholder


def processor_name() -> str:
    """The processor as the system names it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def save(record: dict[str, Any], folder: Path, kind: str = "cpu") -> Path:
    """Write `record` to `folder`/<kind>-<machine>-<date>.json, whole or not at all; the path written.

    Results of the same machine and day that are in the file already stay, unless they were measured again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{machine_key(record)}-{record['date'][:10]}.json"
    old = _loaded_or_none(path)
    if old is not None and old["fingerprint"] == record["fingerprint"]:
        record = merge(old, record)
    elif path.exists():  # another machine of that name, or no results: it is not ours to replace
        path = path.with_stem(f"{path.stem}-{record['fingerprint']}")
        old = _loaded_or_none(path)
        record = record if old is None else merge(old, record)
    handle, unfinished = tempfile.mkstemp(dir=folder, suffix=".unfinished")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(_to_text(record))
    os.chmod(unfinished, 0o644)
    os.replace(unfinished, path)
    return path


def _loaded_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return load(path)
    except ArgumentError:
        return None


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
        if any(not 0 <= r.run < len(record["runs"]) for r in record["results"]):
            raise ValueError("a result names a run that is not in it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"{path}: not a results file ({error}); write one with tilewright bench cpu --save"
        ) from None
    return record


def newest(folder: Path, kind: str = "cpu") -> list[tuple[Path, dict[str, Any]]]:
    """For each machine its latest results file of a kind by the date inside, loaded, in the order of their names.

    ArgumentError where there is none.
    """
    latest: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"{kind}-*.json")):
        record = load(path)
        key = machine_key(record)
        if key not in latest or record["date"] >= latest[key][1]["date"]:
            latest[key] = (path, record)
    if not latest:
        raise ArgumentError(f"{folder}: no results; run `tilewright bench {COMMANDS.get(kind, kind)} --save` first")
    return [latest[key] for key in sorted(latest)]


def this_command() -> list[str]:
    """The command line of this process, with the program's name alone (also where Python ran it as a module)."""
    program = Path(sys.argv[0]).name
    return ["tilewright" if program.endswith(".py") else program, *sys.argv[1:]]
