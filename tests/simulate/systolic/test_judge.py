"""A simulated array as the judge of a search; and `simulate` with its options."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tilewright import cli
from tilewright.design.design import Design
from tilewright.design.mutation_tiles import SetTile
from tilewright.design.mutations import steps
from tilewright.design.search import search
from tilewright.design.trial import Budget
from tilewright.errors import ArgumentError, IllegalDesign
from tilewright.machines import Machine
from tilewright.simulate.kinds import simulate
from tilewright.simulate.simulation import Job
from tilewright.simulate.systolic.judge import ArrayJudge, planned, verified

from .arrays import on

PRODUCT = {"M": 40, "N": 24, "K": 33}


def test_a_search_finds_a_better_fold_than_the_default():
    """Few rows stream past many weights: to hold the rows still takes fewer folds."""
    subject, default = on("systolic:8x8:ws", 8, 512, 64)
    judge = ArrayJudge(subject)
    found = search(subject.kernel, subject.facts, judge, model=judge.seconds, budget=Budget(trials=16))
    assert found.trials[0].design == default
    assert found.seconds < 0.6 * found.default_seconds
    assert found.winner.get("stationary") == "a"
    assert found.winner.number("tile.n") <= 512  # no tile is longer than its axis
    assert all(t.outcome.status == "ok" for t in found.trials)


def test_every_neighbour_keeps_the_meaning():
    subject, design = on("systolic:4x6:ws:buffers=2:fifo=2:bandwidth=5:accumulators=64", 21, 13, 17)
    seen = list(steps(subject.kernel, design, subject.facts))
    assert {type(m).__name__ for m, _ in seen} == {"HoldStill", "SetTile", "SetStages"}
    for _, neighbour in seen:
        verified(subject, neighbour)


def test_an_illegal_design_is_an_outcome_and_not_a_crash():
    subject, design = on("tpu-v1", 40, 24, 33)
    wide = SetTile("n", 512).apply(design)
    assert isinstance(wide, Design)
    (outcome,) = ArrayJudge(subject).evaluate([wide])
    assert outcome.status == "illegal" and "the array has 256 columns of cells" in outcome.reason


@pytest.mark.parametrize(
    ("size", "changes", "message"),
    [
        ((8192, 256, 256), {"tile__m": 4096}, "takes 8192 rows of accumulators of 4096; take tile.m=2048"),
        ((2048, 256, 16384), {"tile__m": 2048}, "of the unified buffer's 25165824; take 1536 or fewer"),
        ((4, 8, 100_000_000), {"tile__m": 1}, "split the sum into several products"),
        ((64, 64, 64), {"stages__fifo": 9}, "4 tiles that the queue holds"),
        ((64, 64, 64), {"stationary": "a"}, "hold b"),
        ((64, 64, 64), {"tile__q": 1}, "no decision of an array is called so; did you mean tile"),
    ],
)
def test_what_does_not_fit_is_named_with_the_fix(size, changes, message):
    subject, design = on("tpu-v1", *size, **changes)
    with pytest.raises(IllegalDesign, match=message):
        planned(subject, design)


def test_the_default_streams_no_more_than_fits():
    assert on("tpu-v1", 8192, 256, 256)[1].number("tile.m") == 2048
    assert on("tpu-v1", 2048, 256, 16384)[1].number("tile.m") == 1536


def test_a_program_that_is_no_product_is_refused():
    with pytest.raises(IllegalDesign, match="softmax does not run on the array of tpu_v1"):
        simulate(Job("softmax", Machine.named("tpu-v1"), {"M": 4, "D": 8}))


def test_an_account_adds_up_and_has_charts():
    told = simulate(Job("matmul", Machine.named("systolic:8x8:ws:bandwidth=2"), PRODUCT))
    assert sum(p.seconds for p in told.parts) == pytest.approx(told.seconds)
    assert told.number("values") == "stepped cycle by cycle, and right"
    assert [c.title for c in told.charts] == ["where the cycles go", "utilisation against batch"]
    used = told.charts[1].series[0].y
    assert list(used) == sorted(used)  # more rows never use less of the array


def test_layers_are_accounted_for_one_by_one():
    told = simulate(Job("matmul", Machine.named("tpu-v1"), {"M": 200}, options={"layers": "512x600,600x256"}))
    assert [dict(layer.sizes)["N"] for layer in told.layers] == [600, 256]
    assert told.seconds == pytest.approx(sum(layer.seconds for layer in told.layers))
    assert sum(p.seconds for p in told.parts) == pytest.approx(told.seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"speed": "9"}, "no option 'speed'"), ({"values": "maybe"}, "yes, no or auto"), ({"layers": "9"}, "write KxN")],
)
def test_options_it_does_not_know_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        simulate(Job("matmul", Machine.named("tpu-v1"), {"M": 8, "N": 8, "K": 8}, options=options))


def test_the_command_designs_for_an_array(tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(tmp_path / "book.sqlite"))
    words = [
        "design",
        "matmul",
        "M=8",
        "N=128",
        "K=32",
        "--machine",
        "systolic:8x8:ws",
        "--budget",
        "9 trials",
        "--json",
    ]
    ran = CliRunner().invoke(cli.app, words)
    told = json.loads(ran.stdout)
    assert ran.exit_code == 0 and told["simulated"] and told["trials"] == 9
    assert told["seconds"] < told["default_seconds"]
