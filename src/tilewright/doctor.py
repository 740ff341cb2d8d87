"""What Tilewright finds on this host, what is wrong with it, and how to put it right."""

from __future__ import annotations

import difflib
import io
import os
import platform
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import tilewright
from tilewright.doctor_gpu import cuda_state, nvidia_gpus
from tilewright.errors import KnobError, MachineError
from tilewright.knobs import VARIABLES, Knobs, knob_docs, knobs, shown_knobs
from tilewright.machines import Machine, cores, trial, x86

Report = dict[str, Any]
_PACKAGES = ("llvmlite", "numpy", "ml_dtypes", "torch", "transformers", "tokenizers")
_NEEDED = ("llvmlite", "numpy", "ml_dtypes", "tokenizers")
_FEATURES_SHOWN = (
    "avx", "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16",
    "avx512fp16", "amx-tile", "amx-int8", "amx-bf16", "amx-fp16",
)  # fmt: skip


def diagnose() -> Report:
    """The state of this host as JSON-able data; never raises for what it finds wrong.

    Keys: tilewright, python, platform, packages (version or None), llvm, settings, machine, cores, isa,
    amx, cache, gpus, cuda, and problems: a list of {"problem", "fix"}, empty where all is well. Torch is
    looked up, not imported. The instruction sets are tried anew.
    """
    problems: list[dict[str, str]] = []
    settings = _settings(problems)
    _misspelt(problems)
    report: Report = {
        "tilewright": tilewright.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(problems),
        "llvm": _llvm_version(),
        "settings": None if settings is None else {k: _plain(v) for k, v in shown_knobs().items()},
        "cores": {"available": cores.cores_available(), "logical": os.cpu_count(), "quota": cores.cpu_quota()},
        "gpus": nvidia_gpus(),
    }
    report["cuda"] = cuda_state(report["gpus"], problems)
    if settings is not None:
        report["cache"] = cache_state(settings.cache_dir, settings.cache_bytes, problems)
        report["isa"] = _isa(problems)
        report["amx"] = _amx(report["isa"], problems)
        report["machine"] = _machine(problems)
    report["problems"] = problems
    return report


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _problem(problems: list[dict[str, str]], problem: str, fix: str) -> None:
    problems.append({"problem": problem, "fix": fix})


def _settings(problems: list[dict[str, str]]) -> Knobs | None:
    try:
        return knobs()
    except KnobError as e:
        problem, _, fix = str(e).partition("; ")
        _problem(problems, problem, fix)
        return None


def _misspelt(problems: list[dict[str, str]]) -> None:
    """Settings that nobody reads: their names are close to those that are read."""
    for name in sorted(n for n in os.environ if n.startswith("TILEWRIGHT_") and n not in VARIABLES):
        if like := difflib.get_close_matches(name, VARIABLES, 1, 0.8):
            _problem(problems, f"{name} is set, and is no setting", f"set {like[0]}, or unset it")


def settings_text() -> str:
    """Every setting of the environment with what it is now, and a line on what it does. Raises KnobError."""
    shown = ("off" if v is False else "not set" if v is None else str(v) for v in shown_knobs().values())
    return "\n".join(
        f"{name} = {value}\n    {doc}" for (name, doc), value in zip(knob_docs().items(), shown, strict=True)
    )


def _packages(problems: list[dict[str, str]]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    for name in _NEEDED:
        if found[name] is None:
            _problem(problems, f"the package {name} is not installed", f"pip install {name}")
    return found


def _llvm_version() -> str | None:
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError):
        return None
    return ".".join(map(str, llvm.llvm_version_info))


def _isa(problems: list[dict[str, str]]) -> dict[str, Any] | None:
    if cores.host_kind() != "x86":
        return None
    record = x86.isa_record(refresh=True)
    if record["by"] != "trial":
        _problem(
            problems,
            "no child process could run compiled code, so features are those that the processor reports",
            "allow this program to start processes and to map executable memory, or set TILEWRIGHT_MACHINE=x86-avx2",
        )
    for feature in record["failed"]:
        _problem(
            problems,
            f"the processor reports {feature}, but executing it failed",
            "nothing need be done: kernels do without it; for speed, enable it in the hypervisor or the kernel",
        )
    tried = {t.feature for t in trial.TRIALS}
    return {
        "by": record["by"],
        "executed": [f for f in record["features"] if f in tried],
        "failed": record["failed"],
        "features": record["features"],
    }


def _amx(isa: dict[str, Any] | None, problems: list[dict[str, str]]) -> dict[str, bool]:
    supported = isa is not None and "amx-tile" in isa["features"]
    permitted = supported and x86.request_amx()
    if supported and not permitted:
        _problem(
            problems,
            "the kernel refuses AMX tiles to this process",
            "run on Linux 5.16 or later without a seccomp filter on arch_prctl",
        )
    return {"supported": supported, "permitted": permitted}


def _machine(problems: list[dict[str, str]]) -> dict[str, Any] | None:
    try:
        machine = Machine.detect()
    except MachineError as e:
        problem, _, fix = str(e).rpartition("; ")
        _problem(problems, problem or fix, fix)
        return None
    return {
        **machine.to_dict(),
        "fingerprint": machine.fingerprint,
        "llvm_cpu": machine.llvm_cpu if machine.is_cpu else None,
    }


def cache_state(folder: Path, bound: int, problems: list[dict[str, str]]) -> dict[str, Any]:
    """Path, writable, bytes, entries (files) and bound of the cache folder; problems are appended."""
    sizes = []
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.lstat(os.path.join(parent, name)).st_size)
            except OSError:
                continue  # another process has just evicted it
    reason = _why_not_writable(folder)
    if reason:
        fix = "set TILEWRIGHT_CACHE_DIR to a folder that you can write; until then every start compiles anew"
        _problem(problems, f"the cache folder {folder} cannot be written ({reason})", fix)
    elif (free := shutil.disk_usage(folder).free) < 64 * 2**20:
        _problem(
            problems, f"only {free / 2**20:.0f} MiB are free for the cache folder {folder}", "free some disk space"
        )
    return {"path": str(folder), "writable": not reason, "bytes": sum(sizes), "entries": len(sizes), "bound": bound}


def _why_not_writable(folder: Path) -> str:
    """Why a file cannot be created in `folder`, by creating one; empty where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
            file.write(b"tilewright")
            file.flush()
    except OSError as e:
        return e.strerror or str(e)
    return ""


# ---------------------------------------------------------------------------------------------- text
def render(report: Report, *, color: bool = False, width: int = 100) -> str:
    """The report as text for people, problems last."""
    from rich.console import Console
    from rich.table import Table

    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=color, no_color=not color, highlight=False, legacy_windows=False
    )
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(report):
        table.add_row(name, value)
    console.print(table)
    console.print()
    for number, entry in enumerate(report["problems"], 1):
        console.print(f"{number}. {entry['problem']}", style="red", markup=False)
        console.print(f"   Fix: {entry['fix']}", markup=False)
    if not report["problems"]:
        console.print("No problems found.", style="green")
    return text.getvalue()


def _rows(report: Report) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version or '-'}" for name, version in report["packages"].items())
    rows = [
        ("tilewright", report["tilewright"]),
        ("python", f"{report['python']} ({sys.implementation.name}) on {report['platform']}"),
        ("packages", packages),
        ("llvm", report["llvm"] or "not found"),
    ]
    if machine := report.get("machine"):
        clock = f", {machine['clock_hz'] / 1e9:.2f} GHz" if machine["clock_hz"] else ""
        rows.append(("machine", f"{machine['name']} ({machine['architecture']}), {machine['cores']} cores{clock}"))
        rows.append(("compiled for", machine["llvm_cpu"] or machine["architecture"]))
        rows.append(("memory", ", ".join(_level(level) for level in machine["levels"])))
    if isa := report.get("isa"):
        rows.append((f"isa by {isa['by']}", " ".join(f for f in _FEATURES_SHOWN if f in isa["features"]) or "sse2"))
        amx = report["amx"]
        rows.append(("amx", "permitted" if amx["permitted"] else "refused" if amx["supported"] else "none"))
    if cache := report.get("cache"):
        state = "writable" if cache["writable"] else "NOT writable"
        used = f"{cache['bytes'] / 2**20:.1f} of {cache['bound'] / 2**20:.0f} MiB in {cache['entries']} files"
        rows.append(("cache", f"{cache['path']} ({state}, {used})"))
    rows.append(("gpus", ", ".join(report["gpus"]) or "none"))
    cuda = report["cuda"]
    rows.append(("cuda", f"{cuda['nvrtc'] or 'no nvrtc'}, driver for CUDA {cuda['driver'] or 'none'}"))
    rows += [(f"cuda:{n}", f"{d['architecture']}, {d['sms']} SMs, {d['state']}") for n, d in enumerate(cuda["devices"])]
    return rows


def _level(level: dict[str, Any]) -> str:
    parts = [level["name"]]
    if size := level.get("bytes"):
        parts.append(f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB")
    if rate := level.get("read") or level.get("bandwidth"):
        parts.append(f"{rate / 1e9:.1f} GB/s")
    return " ".join(parts)
