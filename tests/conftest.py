"""What all tests share: helper modules of sibling folders, and a cache folder that is not the user's."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

# Cases of the operators and their compiled runs serve the tests of designs, lowering and run time too.
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in ("operators", "emit", "design", "runtime")]


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Kernels of this run are compiled by this run."""
    before = os.environ.get("TILEWRIGHT_CACHE_DIR")
    os.environ["TILEWRIGHT_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["TILEWRIGHT_CACHE_DIR"]
    else:
        os.environ["TILEWRIGHT_CACHE_DIR"] = before


@pytest.fixture(autouse=True)
def nothing_leaks(request):
    """A test that changes what tests after it find in this process fails by its own name, and is put right."""
    before = _surroundings()
    yield
    after = _surroundings()
    if after != before:
        _put_back(before)
        changed = [
            f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in {**before, **after} if before.get(k) != after.get(k)
        ]
        pytest.fail(f"{request.node.nodeid} leaks into later tests: {'; '.join(changed)}")


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `tilewright ...` in this process, with an optional standard input: (exit code, stdout, stderr)."""
    from tilewright import cli

    def call(*arguments: str, stdin: str = ""):
        monkeypatch.setattr(sys, "argv", ["tilewright", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setenv("TILEWRIGHT_THREADS", os.environ.get("TILEWRIGHT_THREADS", ""))  # undone after --threads
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return call


_OF_OTHERS = ("PYTEST_", "TORCH", "TRITON_", "KMP_")  # set by pytest, torch and OpenMP for themselves


def _surroundings() -> dict[str, object]:
    """Environment, working folder and affinity: what the settings and the detected machine depend on."""
    own = {f"${k}": v for k, v in os.environ.items() if not k.startswith(_OF_OTHERS)}
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    return {**own, "folder": os.getcwd(), "cores": cores}


def _put_back(before: dict[str, object]) -> None:
    known = {k[1:]: str(v) for k, v in before.items() if k.startswith("$")}
    for name in [n for n in os.environ if not n.startswith(_OF_OTHERS)]:
        if name not in known:
            del os.environ[name]
    os.environ.update(known)
    os.chdir(str(before["folder"]))
    if before["cores"]:
        os.sched_setaffinity(0, before["cores"])  # type: ignore[arg-type]
