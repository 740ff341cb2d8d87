"""The learner: what triggers is designed once, swapped in or kept out, and no failure of it reaches a call."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from fake_background import Clock, FakeBackground, faster, learner, unverified

from tilewright import ops
from tilewright.design.book.record import Record
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.runtime import dispatch, events, promotion
from tilewright.runtime.background_worker import subject_of
from tilewright.runtime.child import ChildDied
from tilewright.runtime.learner import job_of
from tilewright.runtime.trigger import Trigger

pytestmark = pytest.mark.usefixtures("table")


@pytest.fixture
def background(tmp_path):
    return FakeBackground(tmp_path)


class Product:
    """A bound product whose result is checked at each call."""

    def __init__(self, rows=24, columns=48, depth=32):
        random = np.random.default_rng(rows)
        self.x = random.standard_normal((rows, depth), np.float32)
        self.w = random.standard_normal((columns, depth), np.float32)
        self.y = np.empty((rows, columns), np.float32)
        self.exact = self.x.astype(np.float64) @ self.w.T.astype(np.float64)
        self.launch = ops.linear.bind(self.x, self.w, out=self.y)

    def __call__(self, times=1):
        for _ in range(times):
            self.y.fill(np.nan)
            self.launch()
            np.testing.assert_allclose(self.y, self.exact, rtol=1e-5, atol=1e-4)
        return self.y.copy()


def same_as_generic(job):
    (slot,) = dispatch.TABLE.slots()
    answer = faster(job)
    generic = slot.origin.request(dict(slot.common)).design
    return {**answer, "record": {**answer["record"], "design": json.loads(generic.to_json())}}


def same_as_generic_of(job):
    """The default design of whatever the job is about."""
    subject = subject_of(job)
    return faster(job, design=default_design(subject.kernel, subject.facts))


def test_nothing_happens_before_the_trigger_and_one_search_after_it(table, background):
    product, learning = Product(), learner(table, background)
    product(2)
    assert not learning.step()
    product()
    assert learning.step()
    product(10)
    learning.step()
    learning.step()
    assert [job["job"] for job in background.jobs] == ["design", "verify", "verify"]
    assert not learning.step()
    job = background.jobs[0]
    assert (dict(job["sizes"]), job["operator"], job["threads"]) == ({"M": 24, "K": 32, "N": 48}, "matmul", 1)


def test_a_launch_in_hand_uses_the_new_kernel_from_its_next_call_on(table, background):
    product, learning = Product(), learner(table, background)
    product(3)
    before = product.launch.kernel
    learning.step()
    product()
    (row,) = table.rows()
    assert product.launch.kernel is not before
    assert product.launch.kernel.design.hash == row.design
    assert (row.calls, row.hits, row.misses, row.swaps, row.state) == (4, 1, 3, 1, "specialised")
    assert learning.status().promoted == 1
    assert [e.kind for e in events.events()][-3:] == ["trigger", "search", "promote"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (unverified, "not verified"),
        (lambda job: faster(job, by=1.005, noise=0.01), "no more than the noise"),
        (same_as_generic, "no design is faster"),
    ],
    ids=["unverified", "noise", "the default"],
)
def test_what_is_not_verified_or_not_faster_is_not_swapped_in(table, background, found, why):
    background.found = found
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    (row,) = table.rows()
    assert (row.state, row.design, row.swaps) == ("kept generic", None, 0)
    assert why in row.reason
    assert learning.status().kept == 1


def test_a_failed_check_in_spare_time_takes_the_kernel_out_again(table, background):
    background.verdict = "wrong"
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    product()
    learning.step()
    product()
    (row,) = table.rows()
    assert (row.state, row.design, row.swaps) == ("rolled back", None, 2)
    assert "an element is off" in row.reason
    assert (row.hits, row.misses) == (1, 4)
    assert not learning.step()
    assert background.jobs[-1]["seed"] != background.jobs[0]["seed"]


def test_a_background_that_dies_is_asked_once_more_and_the_shape_is_then_given_up(table, background):
    background.found = ChildDied("crash", "SIGSEGV: it wrote at 0")
    product, learning = Product(), learner(table, background)
    product(3)
    assert learning.step()
    assert table.rows()[0].state == "queued"
    assert learning.step()
    assert not learning.step()
    (row,) = table.rows()
    assert (row.state, row.reason) == ("given up", "SIGSEGV: it wrote at 0")
    assert learning.status().crashes == 2
    product(5)


def test_a_search_that_was_paused_goes_on_later(table, background):
    answers = [{"status": "paused", "seconds": 1.0}, None]
    background.found = lambda job: answers.pop(0) or faster(job)
    product, learning = Product(), learner(table, background, queue=4)
    product(3)
    learning.pressure(queue=5)
    assert background.gate.closed
    assert not learning.step()
    assert learning.status().state == "paused"
    learning.pressure(queue=0)
    assert not background.gate.closed
    learning.step()
    assert table.rows()[0].state == "queued"
    learning.step()
    assert table.rows()[0].state == "specialised"


def test_latency_over_its_bound_pauses_too(table, background):
    learning = learner(table, background, p99=0.1)
    learning.pressure(p99=0.2)
    assert background.gate.closed
    learning.pressure(p99=0.1)
    assert not background.gate.closed


def test_when_its_seconds_of_the_hour_are_used_it_waits_for_the_next(table, background):
    clock = Clock()
    learning = learner(table, background, clock=clock, seconds_an_hour=1.0)
    first, second = Product(), Product(rows=200)
    first(3)
    learning.step()
    second(3)
    assert not learning.step()
    assert learning.status().state == "over budget"
    clock.now += 3601
    assert learning.step()
    assert {r.state for r in table.rows()} == {"specialised"}


def test_what_takes_the_most_time_is_designed_first(table, background):
    """Not what is called most often: a large product counts for more than many small ones."""
    learning = learner(table, background)
    small, large = Product(rows=3), Product(rows=700, columns=400, depth=500)
    small(9)
    large(3)
    learning.step()
    assert dict(background.jobs[0]["sizes"])["M"] == 700


def test_an_operator_of_which_nothing_was_saved_comes_last(table, background):
    """A small norm is searched before the large product, once a search of products has found nothing."""
    background.found = same_as_generic_of
    learning = learner(table, background)
    Product(rows=24)(3)
    learning.step()
    large, x, weight = (
        Product(rows=700, columns=96, depth=64),
        np.ones((300, 256), np.float32),
        np.ones(256, np.float32),
    )
    norm = ops.rmsnorm.bind(x, weight, out=np.empty_like(x))
    large(3)
    for _ in range(3):
        norm()
    slots = {s.shape.operator: s for s in table.slots() if s.state == "generic"}
    slots["matmul"]._others.seconds, slots["rmsnorm"]._others.seconds = 0.0, 0.0
    for slot, seconds in ((slots["matmul"], 2e-3), (slots["rmsnorm"], 1e-3)):
        for tally in slot._sizes.values():
            tally.seconds = seconds
    learning.step()
    assert background.jobs[-1]["operator"] == "rmsnorm"


@pytest.mark.parametrize("mode", ["frozen", "generic"])
def test_in_other_modes_it_does_nothing(table, background, monkeypatch, mode):
    monkeypatch.setenv("TILEWRIGHT_MODE", mode)
    with warnings.catch_warnings(record=True):  # frozen mode says once that it had to compile
        product, learning = Product(), learner(table, background)
    product(5)
    assert not learning.active
    assert not learning.step()
    assert background.jobs == []


def test_pinned_a_kernel_that_would_change_bits_is_not_used(table, background, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    background.found = lambda job: faster(job, unroll__k=3)
    product, learning = Product(), learner(table, background)
    before = product(3)
    learning.step()
    assert table.rows()[0].state == "specialised"
    after = product()
    assert before.tobytes() == after.tobytes()
    assert product.launch.kernel.design.hash != table.rows()[0].design


def test_a_users_own_program_is_learnt_from_its_text(table, background):
    product, learning = Product(), learner(table, background, trigger=Trigger(count=1, payback=None))
    product()
    (slot,) = table.slots()
    slot.origin = dispatch.Origin(slot.origin.program, slot.origin.layouts, object(), ())
    learning.step()
    assert background.jobs[0]["operator"] is None
    assert table.rows()[0].state == "specialised"
    product()


def test_an_answer_that_is_illegal_here_is_given_up(table, background):
    background.found = lambda job: faster(job, design=Design.of({"tile.m": 64, "tile.n": 64, "lanes": ("n",)}))
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    (row,) = table.rows()
    assert (row.state, row.design) == ("given up", None)
    assert "illegal" in row.reason
    product()


# ---------------------------------------------------------------------------------------- first looks
@pytest.fixture
def beside(monkeypatch):
    """As on a GPU: jobs name a generic design, which is not the default one of a slot's sizes."""
    told = dispatch.Origin.job

    def job(self, sizes):
        return {**told(self, sizes), "beside": self.generic_design(sizes).to_json()}

    monkeypatch.setattr(dispatch.Origin, "job", job)
    monkeypatch.setattr(dispatch.Origin, "looks", True)


def designs_asked(background):
    return [(job["trials"], job["look"], job["deeper"]) for job in background.jobs if job["job"] == "design"]


def test_a_first_look_swaps_and_a_long_search_follows_once(table, background, beside):
    unrolls = iter([3, 5])
    background.found = lambda job: faster(job, unroll__k=next(unrolls))
    product, learning = Product(), learner(table, background, trials=9)
    product(3)
    assert learning.step()
    (row,) = table.rows()
    assert (row.state, row.swaps, learning.status().queued) == ("specialised", 1, 1)
    assert learning.step()
    product()
    assert table.rows()[0].swaps == 2
    while learning.step():
        pass
    assert designs_asked(background) == [(1, True, False), (9, False, True)]
    status = learning.status()
    assert (status.searches, status.looks, status.promoted) == (2, 1, 2)


@pytest.mark.parametrize(
    "answer", [{"status": "same", "seconds": 0.1}, {"error": "no design works", "seconds": 0.1}], ids=["same", "error"]
)
def test_a_look_that_shows_nothing_is_followed_by_a_search(table, background, beside, answer):
    background.found = lambda job: answer if job["look"] else faster(job)
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    assert table.rows()[0].state == "kept generic"
    learning.step()
    assert table.rows()[0].state == "specialised"
    product()


@pytest.mark.parametrize("later", [faster, same_as_generic_of], ids=["the same", "the generic one"])
def test_a_long_search_that_finds_nothing_better_leaves_the_kernel_of_the_look(table, background, beside, later):
    background.found = lambda job: faster(job) if job["look"] else later(job)
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    learning.step()
    product()
    (row,) = table.rows()
    assert (row.state, row.swaps, row.hits) == ("specialised", 1, 1)
    assert learning.status().kept == 1


def test_all_slots_are_looked_at_before_one_is_searched_at_length(table, background, beside):
    learning = learner(table, background)
    for rows in (3, 24, 200):
        Product(rows=rows)(3)
    for _ in range(4):
        learning.step()
    assert [look for _, look, _ in designs_asked(background)] == [True, True, True, False]


def test_a_search_begun_while_a_kernel_is_in_use_that_dies_leaves_it(table, background, beside):
    background.found = faster
    product, learning = Product(), learner(table, background)
    product(3)
    learning.step()
    background.found = ChildDied("crash", "SIGSEGV: it wrote at 0")
    assert learning.step()
    assert learning.step()
    product()
    (row,) = table.rows()
    assert (row.swaps, row.hits, row.state) == (1, 1, "specialised")


@pytest.mark.parametrize("answer", ["searched", "better"])
def test_what_the_book_brought_is_searched_at_length_where_it_pays(table, background, beside, answer):
    """It may be the design of a first look of an earlier process; a longer search is not made twice."""

    def better(job):
        return faster(job, unroll__k=3)

    background.found = (lambda _: {"status": "searched", "seconds": 0.1}) if answer == "searched" else better
    product, learning = Product(), learner(table, background)
    (slot,) = table.slots()
    special = Record.from_dict(faster({**job_of(slot), "numerics": "free"})["record"])
    promotion.promote(slot, special)
    slot.fixed = True
    before = slot.special
    product(3)
    learning.step()
    product()
    assert designs_asked(background) == [(learning.budget.trials, False, True)]
    assert table.rows()[0].state == "specialised"
    assert (slot.special is before) == (answer == "searched")
    while learning.step():
        pass
    assert len(designs_asked(background)) == 1
