"""What somebody does first on a host with a GPU: ask the doctor, generate, write a kernel and have it designed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tilewright as tw
from tilewright.design.book.store import Book
from tilewright.machines import nvidia

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))
from run_docs import blocks, section


def ran(*command, folder=ROOT):
    """(stdout, stderr) of a command of this Python, which must succeed."""
    paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, done.stderr


def test_the_doctor_finds_the_gpu_and_nothing_wrong_with_it():
    report = json.loads(ran("-m", "tilewright", "doctor", "--json")[0])
    assert report["cuda"]["driver"] and report["cuda"]["nvrtc"]
    assert [d["state"] for d in report["cuda"]["devices"]] == ["ok"] * torch.cuda.device_count()
    assert not [p for p in report["problems"] if any(word in p["problem"] for word in ("GPU", "NVIDIA", "NVRTC"))]


def test_generating_tells_which_kernels_ran(tmp_path):
    command = ("-m", "tilewright", "generate", "def fibonacci(n):", "--device", "cuda", "--max-tokens", "8")
    text, told = ran(*command, "--temperature", "0")
    assert text.strip()
    (line,) = [x for x in told.splitlines() if x.startswith("kernels: ")]
    counts = dict(pair.rsplit(" ", 1) for pair in line.removeprefix("kernels: ").split(", "))
    assert {"matmul", "gate_up", "attention", "rope_cache", "add_rmsnorm", "embedding"} <= set(counts)
    assert counts["embedding"] == "8x"


def test_the_readmes_own_kernel_runs_on_the_gpu_as_it_says(tmp_path):
    """Its blocks are executed as they stand: written, launched on CUDA tensors, searched for, compiled, run."""
    shown = [b.text for b in blocks(section((ROOT / "README.md").read_text("utf-8"), "Write a kernel"))
             if b.language == "python"]  # fmt: skip
    assert any("torch.cuda" in text for text in shown)
    begin = "import numpy as np\nimport tilewright as tw\nrng = np.random.default_rng(0)\n"
    (tmp_path / "shown.py").write_text("\n".join([begin, *shown, "assert kernel.source.startswith('//')"]), "utf-8")
    assert "GB/s" in ran("shown.py", folder=tmp_path)[0]


@pytest.mark.parametrize(("name", "sizes"), [
    ("matmul", {"M": 48, "N": 512, "K": 1024}), ("matmul", {"M": 1, "N": 1024, "K": 2048}),
    ("rmsnorm", {"M": 64, "D": 4096}),
])  # fmt: skip
def test_what_a_search_found_is_compiled_and_run(name, sizes):
    operator = tw.operators.OPERATORS[name]
    found = tw.search(
        operator, dtype="bf16", machine=nvidia.detect(), budget="2 trials", book=Book.in_memory(), **sizes
    )
    kernel = tw.compile(operator, found)
    assert kernel.design == found.design and kernel.fixed == sizes

    def normal(*shape):
        return torch.randn(*shape, device="cuda").bfloat16()

    if name == "matmul":
        a, b = normal(sizes["M"], sizes["K"]), normal(sizes["N"], sizes["K"])
        y, exact, scalars = normal(sizes["M"], sizes["N"]), a.double() @ b.double().t(), {}
        operands = (a, b, y)
    else:
        x, weight = normal(sizes["M"], sizes["D"]), normal(sizes["D"])
        y, scalars = torch.empty_like(x), {"eps": 1e-5}
        exact = torch.nn.functional.rms_norm(x.double(), (sizes["D"],), weight.double(), 1e-5)
        operands = (x, weight, y)
    y.fill_(float("nan"))
    kernel.run(*operands, **scalars)
    torch.cuda.synchronize()
    error = (y.double() - exact).abs().cpu().numpy()
    assert (error <= 2.0**-7 * np.maximum(np.abs(exact.cpu().numpy()), 0.02 * float(exact.abs().max()))).all()
