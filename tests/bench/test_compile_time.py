"""Compile times are those of kernels that were really compiled, and leave nothing behind."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tilewright import operators
from tilewright.bench import compile_time
from tilewright.errors import TilewrightError
from tilewright.knobs import knobs
from tilewright.machines.machine import Machine
from tilewright.runtime.compiled import compile_at

SMALL = ({"M": 1, "N": 64, "K": 64}, {"M": 32, "N": 64, "K": 64})


def test_each_kernel_is_compiled_each_time(monkeypatch):
    monkeypatch.setattr(compile_time, "SHAPES", SMALL)
    before, folders = os.environ["TILEWRIGHT_CACHE_DIR"], []
    real = compile_time.build

    def watched(request, machine):
        folders.append(knobs().cache_dir)
        assert not any(folders[-1].iterdir())
        return real(request, machine)

    monkeypatch.setattr(compile_time, "build", watched)
    results = list(compile_time.compile_results(repeats=2))
    assert [r.name for r in results] == compile_time.names()
    assert len(set(folders)) == 1 + 2 * len(results)
    assert not any(folder.exists() for folder in folders)
    assert os.environ["TILEWRIGHT_CACHE_DIR"] == before
    for result in results:
        assert min(result.raw["samples_cpu_ms"]) > 0 and len(result.raw["samples_wall_ms"]) == 2
        assert result.metrics["wall_ms"] > 0.1


def test_what_was_only_found_is_no_compile_time(monkeypatch):
    real = compile_time.build
    monkeypatch.setattr(compile_time, "build", lambda *a: replace(real(*a), seconds=0.0))
    machine = Machine.detect()
    request = compile_at(operators.matmul, SMALL[0], dtype="f32", machine=machine).stages.request
    with pytest.raises(TilewrightError, match="nothing was compiled"):
        compile_time.build_seconds(request, machine)
