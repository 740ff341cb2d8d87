"""What the assembler says of a kernel: rules that refuse it, and what it changes in the estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright import operators
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.cost.usage import Usage
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.built import MOST_SPILLED, refused
from tilewright.machines.machine import Machine

H200 = Machine.named("h200")
FITS = Usage(threads=128, registers=128, spills=MOST_SPILLED, shared=48 << 10)
KERNEL = operators.matmul.kernel.trace("bf16", options={"activation": None})
DESIGN = Design.of({"atom.dot0": "mma", "tile.m": 128, "tile.n": 128, "tile.k": 64, "stages": 3, "warps": 8})
FACTS = Facts({"M": 2048, "N": 4096, "K": 4096}, dict.fromkeys("abc", (1,)), H200, frozenset("abc"))


def test_what_fits_is_allowed():
    assert refused(DESIGN, FITS, H200) == []


@pytest.mark.parametrize(
    ("change", "rule", "says"),
    [
        (
            {"threads": 1024, "registers": 72},
            "registers",
            "1024 threads of 72 registers take 73728, and an SM has 65536",
        ),
        ({"shared": 300 << 10}, "shared", "307200 bytes of shared memory, of 232448"),
        ({"spills": MOST_SPILLED + 4}, "spills", "moves 516 bytes to and from local memory, of 512"),
    ],
)
def test_what_does_not_is_named_with_its_mending(change, rule, says):
    (found,) = refused(DESIGN, replace(FITS, **change), H200)
    assert found.rule == rule and says in found.message and "take" in found.message


def test_spills_and_fewer_blocks_make_an_estimate_longer():
    clean = estimate_gpu(KERNEL, DESIGN, FACTS, replace(FITS, spills=0))
    spilling = estimate_gpu(KERNEL, DESIGN, FACTS, replace(FITS, spills=64))
    crowded = estimate_gpu(KERNEL, DESIGN, FACTS, replace(FITS, spills=0, registers=255, threads=256))
    assert (clean.value("blocks per SM"), crowded.value("blocks per SM")) == (4, 1)
    assert spilling.seconds == pytest.approx(clean.seconds + spilling.value("spills"))
    assert spilling.value("spills") > 0 and crowded.seconds >= clean.seconds
    assert "spills" not in {t.name for t in clean.terms}
