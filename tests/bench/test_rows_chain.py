"""Chains of few rows, with the GPU's part played by the CPU: times of a call, and every link's results judged."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tilewright.bench import rows_chain
from tilewright.bench.rows_cases import row_cases
from tilewright.bench.rows_chain import Chain
from tilewright.bench.rows_problem import RowProblem, peers
from tilewright.errors import VerificationError
from tilewright.runtime.measure import Comparison


@pytest.fixture
def setups():
    case = next(c for c in row_cases() if c.links and c.operator == "softmax")
    small = replace(case, sizes=(("M", 1), ("D", 40)), element="f32")
    return [RowProblem(small, seed, "cpu") for seed in range(3)]


def written(setups, skip=None):
    """A graph of torch's calls, which fill the outputs; of link `skip` not."""

    def call():
        for n, (setup, peer) in enumerate(zip(setups, peers(setups, compiled=False), strict=True)):
            if n != skip:
                setup.tensors["y"].copy_(peer())

    return call


def test_every_link_has_operands_of_its_own(setups):
    assert len({s.tensors["x"].data_ptr() for s in setups}) == len(setups)
    assert not torch.equal(setups[0].tensors["x"], setups[1].tensors["x"])


def test_all_links_are_judged(setups):
    Chain(setups, {"ours": written(setups)}).checked("ours")
    with pytest.raises(VerificationError, match="not finite, or were not written"):
        Chain(setups, {"ours": written(setups, skip=2)}).checked("ours")


def test_a_time_is_that_of_one_call(setups, monkeypatch):
    def compared(graphs, *, rounds, poison, pause):
        assert pause and rounds == 7
        poison()
        samples = dict.fromkeys((*graphs, "(control)"), (3 * 1000.0, 3 * 3000.0))
        return Comparison(samples, dict.fromkeys(samples, 1), tuple(graphs), True)

    monkeypatch.setattr(rows_chain, "compare", compared)
    timed = Chain(setups, {"ours": written(setups)}).timed(7)
    assert timed.median_ns("ours") == 2000.0
    assert timed.batch["ours"] == len(setups) == 3
    assert all(torch.isnan(s.tensors["y"]).all() for s in setups)


def test_few_rows_are_timed_so_and_no_others():
    assert {c.family for c in row_cases() if c.links} == {"gpu_rows_few"}
