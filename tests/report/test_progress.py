"""What a user sees while a search runs, and when it has ended."""

from __future__ import annotations

import pytest

from tilewright.design.trial import Progress
from tilewright.report.progress import line, search_bar, share_done

from .fakes import walked

TRIALS = walked(6, 0, True)
BEST = min((t for t in TRIALS if t.outcome.seconds), key=lambda t: t.outcome.seconds or 0)


def seen(seconds_left: float | None, trials_left: int | None, best=BEST) -> Progress:
    return Progress(TRIALS, TRIALS[-2:], best, seconds_left, trials_left)


def test_best_so_far_trials_and_time_left():
    assert line(seen(31.4, None)).endswith("ms, 6 trials, 31 s left")
    assert line(seen(None, 10)).endswith(", 6 trials, 10 left")
    assert line(seen(5.0, None, best=None)) == "no design works yet, 6 trials, 5 s left"


@pytest.mark.parametrize(
    ("seconds_left", "trials_left", "share"),
    [(30.0, None, 0.25), (None, 18, 0.25), (30.0, 2, 0.75), (None, None, None)],
)
def test_the_bar_follows_what_runs_out_first(seconds_left, trials_left, share):
    assert share_done(seen(seconds_left, trials_left), elapsed=10.0) == share


def test_the_bar_is_on_stderr_and_goes_away(capsys):
    with search_bar("matmul") as tell:
        tell(seen(31.4, None))
        tell(seen(None, None))
    assert capsys.readouterr().out == ""
