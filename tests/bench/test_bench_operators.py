"""One case from check to metrics; a wrong kernel never gets as far as a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tilewright.bench import operators, peers
from tilewright.bench.cases import OURS, PEER, Case
from tilewright.bench.reference import REFERENCES
from tilewright.errors import VerificationError
from tilewright.machines._stream_kernels import StreamKernel
from tilewright.machines._streaming import Stream
from tilewright.runtime.measure import CONTROL, Comparison
from tilewright.runtime.tolerance import check

SMALL = {
    "matmul": {"M": 5, "N": 7, "K": 9},
    "linear": {"M": 3, "N": 8, "K": 33},
    "rmsnorm": {"M": 4, "D": 19},
    "softmax": {"M": 4, "D": 19},
    "swiglu": {"M": 4, "D": 19},
    "scale_add": {"M": 4, "D": 19},
    "rope": {"B": 1, "S": 6, "H": 2, "C": 8},
}


def stream(operation: str, size: int = 40_000_000) -> Stream:
    return Stream(StreamKernel(operation, 512, 1, 64), size, lambda: 0.0)


ROOF = {name: stream(name) for name in ("read", "copy", "copy_nontemporal")}


def small(operator: str, dtype: str, peer: str = "torch") -> Case:
    return Case("rows", operator, dtype, tuple(SMALL[operator].items()), peer)


@pytest.mark.usefixtures("interpreter_backend")
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("operator", SMALL)
def test_what_is_timed_is_right(operator, dtype):
    case = small(operator, dtype)
    assert operators.verify(case, peers.operands(case, seed=3)) <= 1


@pytest.mark.parametrize("operator, peer", peers.PEERS)
def test_the_peer_computes_the_same(operator, peer):
    """In f32, where torch rounds as often as Tilewright does, its result lies within the same bound."""
    case = small(operator, "f32", peer)
    tensors = peers.operands(case, seed=4)
    exact = REFERENCES[operator]({name: peers.to_numpy(t) for name, t in tensors.items()})
    assert check(case.name, peers.to_numpy(peers.PEERS[operator, peer](tensors)), exact) <= 1


@pytest.mark.parametrize("damage", ["unwritten", "wrong"])
def test_a_wrong_result_is_refused(monkeypatch, damage):
    case = small("softmax", "f32")

    def broken(tensors, out):
        out[:, : -1 if damage == "unwritten" else None] = torch.softmax(tensors["x"], -1)[
            :, : -1 if damage == "unwritten" else None
        ]
        if damage == "wrong":
            out[2, 5] *= 1 + 1e-4

    monkeypatch.setitem(peers.OURS, "softmax", broken)
    with pytest.raises(VerificationError, match="softmax f32 4x19"):
        operators.verify(case, peers.operands(case, seed=0))


def test_operand_sets_move_more_than_the_caches_hold(monkeypatch):
    case = small("swiglu", "f32")
    monkeypatch.setattr(operators, "last_level_cache_bytes", lambda: 10 * case.bytes)
    sets = operators.operand_sets(case)
    assert len(sets) == 30
    assert len({s["gate"].data_ptr() for s in sets}) == 30
    assert all(torch.equal(s["up"], sets[0]["up"]) for s in sets)
    monkeypatch.setattr(operators, "last_level_cache_bytes", lambda: case.bytes // 100)
    assert len(operators.operand_sets(case)) == 1


@pytest.mark.usefixtures("interpreter_backend")
def test_run_case_gives_metrics_and_samples(monkeypatch):
    monkeypatch.setattr(operators, "last_level_cache_bytes", lambda: 1)
    result = operators.run_case(small("scale_add", "f32"), 1, ROOF, seconds=0.0)
    assert result.metrics["us"] > 0
    assert result.metrics["ratio_low"] <= result.metrics["ratio"] <= result.metrics["ratio_high"]
    assert set(result.raw["samples_ns"]) == {OURS, PEER, "copy", "copy_nontemporal", CONTROL}
    assert result.metrics["bandwidth"] > 0 and result.metrics["of_copy"] > 0
    assert set(result.raw["streams"]) == {"copy", "copy_nontemporal"}
    assert 0 <= result.metrics["error_over_bound"] <= 1


def test_metrics_are_per_call_and_against_the_right_roof():
    case = Case("decode_linear", "linear", "bf16", (("M", 1), ("N", 1000), ("K", 1000)))
    samples = {OURS: (4e6,) * 6, PEER: (8e6,) * 6, CONTROL: (4e6,) * 6, "read": (1e6,) * 6}
    comparison = Comparison(samples, dict.fromkeys(samples, 1), (OURS, PEER, "read"), flush=False)
    found = operators.metrics(case, comparison, sets=40, roof={"read": ROOF["read"]})
    assert found["us"] == 100  # 4 ms for 40 sets
    assert found["ratio"] == 2
    assert found["gflops"] == pytest.approx(2e6 / 1e5)
    assert found["gbs"] == pytest.approx(case.bytes / 1e5)
    assert found["bandwidth"] == pytest.approx(case.bytes / 1e5 / 40, rel=1e-4)


def test_angles_are_those_of_rope():
    tensors = peers.operands(Case("rows", "rope", "f32", (("B", 1), ("S", 5), ("H", 1), ("C", 8))), seed=0)
    assert np.allclose(tensors["cos"] ** 2 + tensors["sin"] ** 2, 1)
    assert torch.equal(tensors["cos"][:, :4], tensors["cos"][:, 4:])
    assert tensors["sin"][3, 0] == pytest.approx(np.sin(3.0))
