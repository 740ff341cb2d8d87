"""Google's TPU v1 (Jouppi et al., ISCA 2017): rooflines, folds of ragged matrices, and six applications."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.machines import Machine
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job
from tilewright.simulate.systolic.tpu import bound

TPU = Machine.named("tpu-v1")


def twice_as_wide() -> Machine:
    """An array of 512 x 512 with the same memory, as the paper asks about."""
    limits = {**dict(TPU.limits), "rows": 512, "columns": 512}
    return replace(TPU, name="tpu-512", limits=tuple(sorted(limits.items())))


@pytest.mark.parametrize(
    ("macs_per_byte", "tops"),
    [(200, 13.60), (168, 11.42), (64, 4.35), (96, 6.53), (2888, 91.75), (1750, 91.75)],
)
def test_the_roofline_bounds_of_the_six_applications(macs_per_byte, tops):
    assert bound(TPU, macs_per_byte) / 1e12 == pytest.approx(tops, rel=0.01)


@pytest.mark.parametrize(("machine", "folds", "exact", "paper"), [(TPU, 9, 17.35, 18), (twice_as_wide(), 4, 30.84, 32)])
def test_a_matrix_of_600_by_600_is_fetched_in_whole_tiles(machine, folds, exact, paper):
    """The larger array takes longer: four tiles of which most is padding."""
    told = simulate(Job("matmul", machine, {"M": 100, "N": 600, "K": 600}, options={"values": "no"}))
    fetched = folds * float(told.number("fetch of a tile")) / 700e6 * 1e6
    assert told.number("folds") == folds
    assert fetched == pytest.approx(exact, abs=0.01)
    assert fetched == pytest.approx(paper, rel=0.04)
