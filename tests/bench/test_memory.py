"""Peak memory: counted as the system counts it, in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from tilewright.bench import engine_side, memory
from tilewright.bench.checkpoint import Shape, write_checkpoint

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate=48, vocabulary=100, context=4096)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(path, TINY)
    return path


@pytest.mark.usefixtures("interpreter_backend")
def test_the_peak_against_the_need(folder, monkeypatch):
    monkeypatch.setattr(engine_side, "PROMPT_TOKENS", 5)
    monkeypatch.setattr(memory, "STEPS", 2)
    result = memory.memory_result(folder, TINY, threads=1)
    need = TINY.weight_bytes + TINY.kv_bytes(5 + 2)
    assert result.metrics["need_mb"] == pytest.approx(need / 1e6, rel=1e-4)
    assert result.metrics["peak_over_need"] == pytest.approx(
        result.metrics["peak_mb"] / result.metrics["need_mb"], rel=1e-3
    )


def test_the_peak_remembers_what_was_given_back():
    before = memory.peak_resident_bytes()
    block = np.ones(before // 8)  # as many bytes again as were ever resident
    del block
    assert memory.peak_resident_bytes() > before


def test_the_job_holds_neither_torch_nor_the_peers(folder):
    """The worker's own entry, on a model small enough that libraries are nearly all there is."""
    job = {"job": "memory", "threads": 1, "folder": str(folder), "shape": asdict(TINY)}
    program = (
        "import sys; from tilewright.bench import worker; worker.main(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'tilewright.bench.peers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, json.dumps(job)], check=True, capture_output=True, text=True)
    result, loaded = done.stdout.splitlines()
    assert json.loads(result)["name"] == memory.NAME
    assert loaded == "[]"
