"""`tilewright design`: what it prints, what it keeps, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tilewright import cli, cli_design, cli_report
from tilewright.errors import ArgumentError
from tilewright.knobs import knobs
from tilewright.machines import bandwidth, nvidia
from tilewright.machines.machine import Machine
from tilewright.report import gather
from tilewright.report.evidence import read
from tilewright.runtime import designer

USER = """
import tilewright as tw
from tilewright import Tensor, parallel, tiles

@tw.kernel
def doubled(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for i, d in parallel("M", "D"):
        y[i, d] = x[i, d] + x[i, d]

constant = 3
"""


@pytest.fixture
def run(command, monkeypatch, tmp_path):
    """Run `tilewright design ...` with a cache and a book of its own: (exit code, stdout, stderr)."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    return partial(command, "design")


def test_a_design_is_found_once_and_known_from_then_on(run):
    words = ("matmul", "M=8", "N=32", "K=16", "--budget", "3 trials", "--threads", "1", "--no-report", "--json")
    code, out, _ = run(*words)
    first = json.loads(out)
    assert (code, first["found"], first["trials"], first["stopped"]) == (0, "search", 3, "budget")
    assert first["sizes"] == {"M": 8, "N": 32, "K": 16} and first["seconds"] > 0
    code, out, _ = run(*words)
    second = json.loads(out)
    assert (code, second["found"], second["trials"], second["compiles"]) == (0, "book", 0, 0)
    assert second["design"] == first["design"]
    code, out, _ = run(*words[:-1])
    assert code == 0 and "from the book: no trials, nothing compiled" in out and "the default design" in out


def test_a_book_that_cannot_be_kept_is_not_promised(run, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_BOOK", "off")
    code, out, err = run("silu", "M=4", "D=64", "--budget", "2 trials", "--threads", "1", "--no-report")
    assert code == 0 and "nothing of it is kept" in out and "book explain" not in out
    assert "2 trials in" in out and "until the budget was used up" in out
    assert err == ""  # no bar where nobody watches


def test_a_kernel_of_one_s_own_from_a_file(run, tmp_path):
    (tmp_path / "mine.py").write_text(USER)
    where = str(tmp_path / "mine.py")
    code, out, _ = run(
        f"{where}:doubled", "M=4", "D=64", "--budget", "2 trials", "--threads", "1", "--no-report", "--json"
    )
    assert code == 0 and json.loads(out)["operator"] == "doubled" and json.loads(out)["report"] is None
    code, out, _ = run(where, "M=4", "D=64", "--threads", "1", "--no-report")  # the only one of its file
    assert code == 0 and "from the book" in out
    (tmp_path / "two.py").write_text(USER + "again = doubled\n")
    code, _, err = run(str(tmp_path / "two.py"), "M=4", "D=64")
    assert code == 2 and "two.py:name for one of doubled, again" in err
    code, _, err = run(f"{where}:constant", "M=4", "D=64")
    assert code == 2 and "it has doubled" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("matmul",), "tilewright design matmul M=.. K=.. N=.."),
        (("matmul", "16", "16", "16"), "tilewright design matmul M=.."),
        (("matmul", "M=16", "M=16"), "tilewright design matmul M=.."),
        (("matmul", "M=16"), "needs the sizes"),
        (("sofmax", "M=16"), "no operator is called 'sofmax'; did you mean softmax?"),
        (("linear", "M=16"), "needs the sizes M, K, N"),
        (("matmul", "M=1", "N=1", "K=1", "--budget", "soon"), "60s"),
        (("matmul", "M=1", "N=1", "K=1", "--target", "fast"), "50us"),
        (("nowhere.py:mine", "M=1"), "there is no file nowhere.py"),
        (("here", "--operator-list", "models"), "--operator-list model PATH"),
        (("/nowhere", "--operator-list", "model"), "config.json"),
        (("silu", "M=1", "D=1", "--device", "tpu"), "choose cpu, cuda, or cuda:N"),
        (("silu", "M=1", "D=1", "--device", "cuda", "--machine", "tpu-v1"), "leave one of them out"),
        (("silu", "M=1", "D=1", "--device", "cuda", "--report", "r"), "--report is made for the cpu"),
        (("silu", "M=1", "D=1", "--no-report", "--report", "r"), "leave one of them out"),
        (("silu", "M=999999999999", "D=4096"), "give smaller sizes"),
        (("matmul", "M=99999999999999999999", "N=1", "K=1"), "give smaller sizes"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, words, says):
    code, out, err = run(*words)
    assert code == 2 and out == ""
    assert says in err and len(err.strip().splitlines()) == 1


# ------------------------------------------------------------------------------------------- the report
@pytest.fixture(scope="module")
def found():
    """A search of two trials, whose book nobody keeps."""
    from tilewright.design.book.store import Book

    sizes = {"M": 4, "D": 64}
    return designer.search("silu", budget="2 trials", threads=1, book=Book.in_memory(), **sizes)


@pytest.fixture
def report(run, found, monkeypatch):
    """`tilewright design`, whose search was made before, with its report."""
    monkeypatch.setattr(bandwidth, "measured_bandwidth", lambda *_: None)  # takes seconds
    monkeypatch.setattr(designer, "search", lambda **_: found)
    return partial(run, "silu", "M=4", "D=64", "--threads", "1")


def test_a_search_leaves_a_report_where_torch_is_not_installed(report, found, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = report("--json")
    page = Path(json.loads(out)["report"])
    assert code == 0 and page.parent == knobs().cache_dir / "reports" / found.key.hash[:12]
    assert {p.suffix for p in page.parent.iterdir()} == {".html", ".png", ".json"}
    assert len(read(page.with_suffix(".json")).random) == 2
    monkeypatch.setattr(designer, "search", lambda **_: replace(found, found="book", result=None))
    code, out, _ = report()
    assert code == 0 and "from the book" in out and f"report: {page}" in out  # of the search that found it


def test_a_report_that_cannot_be_drawn_costs_a_line(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    code, out, err = report("--report", "here")
    assert (code, out) == (2, "") and 'pip install "tilewright[report]"' in err  # asked for: nothing is measured
    code, out, _ = report()
    assert code == 0 and "2 trials in" in out and "no report: reports are drawn with matplotlib" in out


def test_a_report_that_cannot_be_written_costs_a_line(report, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "reports").write_text("a file")
    code, out, _ = report()
    assert code == 0 and "2 trials in" in out and "no report: the report cannot be written to" in out
    code, _, err = report("--report", str(tmp_path / "cache" / "reports"))
    assert code == 2 and "name another folder with --report" in err


def test_a_report_that_is_cut_off_keeps_the_design(report, monkeypatch):
    def cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(gather, "search", cut)
    code, out, err = report()
    assert code == cli_design.INTERRUPTED and "2 trials in" in out and "no report; the design is kept" in err


def test_the_words_of_a_command_repeat_it():
    wanted = {"operator": "matmul", "dtype": "bf16", "M": 16, "N": 64, "K": 32}
    how = cli_report.How(budget="16 trials", seed=3, threads=2, again=True)
    said = cli_report.command_of(wanted, how)
    assert said == "tilewright design matmul M=16 N=64 K=32 --dtype bf16 --budget '16 trials' --seed 3 --threads 2"


def test_every_shape_of_a_model_is_designed_with_its_types(run, monkeypatch, tmp_path):
    seen = []

    def search(**words):
        seen.append(words)
        raise ArgumentError("not here")

    monkeypatch.setattr(designer, "search", search)
    shipped = Path(cli.__file__).parent / "models" / "shipped"
    code, out, err = run(str(shipped), "--operator-list", "model", "--budget", "5s")
    assert code == 0 and out == ""
    assert err.count("not here") == len(seen) > 10
    products = [w for w in seen if w["operator"].name == "matmul"]
    assert {w["M"] for w in products} >= {1, 512}
    assert all(w["budget"] == "5s" and w["dtype"]["b"] == "bf16" for w in products)
    assert {w["crew"] for w in seen} == {None}
    assert any(w["options"] == {"causal": True} and "lengths" in w["present"] for w in seen)


def test_every_shape_of_a_model_on_a_gpu(run, monkeypatch):
    seen = []

    def search(**words):
        seen.append(words)
        raise ArgumentError("not here")

    gpu = Machine.named("h200")
    monkeypatch.setattr(designer, "search", search)
    monkeypatch.setattr(nvidia, "detect", lambda device: {1: gpu}[device])
    shipped = Path(cli.__file__).parent / "models" / "shipped"
    code, _, _ = run(str(shipped), "--operator-list", "model", "--device", "cuda:1", "--batch", "4")
    assert code == 0
    assert all(w["machine"] is gpu for w in seen)
    assert seen[0]["crew"] is not None and len({id(w["crew"]) for w in seen}) == 1  # one set of processes for all
    assert {w["operator"].name for w in seen} >= {"matmul", "gate_up", "attention", "sample_parts", "sample_join"}
    assert {w["M"] for w in seen if w["operator"].name == "gate_up"} >= {4, 512}


def test_a_search_that_was_cut_off_says_how_to_go_on(run, monkeypatch):
    from tilewright.design import search as module

    real = module._Run._try
    batches = []

    def cut(self, batch):
        batches.append(len(batch))
        if len(batches) == 2:
            raise KeyboardInterrupt
        real(self, batch)

    monkeypatch.setattr(module._Run, "_try", cut)
    words = ("silu", "M=4", "D=64", "--budget", "4 trials", "--threads", "1", "--no-report", "--json")
    code, out, err = run(*words)
    assert code == cli_design.INTERRUPTED
    assert json.loads(out)["stopped"] == "interrupted"
    assert "1 trials are kept in the book; to go on from there, give the same command again" in err
    monkeypatch.setattr(module._Run, "_try", real)
    code, out, _ = run(*words)
    assert code == 0 and json.loads(out)["trials"] == 3  # the first is not measured again
