import csv
import io

import pytest
import torch

from tilewright.bench import rope, rope_peers, rope_report
from tilewright.bench.rope_peers import IN_PLACE, OURS, eager
from tilewright.errors import ArgumentError, MachineError, VerificationError

REQUEST = rope.RopeRequest(lengths=(3, 8), head_dims=(4,), heads=2, seconds=0.0)


@pytest.fixture
def two(monkeypatch):
    """Without torch.compile, which takes half a minute."""
    monkeypatch.setattr(rope, "contestants", lambda device: {rope.EAGER: eager, OURS: eager})
    monkeypatch.setattr(rope_peers.ops, "rope", lambda x, cos, sin, out: out.copy_(eager(x, cos, sin)))
    return rope


def test_every_case_is_measured_both_ways(two):
    results = list(two.measure(REQUEST))
    assert [r.name for r in results] == [f"1x{n}x2x4 f32 {way}" for n in (3, 8) for way in rope.WAYS]
    assert not any(r.error for r in results)
    assert results[0].raw["order"] == ["torch", OURS, IN_PLACE]
    assert results[1].raw["order"] == ["torch", OURS]
    assert all(r.metrics["ratio torch"] > 0 and len(r.raw["samples_ns"][OURS]) >= 6 for r in results)


def test_a_wrong_contestant_is_told_and_not_timed(two, monkeypatch):
    monkeypatch.setattr(two, "contestants", lambda device: {rope.EAGER: eager, OURS: lambda x, cos, sin: x * cos[0, 0]})
    first = next(iter(two.measure(REQUEST)))
    assert "tilewright is" in first.error and "times the bound" in first.error
    assert not first.metrics


@pytest.mark.parametrize("way", rope.WAYS)
def test_results_are_held_to_float64(way):
    x, cos, sin, dy = rope.operands(REQUEST, 8, 4)
    y = eager(x, cos, sin)
    actual = y.detach() if way == "forward" else torch.autograd.grad(y, x, dy)[0]
    assert rope.checked("", "torch", actual, way, x, cos, sin, dy) <= 1
    for bad in (actual + 1e-4, torch.full_like(actual, torch.nan)):
        with pytest.raises(VerificationError):
            rope.checked("", "torch", bad, way, x, cos, sin, dy)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ArgumentError, match="choose cpu or cuda"):
        rope.RopeRequest(device="tpu").check()
    with pytest.raises(ArgumentError, match="head dims even"):
        rope.RopeRequest(head_dims=(3,)).check()
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="use --device cpu"):
            rope.RopeRequest(device="cuda").check()


def test_files_hold_every_row_and_picture(two, tmp_path):
    results = list(two.measure(REQUEST))
    paths = rope_report.write(results, "a <table>", "about", tmp_path)
    assert {p.name for p in paths} == {
        "rope.csv", "rope.html", "rope-profile.txt", "rope-forward-4.png", "rope-backward-4.png",
    }  # fmt: skip
    table = list(csv.DictReader(io.StringIO((tmp_path / "rope.csv").read_text())))
    assert len(table) == 2 * (3 + 2)
    assert {row["contestant"] for row in table} == {"torch", OURS, IN_PLACE}
    text = (tmp_path / "rope.html").read_text()
    assert text.count("<img") == 2 and "a &lt;table&gt;" in text and text.count("<tr>") == len(table) + 1
