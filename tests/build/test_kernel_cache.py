"""Kernels on disk: a program that finds what it needs starts without the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
import numpy as np
from tilewright import ops
x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(4, 15)
y = ops.softmax(x)
assert np.allclose(y.sum(-1), 1, atol=1e-6)
print("tilewright.emit.llvm" in sys.modules, "tilewright.build.stages" in sys.modules)
"""


def run(cache: Path, **settings: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TILEWRIGHT_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.run(
        command, env={**environment, **settings}, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_kernel_found_on_disk_does_not_import_the_compiler(tmp_path: Path) -> None:
    assert run(tmp_path) == "True True"
    assert run(tmp_path) == "False False"


def test_an_override_does(tmp_path: Path) -> None:
    run(tmp_path, DEBUG="4")  # keeps the stages as text
    (kept,) = tmp_path.glob("kernels/*/*.sched")
    kept.with_name(kept.name.replace(".sched", ".override.sched")).write_bytes(kept.read_bytes())
    assert run(tmp_path) == "True True"
