"""Shares of bandwidth: paired with the streams of the same rounds, against the faster of two copies."""

from __future__ import annotations

import pytest

from tilewright.bench.cases import OURS, PEER
from tilewright.bench.roof import described, open_roof, share, shares
from tilewright.machines import _streaming
from tilewright.machines._stream_kernels import StreamKernel
from tilewright.machines._streaming import Stream
from tilewright.machines.bandwidth import OPERATIONS
from tilewright.runtime.measure import CONTROL, Comparison, compare


def stream(operation: str, size: int) -> Stream:
    return Stream(StreamKernel(operation, 512, 1, 64), size, lambda: 0.0)


def comparison(**samples: tuple[float, ...]) -> Comparison:
    ours = samples.pop("ours")
    every = {OURS: ours, PEER: ours, CONTROL: ours, **samples}
    return Comparison(every, dict.fromkeys(every, 1), (OURS, PEER, *samples), flush=False)


def test_a_machine_that_slows_down_changes_no_share():
    """Rounds in which memory is twice as slow hit both sides: the share stays 0.8."""
    ours = (10.0, 10, 10, 20, 20, 20, 40)
    c = comparison(ours=ours, read=tuple(0.8 * t for t in ours))
    found = share(c, 1000, "read", stream("read", 1000))
    assert (found.median, found.low, found.high) == pytest.approx((0.8, 0.8, 0.8))


def test_bytes_of_the_two_sides_may_differ():
    c = comparison(ours=(10.0,) * 6, read=(10.0,) * 6)
    assert share(c, 300, "read", stream("read", 1000)).median == pytest.approx(0.3)
    assert shares(c, 300, {"read": stream("read", 1000)}) == pytest.approx(
        {"roof_gbs": 100, "bandwidth": 0.3, "bandwidth_low": 0.3, "bandwidth_high": 0.3}
    )


@pytest.mark.parametrize("copy, nontemporal, best", [(10.0, 8.0, 8.0), (10.0, 16.0, 10.0)])
def test_the_faster_copy_is_the_roof(copy, nontemporal, best):
    c = comparison(ours=(20.0,) * 6, copy=(copy,) * 6, copy_nontemporal=(nontemporal,) * 6)
    found = shares(c, 1000, {o: stream(o, 1000) for o in ("copy", "copy_nontemporal")})
    assert found["of_copy"] == pytest.approx(copy / 20)
    assert found["bandwidth"] == pytest.approx(best / 20)
    assert found["roof_gbs"] == pytest.approx(1000 / best)


def test_no_stream_no_share():
    assert shares(comparison(ours=(1.0,)), 1, {}) == {}


def test_streams_take_turns_in_a_comparison(monkeypatch):
    monkeypatch.setattr(_streaming, "_MOST_BYTES", 2**22)
    monkeypatch.setattr(_streaming, "_PASS_SECONDS", 1e-4)
    with open_roof(2) as roof:
        assert tuple(roof) == OPERATIONS
        assert all(s.kernel.operation == operation and s.bytes >= 2**20 for operation, s in roof.items())
        assert 0 < roof["read"]() < 60
        found = compare({OURS: lambda: None, **roof}, seconds=0)
    assert set(found.samples) == {OURS, CONTROL, *OPERATIONS}
    assert described(roof)["copy"]["kernel"]["operation"] == "copy"
