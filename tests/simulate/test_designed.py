"""Designs by simulated machines in the book: found once, and kept under the machine as a simulated one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tilewright import cli
from tilewright.design.book.store import Book
from tilewright.design.design import Design
from tilewright.errors import ArgumentError
from tilewright.lower.dataflow.stages import lower_dataflow
from tilewright.machines import Machine
from tilewright.simulate.designed import judge_on, search_simulated
from tilewright.simulate.judge import few_tiles

MACHINES = ("systolic:8x8:ws", "sn40l", "h100")
SIZES = {"M": 40, "N": 96, "K": 64}


def found_on(name: str, book: Book, **options):
    return search_simulated("matmul", Machine.named(name), SIZES, budget="9 trials", book=book, **options)


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_found_is_in_the_book_and_found_at_once_the_next_time(name):
    book = Book.in_memory()
    first, second = found_on(name, book), found_on(name, book)
    assert (first.found, second.found) == ("search", "book")
    assert second.design == first.design and second.trials == 0
    assert len(book.trials(first.key)) == first.trials == 9
    assert found_on(name, book, again=True).trials == 9
    assert "by a model of" in book.explain(first.key)


@pytest.mark.parametrize("name", MACHINES)
def test_what_a_model_found_is_never_taken_for_what_was_measured(name):
    book = Book.in_memory()
    key = found_on(name, book).key
    real = replace(key, machine=Machine.named(name).fingerprint, facts=None)
    assert real != key and book.get(real) is None


def test_no_starter_book_is_made_of_models(tmp_path: Path):
    book = Book.in_memory()
    found_on("sn40l", book)
    assert book.export(tmp_path / "all.json") == 1
    assert book.export(tmp_path / "starter.json", starter=True) == 0


def test_the_rates_of_a_simulated_machine_are_a_part_of_its_fingerprint():
    slow, fast = (Machine.named(f"systolic:8x8:ws:bandwidth={n}") for n in (1, 4))
    assert slow.fingerprint == fast.fingerprint  # on a real one, rates are measured and vary
    assert slow.as_simulated().fingerprint != fast.as_simulated().fingerprint
    sn40l = Machine.named("sn40l").as_simulated()
    assert Machine.from_json(sn40l.to_json()) == sn40l
    assert replace(sn40l, clock_hz=1e9).fingerprint != sn40l.fingerprint != Machine.named("sn40l").fingerprint


def test_a_machine_to_measure_on_has_no_judge():
    with pytest.raises(ArgumentError, match="no simulator judges designs for x86-avx2"):
        judge_on(Machine.named("x86-avx2"), "matmul", SIZES, None)


def test_a_check_has_a_few_tiles_along_each_axis_and_keeps_the_order_of_sizes():
    sizes = {"B": 3, "H": 8, "G": 4, "S": 100, "T": 4000, "D": 16, "E": 16}
    judge = judge_on(Machine.named("sn40l"), "attention", sizes, None)
    design = judge.completed(Design.of({"tile.s": 64, "tile.t": 4, "tile.g": 4}))
    scheduled = lower_dataflow(judge.subject.kernel, design, "sn40l")
    small = few_tiles(judge.subject.kernel, scheduled, sizes, 64)
    assert small["B"] == small["H"] == 2 and small["D"] == 16
    assert small["S"] == 100 <= small["T"] < 200


@pytest.mark.parametrize("machine", ["sn40l", "a100"])
@pytest.mark.parametrize("operator", ["softmax", "rmsnorm"])
def test_the_command_designs_and_remembers(operator, machine, tmp_path, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(tmp_path / "book.sqlite"))
    words = ["design", operator, "M=64", "D=256", "--machine", machine, "--budget", "9 trials"]
    ran = CliRunner().invoke(cli.app, [*words, "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["simulated"] and told["machine"] == machine and told["found"] == "search"
    assert 0 < told["seconds"] <= told["default_seconds"]
    again = CliRunner().invoke(cli.app, words)
    assert "from the book" in again.output and f"by a model of {machine}" in again.output


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--report", "out"], "--report out with --machine"),
        (["--numerics", "pinned"], "--numerics pinned with --machine"),
        (["--threads", "2"], "--threads 2 with --machine"),
        (["--operator-list", "model"], "--operator-list model with --machine"),
    ],
)
def test_options_that_a_model_cannot_heed_are_refused(more, says):
    ran = CliRunner().invoke(cli.app, ["design", "softmax", "M=8", "D=8", "--machine", "sn40l", *more])
    assert says in str(ran.exception)
