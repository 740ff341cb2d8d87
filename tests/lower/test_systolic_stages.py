"""Products folded onto arrays: the scheduled program of the decision, and the meaning of every fold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.errors import IllegalDesign
from tilewright.language.interpreter import run
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.systolic.stages import lower_systolic
from tilewright.machines import Machine
from tilewright.operators import OPERATORS

ROOT = Path(__file__).parents[2]
DECISION = (ROOT / "docs" / "decisions" / "0001-one-program-many-machines.md").read_text(encoding="utf-8")
AUTHORED, SCHEDULED = (parse(t) for t in re.findall(r"```tile\n(kernel matmul_i8.*?)```", DECISION, re.S))
TPU = Machine.named("tpu-v1")
STAGES = {"stages.fifo": 4, "stages.array": 2, "stages.acc": 2}


def folded(stationary: str, i: int, j: int, k: int):
    design = Design.of({"stationary": stationary, "tile.i": i, "tile.j": j, "tile.k": k, **STAGES})
    return lower_systolic(AUTHORED, design, Facts({"M": 2048, "N": 512, "K": 512}, {}, TPU))


def test_weights_that_stand_still_give_the_program_of_the_decision():
    """The same statements and notes; axes and values keep the author's names."""
    renamed = re.sub(r"\b([ijk])0\b", r"\1", show(SCHEDULED)).replace("out", "acc_end")
    mine = re.sub(r'@design="?\w+"? ', "", show(folded("b", 2048, 256, 256)))
    assert mine == renamed


@pytest.mark.parametrize(("stationary", "tiles"), [("b", (5, 4, 3)), ("a", (4, 5, 3)), ("acc", (4, 3, 5))])
def test_each_fold_keeps_the_meaning(stationary, tiles):
    scheduled = folded(stationary, *tiles)
    assert not verify(scheduled) and parse(show(scheduled)) == scheduled
    random = np.random.default_rng(0)
    a, b = random.integers(-128, 128, (13, 11), np.int8), random.integers(-128, 128, (11, 9), np.int8)
    c = np.zeros((13, 9), np.int32)
    run(scheduled, {"a": a, "b": b, "c": c})
    assert (c == a.astype(np.int32) @ b.astype(np.int32)).all()


def test_epilogues_leave_with_the_results():
    kernel = OPERATORS["matmul"].kernel.trace(
        dict.fromkeys(("a", "b", "c", "bias"), "f32"), options={"activation": "relu"}
    )
    design = Design.of({"stationary": "b", "tile.m": 3, "tile.n": 4, "tile.k": 5, **STAGES})
    scheduled = lower_systolic(kernel, design, Facts({"M": 7, "N": 6, "K": 9}, {}, TPU))
    random = np.random.default_rng(1)
    a, b, bias = (random.standard_normal(s, dtype=np.float32) for s in ((7, 9), (6, 9), (6,)))
    c = np.full((7, 6), np.nan, np.float32)
    run(scheduled, {"a": a, "b": b, "bias": bias, "c": c})
    assert np.abs(c - np.maximum(a.astype(np.float64) @ b.T + bias, 0)).max() < 1e-5


def test_what_is_no_product_is_refused():
    kernel = OPERATORS["softmax"].kernel.trace(dict.fromkeys(("x", "y"), "f32"))
    with pytest.raises(IllegalDesign, match="does not run on the array"):
        lower_systolic(kernel, Design(), Facts({"M": 1, "N": 1}, {}, TPU))
