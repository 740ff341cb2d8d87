import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tilewright import __version__, doctor
from tilewright.doctor import diagnose, render, settings_text
from tilewright.knobs import VARIABLES, knobs
from tilewright.machines import Machine, trial
from tilewright.machines.cores import host_kind

on_x86 = pytest.mark.skipif(host_kind() != "x86", reason="x86 only")


@pytest.fixture(autouse=True)
def clean_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))


def problems(report: dict[str, Any]) -> str:
    return "\n".join(p["problem"] + " -> " + p["fix"] for p in report["problems"])


def test_report_is_json_and_true(tmp_path: Path) -> None:
    report = diagnose()
    assert json.loads(json.dumps(report))["tilewright"] == __version__
    assert report["python"] == ".".join(map(str, sys.version_info[:3]))
    machine = Machine.detect()
    assert report["machine"]["fingerprint"] == machine.fingerprint
    assert report["machine"]["llvm_cpu"] == machine.llvm_cpu
    assert report["cores"]["available"] == machine.cores
    assert report["llvm"].count(".") == 2
    assert report["packages"]["numpy"]
    assert report["cache"]["path"] == str(tmp_path / "cache") and report["cache"]["writable"]


@on_x86
def test_isa_is_tried_and_amx_permission_follows(tmp_path: Path) -> None:
    report = diagnose()
    assert report["isa"]["by"] == "trial"
    assert report["amx"]["supported"] == ("amx-tile" in report["isa"]["executed"])
    assert set(report["isa"]["executed"]) <= {t.feature for t in trial.TRIALS}


def test_torch_is_looked_up_not_imported() -> None:
    code = (
        "import sys; sys.path[:0] = " + repr(sys.path) + "; from tilewright.doctor import diagnose; "
        "print(diagnose()['packages']['torch'] is not None, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] == "False"


def test_cache_folder_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    (folder / "a").mkdir(parents=True)
    (folder / "x.o").write_bytes(b"12345")
    (folder / "a" / "y.o").write_bytes(b"123")
    found: list[dict[str, str]] = []
    state = doctor.cache_state(folder, 1000, found)
    assert state == {"path": str(folder), "writable": True, "bytes": 8, "entries": 2, "bound": 1000}
    assert not found and sorted(p.name for p in folder.iterdir()) == ["a", "x.o"]


def test_an_unwritable_cache_is_a_problem_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns():
        report = diagnose()
    assert not report["cache"]["writable"]
    assert "cannot be written" in problems(report) and "TILEWRIGHT_CACHE_DIR" in problems(report)
    assert "NOT writable" in render(report, width=400)


def test_bad_settings_are_a_problem_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_MODE", "turbo")
    report = diagnose()
    assert report["settings"] is None and "TILEWRIGHT_MODE='turbo'" in problems(report)
    assert "learn, frozen, generic" in render(report)
    monkeypatch.delenv("TILEWRIGHT_MODE")
    monkeypatch.setenv("TILEWRIGHT_MACHINE", "h300")
    report = diagnose()
    assert report["machine"] is None and "h300" in problems(report)
    json.dumps(report)


@on_x86
def test_a_feature_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trial.try_features()
    assert real is not None
    broken = trial.Outcome(real.features, ("avx512f",), real.cpu, real.per_cycle, real.clock_hz)
    monkeypatch.setattr(trial, "try_features", lambda: broken)
    assert "avx512f" in problems(diagnose())
    monkeypatch.setattr(trial, "try_features", lambda: None)
    assert "no child process" in problems(diagnose())


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def version(name: str) -> str:
        if name in ("tokenizers", "torch"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    report = diagnose()
    assert report["packages"]["torch"] is None and report["packages"]["numpy"] == "1.0"
    assert "pip install tokenizers" in problems(report) and "torch" not in problems(report)


def test_gpus_are_named_by_the_driver(tmp_path: Path) -> None:
    assert doctor.nvidia_gpus(tmp_path / "proc", tmp_path / "dev") == []
    card = tmp_path / "proc" / "0000:19:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t 101\n")
    assert doctor.nvidia_gpus(tmp_path / "proc", tmp_path / "dev") == ["NVIDIA H200"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").write_text("")
    (tmp_path / "dev" / "nvidiactl").write_text("")
    assert doctor.nvidia_gpus(tmp_path / "none", tmp_path / "dev") == ["NVIDIA GPU"]


def test_text_is_for_people() -> None:
    report = diagnose()
    text = render(report)
    assert __version__ in text and "cache" in text and "\x1b" not in text
    assert "No problems found." in text or "Fix:" in text
    assert "\x1b" in render(report, color=True)
    report["problems"] = [{"problem": "[bold]the sky[/bold] falls", "fix": "hold it"}]
    assert "1. [bold]the sky[/bold] falls" in render(report) and "Fix: hold it" in render(report)


def test_a_host_without_a_gpu_needs_no_driver() -> None:
    problems: list[dict[str, str]] = []
    state = doctor.cuda_state([], problems)
    assert set(state) == {"nvrtc", "driver", "devices"}
    assert problems == []


def test_a_gpu_without_its_driver_or_compiler_is_a_problem_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.build import nvrtc
    from tilewright.errors import MachineError
    from tilewright.machines import nvidia

    def missing(*_: object) -> str:
        raise MachineError("no NVIDIA driver can be loaded (libcuda.so.1); install one, or run on the cpu")

    monkeypatch.setattr(nvidia, "driver_version", missing)
    monkeypatch.setattr(nvidia, "devices", missing)
    problems: list[dict[str, str]] = []
    assert doctor.cuda_state(["NVIDIA H200"], problems)["driver"] is None
    assert [p["fix"] for p in problems if "driver" in p["problem"]] == ["install one, or run on the cpu"]
    monkeypatch.setattr(nvrtc, "nvrtc_version", lambda: "nvrtc 13.0")
    monkeypatch.setattr(nvidia, "driver_version", lambda: "12.8")
    problems.clear()
    doctor.cuda_state(["NVIDIA H200"], problems)
    assert any("nvidia-cuda-nvrtc<13" in p["fix"] for p in problems)


# ------------------------------------------------------------------------------------------------ a host with a GPU
@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A host with one H200 whose driver takes everything; what a test changes of it."""
    from tilewright.machines import nvidia
    from tilewright.runtime.cuda import driver

    host: dict[str, Any] = {"machine": Machine.named("h200"), "loaded": []}
    monkeypatch.setattr(nvidia, "driver_version", lambda: "13.0")
    monkeypatch.setattr(nvidia, "devices", lambda: ["NVIDIA H200"])
    monkeypatch.setattr(nvidia, "detect", lambda n: host["machine"])
    monkeypatch.setattr(driver, "load", lambda cubin, entry, *_: host["loaded"].append((entry, cubin[:4])))
    return host


def gpu_problems() -> tuple[dict[str, Any], str]:
    found: list[dict[str, str]] = []
    state = doctor.cuda_state(["NVIDIA H200"], found)
    return state, "\n".join(f"{p['problem']} -> {p['fix']}" for p in found)


def test_a_gpu_is_well_where_the_whole_tile_library_compiles_for_it_and_loads(gpu: dict[str, Any]) -> None:
    state, said = gpu_problems()
    assert said == ""
    assert [(d["architecture"], d["state"]) for d in state["devices"]] == [("sm_90a", "ok")]
    assert gpu["loaded"] == [("doctor", b"\x7fELF")]


def test_a_gpu_of_a_capability_that_no_kernel_is_made_for(gpu: dict[str, Any]) -> None:
    limits = {**dict(gpu["machine"].limits), "compute_capability": 75}
    gpu["machine"] = replace(gpu["machine"], name="Tesla T4", limits=tuple(sorted(limits.items())))
    state, said = gpu_problems()
    assert "Tesla T4 has compute capability 7.5, and 8.0 (Ampere) is the least -> take device cpu" in said
    assert "7.5" in state["devices"][0]["state"] and not gpu["loaded"]


def test_a_gpu_that_the_compiler_is_too_old_for(gpu: dict[str, Any]) -> None:
    gpu["machine"] = replace(gpu["machine"], architecture="sm_199a")
    _, said = gpu_problems()
    assert "does not compile for sm_199a" in said and "-> install a newer nvidia-cuda-nvrtc" in said


def test_a_compiler_that_is_missing(gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.build import nvrtc
    from tilewright.errors import MachineError

    def missing() -> str:
        raise MachineError('the package cuda-bindings is not installed; pip install "tilewright[cuda]"')

    monkeypatch.setattr(nvrtc, "nvrtc_version", missing)
    state, said = gpu_problems()
    assert said == 'the package cuda-bindings is not installed -> pip install "tilewright[cuda]"'
    assert state["devices"][0]["state"] == "not tried"


def test_headers_that_do_not_match_the_rest_of_the_package(
    gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tilewright.build import nvrtc

    real = nvrtc.header
    monkeypatch.setattr(nvrtc, "header", lambda n: real(n).replace("struct Tile2", "struct Tile3"))
    _, said = gpu_problems()
    assert "the tile library does not compile for sm_90a" in said and "Tile2" in said
    assert "--force-reinstall" in said


def test_a_driver_that_refuses_what_was_compiled(gpu: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.errors import LaunchError
    from tilewright.runtime.cuda import driver

    def refused(*_: object) -> None:
        raise LaunchError("loading doctor failed with CUDA_ERROR_SYSTEM_NOT_READY; see `nvidia-smi`")

    monkeypatch.setattr(driver, "load", refused)
    state, said = gpu_problems()
    assert said == "GPU 0: loading doctor failed with CUDA_ERROR_SYSTEM_NOT_READY -> see `nvidia-smi`"
    report = diagnose()
    assert "cuda:0" in render(report | {"cuda": state, "gpus": ["NVIDIA H200"]})


def test_a_misspelt_setting_is_a_problem_and_a_secret_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_MOED", "learn")
    monkeypatch.setenv("TILEWRIGHT_API_KEY", "s3cret")
    report = diagnose()
    entry = {"problem": "TILEWRIGHT_MOED is set, and is no setting", "fix": "set TILEWRIGHT_MODE, or unset it"}
    assert entry in report["problems"]
    assert report["settings"]["api_key"] == "set"
    text = settings_text()
    assert all(f"{name} = " in text for name in VARIABLES)
    assert "TILEWRIGHT_API_KEY = set" in text
    assert "s3cret" not in json.dumps(report) + text + repr(knobs())
