"""What meetings in several processes say together: processes that favour designs cancel, and what is left is told."""

import math

import pytest
from landscapes import SILU, Noisy

from tilewright.design.default import default_design
from tilewright.design.meetings import together
from tilewright.design.mutations import steps
from tilewright.design.trial import Standing

DESIGNS = [default_design(SILU.kernel, SILU.facts)]
DESIGNS += [d for _, d in steps(SILU.kernel, DESIGNS[0], SILU.facts)][:5]
TRUE = dict(zip(DESIGNS, (1.0, 0.98, 1.01, 0.97, 1.2, 1.5), strict=True))


def meet(evaluator, designs, times):
    """That many meetings, each in a process of its own."""
    meetings = []
    for _ in range(times):
        evaluator.renew()
        meetings.append(evaluator.compare(designs))
    return meetings


def error(standings):
    """The farthest that a ratio lies from the truth."""
    return max(abs(math.log(s.ratio / TRUE[s.design])) for s in standings)


def test_exact_meetings_of_some_of_the_designs_give_every_ratio():
    """The third design never meets the fourth, and no meeting but the first has the default in front of others."""
    exact = Noisy(TRUE.__getitem__, paired=1e-9)
    parts = (DESIGNS[:3], [DESIGNS[0], *DESIGNS[3:]], [DESIGNS[0], DESIGNS[1], DESIGNS[5]])
    standings = together([exact.compare(part) for part in parts], 0.004)
    assert {s.design for s in standings} == set(DESIGNS)
    assert error(standings) < 1e-6


def test_what_a_process_favours_cancels_as_processes_grow_in_number():
    """One process is off by some percent, however closely it tells a ratio; sixteen are off by a quarter of that."""
    offs = {}
    for times in (1, 16):
        runs = [Noisy(TRUE.__getitem__, seed, process=0.02, paired=1e-6) for seed in range(12)]
        offs[times] = sum(error(together(meet(run, DESIGNS, times), 0.02)) for run in runs) / len(runs)
    assert offs[1] > 0.02
    assert 0.15 < offs[16] / offs[1] < 0.4


def test_an_interval_knows_of_processes_what_no_meeting_shows():
    one = together(meet(Noisy(TRUE.__getitem__, process=0.01, paired=1e-6), DESIGNS, 1), 0.01)
    four = together(meet(Noisy(TRUE.__getitem__, process=0.01, paired=1e-6), DESIGNS, 4), 0.01)
    assert [s.high / s.ratio - 1 for s in one] == pytest.approx([0.02] * 6, rel=0.05)
    assert all(s.high / s.ratio - 1 < 0.75 * 0.02 for s in four)
    assert [s.noise for s in four] == pytest.approx([s.high / s.ratio - 1 for s in four])


def test_meetings_that_differ_by_more_than_is_expected_widen_the_intervals():
    calm, wild = (
        together(meet(Noisy(TRUE.__getitem__, 3, process=p, paired=1e-6), DESIGNS, 6), 0.004) for p in (0.004, 0.04)
    )
    assert wild[0].noise > 4 * calm[0].noise


def test_a_process_that_tells_one_design_wholly_otherwise_counts_little():
    meetings = meet(Noisy(TRUE.__getitem__, 1, process=0.003, paired=1e-6), DESIGNS, 8)
    odd = meetings[2][3]
    meetings[2][3] = Standing(odd.design, odd.seconds * 1.25, odd.ratio * 1.25, odd.low * 1.25, odd.high * 1.25)
    plain_mean = math.log(1.25) / 8
    assert error(together(meetings, 0.004)) < plain_mean / 3


def test_a_design_that_failed_once_is_infinitely_slow():
    meetings = meet(Noisy(TRUE.__getitem__, paired=1e-6), DESIGNS, 2)
    meetings[1][2] = Standing(DESIGNS[2], math.inf, math.inf, math.inf, math.inf)
    by_design = {s.design: s for s in together(meetings, 0.004)}
    assert math.isinf(by_design[DESIGNS[2]].ratio)
    assert all(math.isfinite(by_design[d].ratio) for d in DESIGNS if d != DESIGNS[2])


def test_of_one_process_its_own_intervals_stand():
    meetings = [Noisy(TRUE.__getitem__, paired=0.002).compare(DESIGNS) for _ in range(2)]
    known = {s.design: s for s in together(meetings, 0.0)}
    alone = {s.design: s for s in together(meetings[:1], 0.0)}
    for design in DESIGNS[1:]:
        assert math.log(alone[design].high / alone[design].low) == pytest.approx(0.008, rel=0.1)
        assert math.log(known[design].high / known[design].low) == pytest.approx(0.008 / math.sqrt(2), rel=0.1)
        assert known[design].noise == meetings[0][1].noise


def test_meetings_count_most_in_which_the_machine_was_fastest():
    """Where others take their share of the memory, a design that moves more of it is the slower one."""
    calm = [Standing(d, 1e-4 * t, t, t * 0.999, t * 1.001) for d, t in TRUE.items()]
    busy = [Standing(d, 1.5e-4 * t, t * (1.1 if n == 3 else 1.0), t, t * 1.2) for n, (d, t) in enumerate(TRUE.items())]
    told = {s.design: s.ratio for s in together([calm, busy, busy], 0.01)}
    assert told[DESIGNS[3]] == pytest.approx(TRUE[DESIGNS[3]], rel=0.02)
