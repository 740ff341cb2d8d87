"""`show`: every registered operator at every stage, as text and as files."""

from __future__ import annotations

import re

import pytest

from tilewright.design.design import Design
from tilewright.errors import ArgumentError
from tilewright.language.parser import parse
from tilewright.machines.machine import Machine
from tilewright.operators import OPERATORS
from tilewright.show import CPU_STAGES, dims_of, save_stages, stage_text

AVX512 = Machine.named("x86-avx512")
SIZES = {"G": 2, "S": 3, "B": 2}


def sizes_of(operator: str) -> dict[str, int]:
    return {d: SIZES.get(d, 32) for d in dims_of(OPERATORS[operator])}


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_every_operator_has_every_stage(operator, dtype):
    texts = {s: stage_text(operator, sizes_of(operator), dtype, s, AVX512) for s in CPU_STAGES if s != "asm"}
    program, scheduled = parse(texts["tile"]), parse(texts["sched"])
    assert program.name == scheduled.name == OPERATORS[operator].name
    assert scheduled.params == program.params
    assert texts["design"].startswith("design ") and "lanes" in texts["design"]
    for tensor in (p.name for p in program.params if p.dims):
        assert f"({tensor}," in texts["thread"] or f"({tensor}_packed," in texts["thread"]
    assert "define void @tw_run" in texts["ll"]


def test_assembly_multiplies_by_vectors():
    assert "vfmadd" in stage_text("matmul", (1, 64, 64), "f32", "asm", AVX512)


def test_sizes_by_place_are_those_of_the_result_first():
    assert dims_of(OPERATORS["matmul"]) == ["M", "N", "K"]
    by_name = stage_text("matmul", {"M": 1, "N": 64, "K": 32}, "f32", "design", AVX512)
    assert stage_text("matmul", (1, 64, 32), "f32", "design", AVX512) == by_name


def test_a_design_of_ones_own():
    design = Design.of({"tile.m": 2, "tile.n": 16, "tile.k": 1, "lanes": ("n",)})
    text = stage_text("matmul", (4, 64, 64), "f32", "sched", AVX512, design=design)
    assert "for m in M step 2, n in N step 16 parallel" in text
    assert "tile.n" in stage_text("matmul", (4, 64, 64), "f32", "design", AVX512, design=design)


def test_the_machine_decides():
    wide = stage_text("scale_add", (4, 64), "f32", "thread", AVX512)
    narrow = stage_text("scale_add", (4, 64), "f32", "thread", Machine.named("x86-avx2"))
    assert "vec=16" in wide and "vec=8" in narrow


def test_a_gpu_is_shown_its_own_types_the_sizes_that_were_asked_for_and_the_design():
    """What the sizes decide stands in the text: none is left to be known at the call. The design is told."""
    asked = {"operator": "matmul", "sizes": (16, 4096, 4096), "machine": Machine.named("h200")}
    text = stage_text(stage="cu", **asked)
    assert "bf16" in text and "const int K =" not in text and "4096" in text
    head = "".join(line.removeprefix("//") for line in text.splitlines() if line.startswith("//"))
    assert " sizes: M=16 K=4096 N=4096 " in head
    table = stage_text(stage="design", **asked)
    assert "tile.k" in table and all(f"{name}=" in head for name in re.findall(r"[a-z]+\.[a-z0-9]+", table))
    assert len(text.splitlines()) <= 110


def test_all_stages_as_files(tmp_path):
    names = sorted(p.name for p in save_stages(tmp_path, "softmax", (2, 64)))
    assert names == ["softmax.asm", "softmax.ll", "softmax.o", "softmax.sched", "softmax.thread", "softmax.tile"]


@pytest.mark.parametrize(
    "operator, sizes, stage, says",
    [
        ("matmulx", (1,), "tile", "no operator is called 'matmulx'; did you mean matmul"),
        ("matmul", (1, 2), "tile", "needs 3 sizes"),
        ("matmul", {"M": 1, "N": 2}, "tile", "needs the sizes M, K, N; given: M=1, N=2"),
        ("matmul", {"M": 1, "N": 2, "K": -1}, "tile", "K=-1 is no size"),
        ("matmul", (1, 2, 3), "ptx", "no stage 'ptx'"),
    ],
)
def test_what_cannot_be_shown(operator, sizes, stage, says):
    with pytest.raises(ArgumentError, match=says):
        stage_text(operator, sizes, "f32", stage, AVX512)


def test_a_program_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import tilewright as tw\n"
        "@tw.kernel\n"
        "def doubled(x: tw.Tensor['M', 'D'], y: tw.Tensor['M', 'D']):\n"
        "    for i, d in tw.parallel('M', 'D'):\n"
        "        y[i, d] = x[i, d] + x[i, d]\n"
    )
    text = stage_text(f"{tmp_path / 'mine.py'}:doubled", (4, 64), "f32", "thread", AVX512)
    assert "add(" in text or " + " in text
    assert "store(y, (m, d)" in text
    with pytest.raises(ArgumentError, match="it has doubled"):
        stage_text(f"{tmp_path / 'mine.py'}:trebled", (4, 64), "f32", "thread", AVX512)


@pytest.mark.parametrize(
    "source, says",
    [("def f(:\n", r"mine.py:1: SyntaxError"), ("import os\nos.nothing\n", r"mine.py:2: AttributeError")],
)
def test_a_file_that_cannot_be_executed(tmp_path, source, says):
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(ArgumentError, match=f"cannot be executed: .*{says}"):
        stage_text(f"{tmp_path / 'mine.py'}:f", (4, 64), "f32", "tile", AVX512)
