"""DEBUG=1..7: each level prints what it says, and those below it."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tilewright as tw
from tilewright.runtime import debug

MARKS = {
    1: r"kernel twofold: (compiled in|found on disk)",
    2: r"twofold f32 M=64: +[\d.]+ us +[\d.]+ GFLOP/s +[\d.]+ GB/s",
    3: r"^  tile\.m ",
    4: r"define void @tw_run",
    5: r"^kernel twofold\(x: f32\[M\]",
    6: r"^for m0 in share\(",
    7: r"^tw_run:",
}


@pytest.mark.parametrize("level", range(8))
def test_levels(level, monkeypatch, capfd):
    monkeypatch.setenv("DEBUG", str(level))

    @tw.kernel
    def twofold(x: tw.Tensor["M"], y: tw.Tensor["M"]):
        for i in tw.parallel("M"):
            y[i] = x[i] + x[i]

    x, y = np.ones(64, np.float32), np.full(64, np.nan, np.float32)
    tw.launch(twofold, x=x, y=y)
    printed = capfd.readouterr()
    assert np.all(y == 2) and printed.out == ""
    for needed, mark in MARKS.items():
        assert bool(re.search(mark, printed.err, re.MULTILINE)) == (level >= needed), mark
    assert (printed.err == "") == (level == 0)


@pytest.mark.parametrize("ragged", [False, True])
def test_rates_of_what_ends_by_data_are_no_more_than_bounds(ragged, monkeypatch, capfd):
    monkeypatch.setenv("DEBUG", "2")
    q, k, v = (np.ones((1, 2, n, 16), np.float32) for n in (4, 8, 8))
    tw.ops.attention(q, k, v, lengths=np.array([3], np.int64) if ragged else None)
    line = next(
        line for line in capfd.readouterr().err.splitlines() if line.startswith("attention ") and " us " in line
    )
    assert line.endswith("GB/s at most" if ragged else "GB/s")


def test_a_design_as_a_table():
    design = tw.Design.of({"tile.m": 14, "lanes": ("k", "n"), "unpack.a": True})
    assert debug.design_table(design).splitlines()[1:] == ["  lanes     k n", "  tile.m    14", "  unpack.a  True"]
