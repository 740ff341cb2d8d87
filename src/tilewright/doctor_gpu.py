"""What `doctor` finds of this host's NVIDIA GPUs: driver, compiler, tile library, and whether they work together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilewright.errors import CompileError, LaunchError, MachineError

Problems = list[dict[str, str]]
_ENTRY = "doctor"
_INSTALL = 'pip install --force-reinstall "tilewright[cuda]"'


def nvidia_gpus(proc: Path = Path("/proc/driver/nvidia/gpus"), devices: Path = Path("/dev")) -> list[str]:
    """Names of the NVIDIA GPUs that the driver shows to this process; empty where there is none."""
    names = []
    for information in sorted(proc.glob("*/information")):
        try:
            lines = information.read_text().splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return names or ["NVIDIA GPU"] * len(list(devices.glob("nvidia[0-9]*")))


def cuda_state(gpus: list[str], problems: Problems) -> dict[str, Any]:
    """What is there for kernels on GPUs: nvrtc (version or None), driver (version or None), devices.

    Each device has its name, architecture, SMs and state: "ok" where a kernel that includes the whole tile library was
    compiled for it and loaded. Whatever is missing is a problem only on a host that has a GPU: all others compile for
    one at most.
    """
    from tilewright.build import nvrtc
    from tilewright.machines import nvidia

    state: dict[str, Any] = {"nvrtc": None, "driver": None, "devices": []}
    words: list[str] = []
    for key, ask in (("nvrtc", nvrtc.nvrtc_version), ("driver", nvidia.driver_version), ("devices", _devices)):
        try:
            state[key] = ask()
        except MachineError as error:
            words.append(str(error))
    if gpus:
        for word in dict.fromkeys(words):
            _add(problems, word)
        old = _old_driver(state, problems)
        for number, device in enumerate(state["devices"]):
            found = "" if old or not state["nvrtc"] else _trouble(number, device)
            device["state"] = found.partition("; ")[0] or ("not tried" if old or not state["nvrtc"] else "ok")
            if found:
                _add(problems, f"GPU {number}: {found}")
    return state


def _add(problems: Problems, word: str) -> None:
    """A problem and its fix, out of what an error says: the fix stands behind the last semicolon."""
    problem, _, fix = word.rpartition("; ")
    problems.append({"problem": problem or word, "fix": fix})


def _devices() -> list[dict[str, Any]]:
    from tilewright.machines import nvidia

    found = [nvidia.detect(n) for n in range(len(nvidia.devices()))]
    known = [(m, int(m.limit("compute_capability"))) for m in found]
    return [
        {"name": m.name, "architecture": m.architecture, "sms": m.cores, "capability": c, "state": "not tried"}
        for m, c in known
    ]


def _trouble(number: int, device: dict[str, Any]) -> str:
    """Why kernels do not run on a GPU, with the fix; empty where one was compiled for it and loaded."""
    from tilewright.build import nvrtc
    from tilewright.machines import nvidia
    from tilewright.runtime.cuda import driver

    if reason := nvidia.unsupported(device["name"], device["capability"]):
        return reason
    includes = "".join(f'#include "tw/{name}.cuh"\n' for name in nvrtc.library())
    source = f'{includes}extern "C" __global__ void {_ENTRY}(int* p) {{ *p = 1; }}\n'
    try:
        compiled = nvrtc.compile_cuda(source, _ENTRY, device["architecture"])
        driver.load(compiled.cubin, _ENTRY, number, 32, 0, 1)
    except CompileError as error:
        lines = str(error).splitlines()
        what = next((line for line in lines if "error" in line), lines[0])
        return f"the tile library does not compile for {device['architecture']} ({what.strip()}); {_INSTALL}"
    except (MachineError, LaunchError) as error:
        return str(error) if "; " in str(error) else f"{error}; check it with nvidia-smi"
    return ""


def _old_driver(state: dict[str, Any], problems: Problems) -> bool:
    """Whether the driver is older than the compiler, and so loads none of its code."""
    compiler = str(state["nvrtc"] or "").removeprefix("nvrtc ").partition(".")[0]
    driver = str(state["driver"] or "").partition(".")[0]
    old = bool(compiler and driver and int(driver) < int(compiler))
    if old:
        known = f"the NVIDIA driver speaks CUDA {state['driver']}, NVRTC is {state['nvrtc']}"
        fix = f"update the driver, or pip install 'nvidia-cuda-nvrtc<{int(driver) + 1}'"
        problems.append({"problem": f"{known}: its kernels cannot be loaded", "fix": fix})
    return old


__all__ = ["cuda_state", "nvidia_gpus"]
