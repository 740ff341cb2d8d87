"""The ladder on a GPU: rungs that are legal, compile, and differ by one move; its report from a results file."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest

from tilewright import cli_bench, operators
from tilewright.bench import gemm_ladder, record, table
from tilewright.bench.gemm_jobs import GemmRequest, gemm_jobs, share_of
from tilewright.bench.gemm_report import write_ladders
from tilewright.bench.result import Result
from tilewright.build.cuda_kernel import build_many
from tilewright.build.kernel_cache import Request
from tilewright.design.cost.gpu import estimate_gpu
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.errors import ArgumentError, VerificationError
from tilewright.machines.machine import Machine
from tilewright.report.evidence import read
from tilewright.runtime.dispatch import Program
from tilewright.runtime.measure import CONTROL, Comparison

H200 = Machine.named("h200")
SIZES = (("M", gemm_ladder.CASE.m), ("N", gemm_ladder.CASE.n), ("K", gemm_ladder.CASE.k))


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """What each rung has to build."""
    kernel = operators.matmul.kernel.trace({"a": "bf16", "b": "bf16", "c": "bf16"}, options={"activation": None})
    layouts = tuple((n, TensorLayout((4096, 1), 16)) for n in "abc")
    return [Request(kernel, design, layouts, SIZES) for design in gemm_ladder.rungs()]


def test_every_rung_is_legal_and_its_own(requests):
    assert len({r.design for r in requests}) == len(gemm_ladder.MOVES) == len(gemm_ladder.names())
    for r in requests:
        assert legal(r.kernel, r.design, r.facts(H200)) == []


def test_every_rung_compiles_without_spills(requests):
    for built in build_many(requests, H200, 2):
        assert not isinstance(built, Exception), built
        assert (built.report.spills, built.report.stack) == (0, 0)


def test_the_first_rung_has_one_output_a_thread_and_the_last_is_the_best_by_the_model(requests):
    first = requests[0].design
    assert first.number("tile.m") * first.number("tile.n") == 32 * first.number("warps")
    seconds = [estimate_gpu(r.kernel, r.design, r.facts(H200)).seconds for r in requests]
    assert min(seconds) == seconds[-1] < seconds[0] / 100


def test_a_move_sets_what_it_says_and_nothing_else():
    for move, (before, after) in zip(gemm_ladder.MOVES[1:], pairwise(gemm_ladder.rungs()), strict=True):
        old, new = dict(before.decisions), dict(after.decisions)
        assert {n for n in {*old, *new} if old.get(n) != new.get(n)} == {
            n for n, value in move.changes if old.get(n) != value
        }


# --------------------------------------------------------------------------------------------- measuring
class Setup:
    """Operands that nothing reads; the judge counts, and finds the results of one design wrong."""

    case = gemm_ladder.CASE
    wrong = None

    def __init__(self):
        self.checks, self.written = 0, None

    def poison(self):
        self.written = None

    def redraw(self):
        pass

    def peer(self):
        return lambda: None

    def check(self):
        self.checks += 1
        if self.written is None or self.written == self.wrong:
            raise VerificationError("far off")


class FakeEvaluator:
    def __init__(self, setup, kernel):
        buffers = {n: TensorLayout((4096, 1), 16) for n in "abc"}
        self.setup = setup
        self.problem = SimpleNamespace(
            program=Program.of(kernel),
            layouts=tuple(buffers.items()),
            sizes=dict(SIZES),
            fixed=("M", "N", "K"),
            device=0,
        )

    def launch(self, design):
        return lambda: setattr(self.setup, "written", design)


def fake_compare(calls, *, rounds, poison):
    samples = {name: (1000.0 + n,) * rounds for n, name in enumerate([*calls, CONTROL])}
    return Comparison(samples, dict.fromkeys(samples, 1), tuple(calls), True)


@pytest.fixture
def climbed(requests, monkeypatch):
    monkeypatch.setattr(gemm_ladder, "machine", lambda _: H200)
    monkeypatch.setattr(gemm_ladder, "captured", lambda call: call)
    monkeypatch.setattr(gemm_ladder, "compare", fake_compare)
    setup = Setup()
    return setup, lambda: list(gemm_ladder.measure_ladder(setup, FakeEvaluator(setup, requests[0].kernel)))


def test_every_rung_is_checked_before_and_after_it_is_timed(climbed, requests):
    setup, climb = climbed
    results = climb()
    assert [r.name for r in results] == gemm_ladder.names()
    assert not any(r.error for r in results)
    assert setup.checks == 2 * len(results)
    assert [r.raw["design"] for r in results] == [dict(r.design.decisions) for r in requests]
    assert "step" not in results[0].metrics and results[1].metrics["step"] == 1.0
    assert len(results[0].raw["samples_ns"]["tilewright"]) < len(results[-1].raw["samples_ns"]["tilewright"])
    assert "default_us" in results[-1].metrics
    assert all(r.raw["reason"] for r in results[1:])
    json.dumps([r.to_json() for r in results])


def test_a_wrong_rung_is_a_failed_result_and_the_ladder_goes_on(climbed, requests):
    setup, climb = climbed
    setup.wrong = requests[3].design
    results = climb()
    assert [n for n, r in enumerate(results) if r.error] == [3]
    assert results[4].metrics["step"] == 1.0  # over the rung before the wrong one


# -------------------------------------------------------------------------------------------- the report
def measured(requests: list[Request], failed: int | None = None) -> list[Result]:
    """Results as a run gives them; every rung takes three quarters of the time of the one before."""
    results = []
    for n, (name, request) in enumerate(zip(gemm_ladder.names(), requests, strict=True)):
        if n == failed:
            results.append(Result(gemm_ladder.FAMILY, name, 1, error="ptxas said no"))
            continue
        us = 1e4 * 0.75**n
        said = estimate_gpu(request.kernel, request.design, request.facts(H200))
        raw = {
            "samples_ns": {"tilewright": [round(us * 1e3)] * 6},
            "design": dict(request.design.decisions),
            **gemm_ladder._model(said, "because"),
        }
        metrics = {"us": us, "peer_us": 200.0, "gflops": gemm_ladder.CASE.flops / us * 1e-3, "ratio": 200.0 / us,
                   "ratio_low": 199.0 / us, "ratio_high": 201.0 / us, "noise": 0.01}  # fmt: skip
        metrics |= {"step": 1 / 0.75} if n else {}
        results.append(Result(gemm_ladder.FAMILY, name, 1, metrics, json.loads(json.dumps(raw))))
    return results


@pytest.fixture
def root(tmp_path, requests):
    saved(tmp_path, measured(requests, failed=3))
    (tmp_path / "benchmarks" / "floors.toml").write_text("")
    return tmp_path


def saved(root, results):
    described = record.describe(H200, results, ["tilewright", "bench", "gemm", "--save"], root)
    return record.save(described, root / "benchmarks" / "results", "gpu")


def test_the_report_is_written_from_the_results_file(root, requests):
    (page,) = write_ladders(root)
    assert page == root / "docs" / "reports" / "hgemm" / "h200" / "report.html"
    evidence = read(page.parent / "report.json")
    assert evidence.winner == requests[-1].design
    assert [r.seconds is None for r in evidence.ladder].index(True) == 3
    assert evidence.topic.vendor_seconds == pytest.approx(200e-6)
    text = (page.parent / "README.md").read_text()
    assert text.count("\n| ") == len(requests) + 1  # a line for each rung, and the heading
    assert "| 3 | 4 x 4 outputs a thread, in registers | failed |" in text
    assert "| 0 | naive: one thread, one output | 10 ms | 13,744 | 2.0% |  |" in text
    assert "| 1.33x | because |" in text
    assert "`atom.dot0=fma`" in text
    for picture in ("ladder", "roofline"):
        assert (page.parent / f"{picture}.png").stat().st_size > 1000
    assert "Nothing was searched" in page.read_text()


def test_a_ladder_without_its_best_rung_is_no_report(tmp_path, requests):
    saved(tmp_path, measured(requests, failed=len(requests) - 1))
    with pytest.raises(ArgumentError, match="last rung of the ladder failed"):
        write_ladders(tmp_path)


def test_without_results_the_command_is_named(tmp_path):
    with pytest.raises(ArgumentError, match="tilewright bench gemm --save"):
        write_ladders(tmp_path)


def test_results_of_a_gpu_have_its_name_and_their_place_in_the_readme(root, requests):
    assert [p.name[:9] for p in (root / "benchmarks" / "results").iterdir()] == ["gpu-h200-"]
    text = table.every_case(record.newest(root / "benchmarks" / "results", "gpu")[0][1], "file", [], "gemm")
    assert text.startswith("## h200, sm_90a, 132 SMs, ")
    assert "| 00 naive: one thread, one output | 1 | 10,000.0 | 13,744 |  | 2.0% [2.0, 2.0] |" in text


# ---------------------------------------------------------------------------------------------- the jobs
def test_a_run_that_is_cut_off_keeps_what_it_measured(root, requests, monkeypatch):
    """And adds to what another run of the day saved, without a run of its own for each result."""
    monkeypatch.chdir(root)
    launched = Result("gemm_launch", "a call", 1, {"us": 5.0})
    again = measured(requests)[3]
    runs = cli_bench._kept(iter([launched, again]), H200, "gpu")
    next(runs)
    (path,) = (root / "benchmarks" / "results").iterdir()
    assert launched.key in {r.key for r in record.load(path)["results"]}
    next(runs)
    loaded = record.load(path)
    assert len(loaded["runs"]) == 2
    assert not any(r.error for r in loaded["results"])
    assert len(loaded["results"]) == len(requests) + 1


def test_jobs_hold_each_case_once():
    steps = [(s.family, s.name) for job in gemm_jobs(GemmRequest()) for s in job.steps]
    assert len(set(steps)) == len(steps) > 100
    searched = [tuple(c) for job in gemm_jobs(GemmRequest()) if job.kind == "gemm" for c in job.options["cases"]]
    assert searched == [s for s in steps if s[0] not in ("gemm_search", "gemm_launch", "gemm_ladder")]


def test_shares_are_every_case_once():
    whole = gemm_jobs(GemmRequest("gemm_search"))[0].options["names"]
    shares = [gemm_jobs(GemmRequest("gemm_search", share=share_of(f"{n}/3")))[0].options["names"] for n in (1, 2, 3)]
    assert shares[0][:2] == [whole[0], whole[3]] and sorted(n for s in shares for n in s) == sorted(whole)
    for wrong in ("0/2", "3/2", "half", "1"):
        with pytest.raises(ArgumentError, match="1/2 and 2/2"):
            share_of(wrong)


def test_only_what_is_asked_for():
    (job,) = gemm_jobs(GemmRequest("gemm_ladder"))
    assert [s.name for s in job.steps] == gemm_ladder.names()
    name = "bf16 1x4096x4096"
    job, compared = gemm_jobs(GemmRequest(name, trials=7, known="known.json"))
    assert compared.options == {"names": [name], "trials": 7, "known": "known.json"}
    assert job.options == {"cases": [["gemm_small", name], ["gemm_chain", name]], "trials": 7}
    with pytest.raises(ArgumentError, match="gemm_small, gemm_chain, gemm_large"):
        gemm_jobs(GemmRequest("no such case"))
