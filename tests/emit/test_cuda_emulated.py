"""Emitted kernels of chained products run here, on the CPU: barriers, rings, copies, operands in registers.

Copies arrive at random times and products are computed as late as they are waited for, so that a kernel that reads too
early, overwrites too soon or waits for ever is caught without a GPU.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "lower" / "gpu"))
import products
from chains import DESIGNS, PROGRAMS, design, facts, inputs, results
from emulate import COMPILER, run

from tilewright.design.default import default_design
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda import emit_cuda
from tilewright.language import interpreter
from tilewright.lower.gpu.stages import lower_gpu

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no g++")

CASES = [
    ("causal", "plain"), ("ragged window", "drawn, by the engine"), ("ragged", "rows ahead"), ("two layers", "turns"),
    ("capped", "three take turns"), ("f16", "a warp that copies"), ("window", "staying"), ("full", "three warpgroups"),
    ("causal", None),
]  # fmt: skip


def emitted(kernel, chosen, known):
    layouts = {
        p.name: TensorLayout(tuple(1 if d == len(p.dims) - 1 else None for d in range(len(p.dims))), 16)
        for p in kernel.params
        if p.dims is not None
    }
    fixed = {d: n for d, n in known.sizes.items() if d in known.fixed}
    return emit_cuda(lower_gpu(kernel, chosen, known), layouts, fixed, known.machine)


def poisoned(kernel, tensors):
    """Keys and values from the end of each sequence on are NaN: nobody may read them."""
    if "lengths" in tensors:
        for n, length in enumerate(tensors["lengths"]):
            for name in ("k", "v"):
                tensors[name][n, :, int(length) :] = np.nan
    return tensors


@pytest.mark.parametrize(("name", "decisions"), CASES, ids=[f"{n}, {d}" for n, d in CASES])
def test_an_emitted_kernel_computes_what_was_written(name, decisions, tmp_path):
    kernel = PROGRAMS[name]
    known = facts(kernel)
    chosen = default_design(kernel, known) if decisions is None else design(kernel, DESIGNS[decisions])
    assert legal(kernel, chosen, known) == []
    module = emitted(kernel, chosen, known)
    tensors = poisoned(kernel, inputs(kernel, dict(known.sizes)))
    scalars = {p.name: 0.125 for p in kernel.params if p.dims is None}
    expected = results(kernel, tensors)
    for seed in range(2):
        found = run(module, kernel, tensors, scalars, dict(known.sizes), tmp_path, seed)
        for tensor, x in expected.items():
            got = found[tensor].astype(np.float64)
            assert np.isfinite(got).all(), tensor
            # Sums in another order, approximate powers, rounded to 16 bits: a few steps of those.
            assert np.abs(got - x).max() <= 2.0**-6 * max(1.0, np.abs(x).max()), tensor


def test_an_arrival_too_few_is_a_block_that_waits_for_ever(tmp_path):
    kernel = PROGRAMS["full"]
    known = facts(kernel)
    module = emitted(kernel, design(kernel, DESIGNS["one warpgroup"]), known)
    broken = module.source.replace("if (lane == 0) k_empty[slot.index].arrive();", "")
    assert broken != module.source
    with pytest.raises(AssertionError, match="wait for ever"):
        _run_source(module, broken, kernel, known, tmp_path)


def test_a_product_that_is_not_waited_for_is_seen(tmp_path):
    kernel = PROGRAMS["full"]
    known = facts(kernel)
    module = emitted(kernel, design(kernel, DESIGNS["plain"]), known)
    broken = module.source.replace("wgmma_wait<0>();", "wgmma_wait<1>();", 1)
    found = _run_source(module, broken, kernel, known, tmp_path)
    expected = results(kernel, inputs(kernel, dict(known.sizes)))["o"]
    assert not np.abs(found["o"].astype(np.float64) - expected).max() <= 2.0**-6


def _run_source(module, source, kernel, known, folder):
    from dataclasses import replace

    tensors = inputs(kernel, dict(known.sizes))
    return run(replace(module, source=source), kernel, tensors, {"scale": 0.125}, dict(known.sizes), folder)


@pytest.mark.parametrize("name", ["matmul", "epilogue"])
@pytest.mark.parametrize("decisions", ["staggered", "three, staggered", "plain"])
def test_warpgroups_that_begin_one_after_the_other_compute_the_same(name, decisions, tmp_path):
    kernel = products.traced(name)
    known = products.facts(kernel, K=336)
    more = {"early.bias": True, "early.residual": decisions == "staggered"} if name == "epilogue" else {}
    chosen = products.design(kernel, {**products.DESIGNS[decisions], **{n: v for n, v in more.items() if v}})
    assert legal(kernel, chosen, known) == []
    module = emitted(kernel, chosen, known)
    assert ("ahead" in module.source) == ("stagger" in decisions)
    random, sizes = np.random.default_rng(0), dict(known.sizes)
    tensors = {p.name: random.integers(-2, 3, [sizes[d] for d in p.dims]).astype(p.dtype.numpy) for p in kernel.params}
    tensors["c"] = np.full_like(tensors["c"], np.nan)
    expected = {n: x.copy() for n, x in tensors.items()}
    interpreter.run(kernel, expected, steps=64)
    for seed in range(2):
        found = run(module, kernel, tensors, {}, sizes, tmp_path, seed)["c"]
        assert (found.astype(np.float64) == expected["c"].astype(np.float64)).all()
