"""Emitted kernels of chained products run here, on the CPU: barriers, rings, copies, operands in registers.

Copies arrive at random times and products are computed as late as they are waited for, so that a kernel that reads too
early, overwrites too soon or waits for ever is caught without a GPU.
"""

import sys
from itertools import pairwise
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
    ("causal", None), ("window", "three take turns"), ("with sums", "drawn, by the engine"), ("with sums", "plain"),
    ("packed", "plain"), ("packed", "drawn, by the engine"), ("packed", "rows ahead"), ("packed", "three take turns"),
    ("packed, with sums", None), ("packed, with sums", "one warpgroup"),
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
    if "past" in tensors:
        for name in ("k", "v"):
            tensors[name][:, int(tensors["past"].max()) :] = np.nan
    if "lengths" in tensors:
        for n, length in enumerate(tensors["lengths"]):
            for name in ("k", "v"):
                tensors[name][n, :, int(length) :] = np.nan
    return tensors


@pytest.mark.parametrize(("name", "decisions"), CASES, ids=[f"{n}, {d}" for n, d in CASES])
def test_an_emitted_kernel_computes_what_was_written(name, decisions, tmp_path):
    kernel = PROGRAMS[name]
    known = facts(kernel)
    check(
        kernel,
        known,
        default_design(kernel, known) if decisions is None else design(kernel, DESIGNS[decisions]),
        tmp_path,
    )


PACKED = {
    "16 rows each": ("ragged window", {"rows": 16, "tile.g": 4, "warpgroups": 1}, {"S": 21, "G": 3}),
    "32 rows each": ("with sums", {"rows": 32, "tile.g": 4, "warpgroups": 2, "own": True}, {"S": 70, "G": 5}),
    "64 rows each": ("causal", {"rows": 64, "tile.g": 2, "warpgroups": 2, "own": True, "store": "tma"},
                     {"S": 70, "G": 3}),
    "packed, 16 rows each": ("packed, with sums", {"rows": 16, "tile.g": 4, "warpgroups": 1}, {"N": 70, "G": 3}),
    "32 rows each, by the engine": ("packed", {"rows": 32, "tile.g": 4, "warpgroups": 2, "store": "tma"},
                                    {"N": 70, "G": 5}),
    "16 rows each, by the engine": ("ragged", {"rows": 16, "tile.g": 8, "warpgroups": 2, "store": "tma"},
                                    {"S": 37, "G": 5}),
    "16 rows of 8": ("window", {"rows": 16, "tile.g": 8, "warpgroups": 2}, {"S": 16, "G": 8}),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
def test_heads_that_share_keys_lie_side_by_side_in_a_tile_of_rows(name, tmp_path):
    program, decisions, sizes = PACKED[name]
    kernel = PROGRAMS[program]
    known = facts(kernel, T=130, B=2, H=1, **sizes)
    common = {"columns": 64, "stages": 2, "overlap": True, "persistent": True, "drawn": True}
    check(kernel, known, design(kernel, {**common, **decisions}), tmp_path)


def ranges(queries, keys, rows, causal=True, window=None):
    """The range of keys that each of `rows` packed queries sees: (first, past); those of no sequence see none."""
    first, past = np.zeros((2, rows), np.int32)
    for (a, b), (c, e) in zip(pairwise(np.cumsum([0, *queries])), pairwise(np.cumsum([0, *keys])), strict=True):
        at = np.arange(a, b) + (e - b)
        past[a:b] = np.clip(at + 1, c, e) if causal else e
        first[a:b] = c if window is None else np.clip(at + 1 - window, c, e)
    return {"first": first, "past": past}


BATCHES = {
    "of one token": ranges([1] * 150, [1] * 150, 150),
    "a long one between empty ones": ranges([0, 148, 0, 1, 0], [0, 204, 0, 6, 0], 150),
    "past tiles, some rows of none": ranges([130, 1, 7], [130, 1, 7], 150),
    "parts of long ones": ranges([5, 64, 1, 70], [100, 64, 1, 45], 150),
    "without a query or a key": ranges([40, 0, 80], [0, 130, 80], 150),
    "all keys": ranges([70, 80], [120, 90], 150, causal=False),
    "windows": ranges([100, 50], [140, 70], 150, window=30),
    "past the keys": {"first": np.full(150, -9, np.int32), "past": np.full(150, 2**31 - 1, np.int32)},
    "turned around": {"first": np.arange(150, dtype=np.int32)[::-1].copy(), "past": np.arange(150, dtype=np.int32)},
}


@pytest.mark.parametrize(("program", "more", "sizes"), [
    ("packed", "rows ahead", {}), ("packed, with sums", {"rows": 32, "tile.g": 4, "warpgroups": 2}, {"G": 3}),
])  # fmt: skip
def test_ranges_of_packed_sequences(program, more, sizes, tmp_path):
    """Steps before, between and after the bounds of masks, tiles of several sequences, and rows of none at all."""
    kernel = PROGRAMS[program]
    known = facts(kernel, H=1, N=150, T=210, **sizes)
    common = {"columns": 48, "stages": 2, "overlap": True, "persistent": True, "drawn": True, "store": "tma"}
    chosen = design(kernel, DESIGNS[more] | {"columns": 48} if isinstance(more, str) else {**common, **more})
    for batch in BATCHES.values():
        check(kernel, known, chosen, tmp_path, batch)


def check(kernel, known, chosen, tmp_path, given=None):
    """The kernel of a design gives what the program means, in two orders of copies."""
    assert legal(kernel, chosen, known) == []
    module = emitted(kernel, chosen, known)
    tensors = poisoned(kernel, inputs(kernel, dict(known.sizes)) | (given or {}))
    scalars = {p.name: 0.125 for p in kernel.params if p.dims is None}
    expected = results(kernel, tensors)
    for seed in range(2):
        found = run(module, kernel, tensors, scalars, dict(known.sizes), tmp_path, seed)
        for tensor, x in expected.items():
            got = found[tensor].astype(np.float64)
            np.testing.assert_array_equal(np.isneginf(got), np.isneginf(x))  # rows that see nothing have no sum
            sums = ~np.isneginf(x)
            assert np.isfinite(got[sums]).all(), tensor
            # Sums in another order, approximate powers, rounded to 16 bits: a few steps of those.
            assert np.abs(got[sums] - x[sums]).max() <= 2.0**-6 * max(1.0, np.abs(x[sums]).max()), tensor


def test_an_arrival_too_few_is_a_block_that_waits_for_ever(tmp_path):
    kernel = PROGRAMS["full"]
    known = facts(kernel)
    module = emitted(kernel, design(kernel, DESIGNS["one warpgroup"]), known)
    broken = module.source.replace("k_empty.arrive(slot, lane);", "")
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
