"""`tilewright bench design`: enough cases, jobs that can be run alone, and judgements checked on made-up numbers."""

from __future__ import annotations

import random
import statistics

import pytest

from tilewright.bench import design_agree, design_model, design_race
from tilewright.bench.cpu import run_jobs
from tilewright.bench.design import DesignRequest, design_jobs
from tilewright.bench.design_cases import FAMILIES, KEYS, LLAMA_ROWS, RACES, case, grids, product_cases, speed_cases
from tilewright.bench.plan import estimate
from tilewright.bench.worker import JOBS
from tilewright.design.design import Design
from tilewright.design.legality import legal
from tilewright.design.space import enumerate_space
from tilewright.design.trial import Outcome, Standing, Trial
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine
from tilewright.runtime.subject import Subject

MACHINE = Machine.named("x86-avx512")


def subject_of(c) -> Subject:
    return Subject.of(c.operator, dict(c.sizes), c.dtype, machine=MACHINE, threads=1)


# -------------------------------------------------------------------------------------------------- cases
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_products_cover_what_people_run(dtype: str):
    cases = list(product_cases(dtype, "f"))
    shapes = {tuple(n for _, n in c.sizes) for c in cases}
    assert len(shapes) == len(cases) >= 24
    assert {(512, 512, 512), (1000, 777, 333)} <= shapes
    assert {m for m, n, k in shapes if k == 2048} >= set(LLAMA_ROWS)
    assert any(m >= 16 * n for m, n, _ in shapes) and any(n >= 16 * m for m, n, _ in shapes)


def test_twenty_keys_and_no_key_twice():
    assert len({c.name for c in KEYS}) == len(KEYS) == 20


@pytest.mark.parametrize("c", [*KEYS, *RACES, *speed_cases(False)], ids=lambda c: c.name)
def test_every_case_is_an_operator_at_sizes_it_takes(c):
    assert set(dict(c.sizes)) == set(subject_of(c).kernel.dims)


@pytest.mark.parametrize("quick", [False, True])
def test_grids_are_whole_and_legal(quick: bool):
    found = grids(quick)
    assert len({(g.case.operator, g.case.dtype) for g in found}) == 3
    for grid in found:
        subject = subject_of(grid.case)
        designs = enumerate_space(subject.kernel, subject.facts, grid.choices, Design.of(grid.base))
        assert len(designs) >= 20
        assert not any(legal(subject.kernel, d, subject.facts) for d in designs)


# --------------------------------------------------------------------------------------------------- jobs
def test_every_part_can_be_run_alone():
    for family in FAMILIES:
        jobs = design_jobs(DesignRequest((1, 2), family, amx=family == "design_amx"))
        assert {s.family for j in jobs for s in j.steps} == {family}
        assert all(j.kind in JOBS for j in jobs)


def test_one_case_can_be_run_alone():
    (job,) = design_jobs(DesignRequest((1,), "matmul f32 M=1000 N=777 K=333"))
    assert [s.name for s in job.steps] == ["matmul f32 M=1000 N=777 K=333"]


def test_the_short_form_takes_about_25_minutes_on_two_cores():
    quick, full = (estimate(design_jobs(DesignRequest((1, 2), quick=q))) for q in (True, False))
    assert 10 * 60 < quick < 27 * 60
    assert full > 2 * quick


def test_steps_are_the_cases_that_the_worker_will_give():
    for quick in (True, False):
        request = DesignRequest((1, 2), "matmul", quick)
        speed = [j for j in design_jobs(request) if j.kind == "design_speed"]
        assert [j.threads for j in speed] == [1, 2]
        assert [s.name for s in speed[0].steps] == [c.name for c in request.speed()]


def test_what_fits_nothing_is_refused():
    with pytest.raises(ArgumentError, match="the families are design_f32"):
        design_jobs(DesignRequest((1,), "sofmax"))


def test_bf16_products_have_a_floor_of_their_own_with_amx():
    names = {c.family for c in speed_cases(True)}
    assert names == {"design_f32", "design_amx", "design_rows"}


# --------------------------------------------------------------------------------------------- judgements
class Fake:
    """A runner for which every design takes a time that depends on its hash alone."""

    def __init__(self, *_: object, **__: object) -> None:
        self.asked = 0

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def seconds(self, design: Design) -> float:
        return 1e-3 * (1 + random.Random(design.hash).random())

    def evaluate(self, designs):
        self.asked += len(designs)
        return [Outcome("ok", self.seconds(d), (self.seconds(d),), 0.01) for d in designs]

    def compare(self, designs):
        times = [self.seconds(d) for d in designs]
        return [Standing(d, t, t / times[0], t / times[0], t / times[0]) for d, t in zip(designs, times, strict=True)]


def test_a_race_measures_each_design_once(monkeypatch):
    monkeypatch.setattr(design_race, "TrialRunner", Fake)
    result = design_race.race_result(case("design_race", "matmul", "f32", M=32, N=32, K=32), 1, trials=12, seeds=3)
    assert result.error is None
    assert result.metrics["over_random"] == pytest.approx(result.metrics["random_us"] / result.metrics["us"], rel=1e-4)
    early = [statistics.median(result.raw[f"{who}_seconds_early"]) for who in ("random", "search")]
    assert result.metrics["over_random_early"] == pytest.approx(early[0] / early[1], rel=1e-4)
    assert [len(c) for c in result.raw["curves"]["search"]] == [12] * 3
    assert [len(c) for c in result.raw["curves"]["random"]] == [12] * 3


def test_the_best_of_a_run_is_chosen_by_paired_rounds_and_not_by_its_luckiest_trial():
    """Trials that are off by their luck: the fastest by its trial is not the fastest."""
    designs = [Design.of({"tile.m": n}) for n in range(1, 9)]
    truth = {d: 1.0 + n / 10 for n, d in enumerate(designs)}
    luck = {d: 2.0 - n / 100 for n, d in enumerate(designs)}

    class Judge(Fake):
        def compare(self, designs):
            return [Standing(d, truth[d], truth[d] / truth[designs[0]], 1.0, 1.0) for d in designs]

    def run(some):
        return [Trial(d, 1.0, Outcome("ok", luck[d], (luck[d],), 0.01), None, None, 0.0) for d in some]

    assert design_race.chosen(Judge(), [run(designs[:4]), run(designs[4:])]) == [designs[0], designs[4]]
    beyond = design_race.chosen(Judge(), [run(designs)])  # of eight only those in front meet
    assert beyond == [designs[8 - design_race.FINALISTS]]


def test_remembered_outcomes_are_not_measured_again():
    inner = Fake()
    evaluator = design_race.Remembering(inner)
    a, b = Design.of({"tile.m": 1}), Design.of({"tile.m": 2})
    assert evaluator.evaluate([a, b, a]) == evaluator.evaluate([a, b, a])
    assert inner.asked == 2
    assert [s.ratio for s in evaluator.compare([a, b])] == [1.0, inner.seconds(b) / inner.seconds(a)]


def test_corrections_are_judged_on_what_they_were_not_taught():
    """Measurements are noise that no feature explains: a correction judged on its own lessons would look right."""
    rng = random.Random(0)
    rows = {Design.of({"tile.m": n}): ((float(n), rng.random()), 1.0 + n, 10 ** rng.uniform(-1, 1)) for n in range(80)}
    judged = design_model.corrected(rows)
    assert len(judged) == 80
    assert abs(design_model.spearman(judged)) < 0.5


@pytest.mark.parametrize(
    ("repeat", "passes", "highest"), [(1.0, 2, 1.0), (0.5, 1, 0.7071), (0.5, 2, 0.8165), (0.0, 2, 0)]
)
def test_no_prediction_is_better_than_two_measurements_allow(repeat, passes, highest):
    assert design_model.ceiling(repeat, passes) == pytest.approx(highest, abs=1e-4)


def test_the_ceiling_is_what_the_truth_itself_reaches():
    """Many true times, each measured twice with noise: their mean's correlation with the truth is the ceiling's."""
    rng = random.Random(0)
    truth = [rng.gauss(0.0, 1.0) for _ in range(4000)]
    one, two = ([t + rng.gauss(0.0, 1.0) for t in truth] for _ in range(2))
    repeat = design_model.spearman(list(zip(one, two, strict=True)))
    reached = design_model.spearman([(t, a + b) for t, a, b in zip(truth, one, two, strict=True)])
    assert design_model.ceiling(repeat, 2) == pytest.approx(reached, abs=0.02)


def test_drift_between_groups_is_taken_off_by_their_anchor():
    """A machine that is slower from group to group: told by the anchor, every design keeps its time."""
    designs = [Design.of({"tile.m": n}) for n in range(1, 30)]

    class Drifting(Fake):
        slower = 1.0

        def compare(self, designs):
            self.slower *= 1.5
            times = [self.slower * self.seconds(d) for d in designs]
            return [Standing(d, t, t / times[0], 1.0, 1.0) for d, t in zip(designs, times, strict=True)]

    runner = Drifting()
    told = design_model.paired(runner, designs, seed=0)
    assert set(told) == set(designs)
    ratios = {d: told[d][0] / runner.seconds(d) for d in designs}
    assert max(ratios.values()) == pytest.approx(min(ratios.values()))


def test_the_model_is_judged_by_the_exhaustive_best(monkeypatch):
    monkeypatch.setattr(design_model, "TrialRunner", Fake)
    grid = grids(True)[1]
    result = design_model.model_result(grid, 1)
    fake = Fake()
    designs = [Design.from_json(d["design"]) for d in result.raw["designs"]]
    best = min(map(fake.seconds, designs))
    ranked = sorted(result.raw["designs"], key=lambda d: d["predicted"])
    first = fake.seconds(Design.from_json(ranked[0]["design"]))
    assert result.metrics["designs"] == len(designs)
    assert result.metrics["of_best"] <= result.metrics["of_best_16"] <= 1.0
    if ranked[0]["predicted"] < ranked[1]["predicted"]:
        assert result.metrics["of_best"] == pytest.approx(best / first, rel=1e-4)


def test_two_books_know_nothing_of_each_other(monkeypatch):
    seen = []

    class Found:
        def __init__(self, seed: int) -> None:
            self.design = Design.of({"tile.m": 1 + seed % 2})
            self.trials, self.compiles = (0, 0) if seed < 0 else (5, 5)
            self.seconds, self.speedup = 1e-3, 1.1

    def search(operator, *, book, seed=-2, **_):
        seen.append((operator, id(book), seed))
        return Found(seed)

    monkeypatch.setattr(design_agree, "search", search)
    (result,) = design_agree.agree_results(KEYS[:1], 1, "5 trials")
    assert (result.name, result.metrics["same"]) == (KEYS[0].name, 0.0)
    assert result.metrics["trials_again"] == result.metrics["compiles_again"] == 0
    assert len({book for _, book, _ in seen}) == 2
    assert [seed for _, _, seed in seen] == [0, 1, -2]


def test_a_case_that_fails_is_a_result(monkeypatch):
    monkeypatch.setattr(design_race, "race_result", lambda *_: (_ for _ in ()).throw(ArgumentError("no such thing")))
    (result,) = design_race.race_results(RACES[:1], 1, 4, 1)
    assert result.error == "ArgumentError: no such thing"


def test_a_job_runs_in_a_process_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path))
    (job,) = design_jobs(DesignRequest((1,), "matmul f32 M=127 N=129 K=131"))
    short = type(job)(job.kind, job.threads, job.steps, {**job.options, "budget": "3 trials"})
    (result,) = run_jobs([short])
    assert result.error is None
    assert result.metrics["ratio"] > 0
    assert result.metrics["error_over_bound"] <= 1
    assert Design.from_json(result.raw["design"])
