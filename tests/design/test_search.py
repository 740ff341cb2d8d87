"""Search on landscapes without a machine: it beats random, two searches choose alike, it can be cut off anywhere."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from landscapes import LANDSCAPES, SILU, Landscape, Noisy, normal
from programs import facts, traced

from tilewright.design import strategies
from tilewright.design.cost import estimate
from tilewright.design.default import default_design
from tilewright.design.finals import OWN_PROCESSES
from tilewright.design.search import search
from tilewright.design.trial import Budget, Objective, Outcome, Trial
from tilewright.errors import ArgumentError, VerificationError

SMALL = SILU


def run(scape, evaluator=None, trials=24, **options):
    evaluator = evaluator or Noisy(scape.seconds)
    return search(scape.kernel, scape.facts, evaluator, model=scape.model, budget=Budget(trials=trials), **options)


def best(scape, result):
    """The true seconds of the best design that was tried."""
    return min(scape.seconds(t.design) for t in result.trials if t.outcome.status == "ok")


# -------------------------------------------------------------------------------------- what it finds
@pytest.mark.parametrize("scape", LANDSCAPES, ids=lambda s: f"{s.name}-{s.seed}")
def test_search_beats_random_at_equal_trials(scape):
    """The median of five seeds, by the true times."""
    found = {}
    for strategy in ("evolve", "random"):
        runs = [run(scape, Noisy(scape.seconds, seed), 40, strategy=strategy, seed=seed) for seed in range(5)]
        assert {len(r.trials) for r in runs} == {40}
        found[strategy] = statistics.median(best(scape, r) for r in runs)
    # What is tried hangs on a champion that ties with the best, so that two searches go alike: that may cost a little.
    assert found["evolve"] < found["random"] * 1.02


def test_a_kind_that_the_model_wrongs_is_found_by_one_trial_of_it():
    """Tiles loaded in place take half of what the model says, which puts them 1.4 times behind packed ones."""
    kernel = traced("matmul", "bf16", activation=None)
    known = facts(kernel, "sapphire-rapids", M=16, N=2048, K=2048)

    def lies_in_place(design):
        return str(design.get("atom.dot0")).startswith("amx") and not list(design.prefixed("local"))

    def model(design):
        return estimate(kernel, design, known).seconds * (1.85 if lies_in_place(design) else 1.0)

    evaluator = Noisy(lambda d: model(d) * (0.5 if lies_in_place(d) else 1.0), 0)
    found = search(kernel, known, evaluator, model=model, budget=Budget(trials=32))
    assert lies_in_place(found.winner)
    best_packed = min(model(t.design) for t in found.trials if not lies_in_place(t.design))
    assert 1.35 < min(model(t.design) for t in found.trials if lies_in_place(t.design)) / best_packed < 1.5


def test_the_winner_is_among_the_best_that_were_tried():
    for scape in LANDSCAPES[:2]:
        result = run(scape, trials=48)
        assert scape.seconds(result.winner) <= (1 + OWN_PROCESSES.tie) * best(scape, result)
        assert result.seconds == pytest.approx(scape.seconds(result.winner), rel=0.02)
        assert result.default_seconds == pytest.approx(scape.seconds(result.trials[0].design), rel=0.02)


def test_the_default_is_trial_0_and_keeps_its_place_within_noise():
    flat = Noisy(lambda _: 1e-4)
    result = run(SMALL, flat)
    assert result.trials[0].design == result.winner == default_design(SMALL.kernel, SMALL.facts)


@pytest.mark.parametrize("process, least", [(0.0, 19), (0.003, 18), (0.01, 17)])
def test_two_searches_choose_the_same_design(process, least):
    """20 keys, each searched twice, by other seeds and under other noise: at least 19 choose alike.

    Times have a roof, as on machines, so that many designs are about as good; a trial is right to 0.6%, paired rounds
    to 0.2%. Where each process also favours designs, by 0.3% (as a standard deviation; on a quiet Zen 4 it is 0.1 to
    0.4% for 19 of 20 keys) or by 1%, more designs lie at an edge within what is left of the noise, and one or two keys
    more part; what is sure there, `test_finals` says of keys without such a design.
    """
    shapes = [(1, 4096, 4096), (16, 4096, 1024), (64, 1024, 4096), (512, 512, 512)]
    keys = [("matmul", {"M": m, "N": n, "K": k}) for m, n, k in shapes]
    keys += [(name, {}) for name in ("rmsnorm", "softmax", "silu", "scale_add", "layernorm", "swiglu")]
    same = 0
    for n, (operator, sizes) in enumerate([(o, s) for o, s in keys for _ in range(2)]):
        scape = Landscape.of(operator, 200 + n, ("bf16", "f32")[n % 2], error=0.1, rough=0.01, **sizes)
        noisy = [Noisy(scape.under_roof, seed, drift=0.006, process=process) for seed in (1, 2)]
        winners = [run(scape, evaluator, 40, seed=seed).winner for seed, evaluator in enumerate(noisy)]
        same += winners[0] == winners[1]
    assert same >= least


# ------------------------------------------------------------------------------------ going on, ending
@pytest.mark.parametrize("strategy", ["evolve", "beam", "random"])
def test_the_same_answers_give_the_same_trials(strategy):
    runs = [run(SMALL, Noisy(SMALL.seconds, 3), strategy=strategy, seed=5) for _ in range(2)]
    assert [(t.design, t.parent, t.mutation) for t in runs[0].trials] == [
        (t.design, t.parent, t.mutation) for t in runs[1].trials
    ]
    assert runs[0].winner == runs[1].winner
    assert len({t.design for t in runs[0].trials}) == len(runs[0].trials)


@pytest.mark.parametrize("kept", [0, 1, 9, 25, 33, 36])
def test_a_search_that_was_cut_off_goes_on_as_if_it_had_not_been(kept):
    """All that is needed is in the trials, as text: what they answer is not measured again."""

    def stable(design):  # an evaluator whose noise belongs to the design, so that answers are the same again
        return SMALL.seconds(design)

    whole = run(SMALL, Noisy(stable, drift=0.0, paired=1e-9), 40)
    text = [json.dumps(t.to_dict()) for t in whole.trials[:kept]]
    evaluator = Noisy(stable, drift=0.0, paired=1e-9)
    resumed = run(SMALL, evaluator, 40, resume=[Trial.from_dict(json.loads(t)) for t in text])
    assert [t.design for t in resumed.trials] == [t.design for t in whole.trials]
    assert resumed.winner == whole.winner
    assert evaluator.evaluated == [t.design for t in whole.trials[kept:]]


def test_rounds_that_an_earlier_search_recorded_are_not_held_again():
    kept: list[Trial] = []
    whole = run(SMALL, Noisy(SMALL.seconds, 1), 40, progress=lambda p: kept.extend(p.new))
    assert any(t.met for t in kept)
    evaluator = Noisy(SMALL.seconds, 99)  # other noise: what it would answer is not what was recorded
    resumed = run(SMALL, evaluator, 40, resume=kept)
    assert [t.design for t in resumed.trials] == [t.design for t in whole.trials]
    assert evaluator.evaluated == []
    assert len(evaluator.compared) <= 6  # those of the very end


def test_ctrl_c_ends_with_what_there_is():
    class Interrupted(Noisy):
        def evaluate(self, designs):
            if len(self.evaluated) > 10:
                raise KeyboardInterrupt
            return super().evaluate(designs)

    result = run(SMALL, Interrupted(SMALL.seconds))
    assert result.stopped == "interrupted"
    assert len(result.trials) == 17
    assert result.winner in {t.design for t in result.trials}


def test_progress_tells_of_every_trial_once():
    told = []
    result = run(SMALL, progress=told.append)
    assert tuple(t for p in told for t in p.new) == result.trials
    assert [p.trials_left for p in told] == [23, 15, 7, 0]
    assert told[-1].best is not None
    assert told[-1].seconds_left is None


def test_a_budget_of_seconds_leaves_time_for_the_finals():
    now = iter(range(1000))
    result = search(
        SMALL.kernel, SMALL.facts, Noisy(SMALL.seconds), model=SMALL.model, budget=Budget(seconds=20.0),
        clock=lambda: float(next(now)),
    )  # fmt: skip
    assert result.stopped == "budget"
    assert 1 < len(result.trials) < 100
    assert result.standings


# --------------------------------------------------------------------------------- objectives, failures
def test_a_target_ends_at_the_first_design_that_meets_it():
    evaluator = Noisy(SMALL.seconds, drift=0.0)
    target = 0.8 * SMALL.seconds(default_design(SMALL.kernel, SMALL.facts))
    result = run(SMALL, evaluator, 64, objective=Objective("target", target))
    assert result.stopped == "target"
    first = next(t for t in result.trials if t.outcome.seconds <= target)
    assert result.winner == first.design
    assert not any(t.outcome.seconds <= target for t in result.trials[: result.trials.index(first)])
    assert evaluator.compared == []


def test_near_the_roofline_there_is_nothing_to_find():
    result = run(SMALL, trials=64, floor=SMALL.seconds(default_design(SMALL.kernel, SMALL.facts)))
    assert result.stopped == "roofline"
    assert len(result.trials) == 1


def test_the_roofline_ends_no_search_before_it_tried_what_all_searches_try():
    """When a trial comes so near hangs on its noise: finals of either choose among the same designs all the same."""
    best = min(SMALL.seconds(t.design) for t in run(SMALL, trials=24).trials)
    floor = 1.02 * best / 1.05  # the default is farther off
    ended = [run(SMALL, Noisy(SMALL.seconds, seed, drift=0.02), 64, seed=seed, floor=floor) for seed in range(6)]
    tried = [{t.design for t in r.trials if t.mutation is None} for r in ended]
    assert {r.stopped for r in ended} == {"roofline"}
    assert all(designs == tried[0] for designs in tried)
    assert len({r.winner for r in ended}) == 1


def test_a_space_that_is_used_up_ends_the_search(monkeypatch):
    monkeypatch.setattr(strategies, "random_design", lambda kernel, facts, _: default_design(kernel, facts))
    result = run(SMALL, trials=100, strategy="random")
    assert result.stopped == "exhausted"
    assert len(result.trials) == 1


def test_designs_that_fail_are_kept_with_their_reason_and_never_chosen():
    broken = Outcome("crash", reason="signal 11")
    default = default_design(SMALL.kernel, SMALL.facts)
    evaluator = Noisy(SMALL.seconds, fails=lambda d: broken if d != default and int(d.hash, 16) % 3 == 0 else None)
    result = run(SMALL, evaluator, 40)
    failed = [t for t in result.trials if t.outcome.status == "crash"]
    assert failed
    assert all(t.outcome.reason == "signal 11" for t in failed)
    assert result.winner not in {t.design for t in failed}
    assert all(map(math.isfinite, result.curve))


def test_designs_in_quarantine_are_not_tried():
    first = run(SMALL)
    barred = {t.design.hash: "wrong" for t in first.trials[1::2]}
    second = run(SMALL, quarantined=barred)
    assert not barred.keys() & {t.design.hash for t in second.trials}
    assert len(second.trials) == len(first.trials)


def test_where_nothing_works_the_reason_is_told():
    nothing = Noisy(SMALL.seconds, fails=lambda _: Outcome("compile", reason="no memory"))
    with pytest.raises(VerificationError, match="no design of silu works; the default: compile, no memory"):
        run(SMALL, nothing)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"budget": Budget()}, "the budget has no limit; give it seconds, trials or both"),
        ({"budget": Budget(trials=3), "objective": Objective("target")}, "a target needs its seconds"),
        ({"budget": Budget(trials=3), "strategy": "luck"}, "it is one of evolve, beam, random"),
    ],
)
def test_what_cannot_be_asked(options, message):
    with pytest.raises(ArgumentError, match=message):
        search(SMALL.kernel, SMALL.facts, Noisy(SMALL.seconds), model=SMALL.model, **options)


def kind(design):
    """What kind of kernel a design is: instructions, packing and lanes, and which axes have blocks."""
    kept = [(n, c) for n, c in design.decisions if n.partition(".")[0] in ("atom", "pack", "local", "unpack", "lanes")]
    return (*kept, *((n, True) for n, _ in design.decisions if n.startswith("block.")))


@pytest.mark.parametrize("operator, sizes", [("matmul", {"M": 64, "N": 1024, "K": 1024}), ("rmsnorm", {})])
def test_search_beats_random_where_the_cost_model_is_the_guide(operator, sizes):
    """The shipped model guides; the truth is its estimate, 20% off for each kind of kernel and 3% for each design."""
    scape = Landscape.of(operator, 1, "f32", **sizes)

    def model(design):
        return estimate(scape.kernel, design, scape.facts).seconds

    def truth(design):
        off = 0.2 * normal(operator, kind(design)) + 0.03 * normal(operator, design.hash)
        return model(design) * math.exp(off)

    found = {}
    for strategy in ("evolve", "random"):
        runs = [
            search(
                scape.kernel, scape.facts, Noisy(truth, seed), model=model, budget=Budget(trials=32),
                strategy=strategy, seed=seed,
            )
            for seed in range(3)
        ]  # fmt: skip
        found[strategy] = statistics.median(min(truth(t.design) for t in r.trials) for r in runs)
    assert found["evolve"] < found["random"]
