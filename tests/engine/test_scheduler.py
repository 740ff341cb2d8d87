"""The scheduler: first come first served, prompts in chunks beside the decodes, rows always packed."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.engine.scheduler import Move, Scheduler


class FakeRequest(SimpleNamespace):
    """The part of a request that the scheduler knows."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @property
    def prompt_left(self):
        return len(self.prompt_ids) - self.cached


def request(tokens):
    return FakeRequest(prompt_ids=[0] * tokens, cached=0, row=-1, finished=False)


def scheduler(*prompts, max_batch=4, chunk=8):
    s = Scheduler(max_batch, chunk)
    requests = [request(n) for n in prompts]
    for r in requests:
        s.add(r)
    return s, requests


def spans(step):
    return [(c.start, c.stop, c.completes) for c in step.prefill]


def test_idle():
    s, _ = scheduler()
    assert s.idle
    assert s.schedule().prefill == s.schedule().decode == ()


def test_long_prompts_take_several_steps():
    s, (a,) = scheduler(20)
    assert [spans(s.schedule()) for _ in range(3)] == [[(0, 8, False)], [(8, 16, False)], [(16, 20, True)]]
    assert s.schedule().decode == (a,)


def test_short_prompts_share_a_step():
    s, (a, b, _) = scheduler(3, 4, 5)
    step = s.schedule()
    assert spans(step) == [(0, 3, True), (0, 4, True), (0, 1, False)]
    assert step.decode == ()
    step = s.schedule()
    assert (step.decode, spans(step)) == ((a, b), [(1, 5, True)])


def test_no_more_than_max_batch():
    s, requests = scheduler(1, 1, 1, max_batch=2)
    s.schedule()
    assert s.schedule().decode == tuple(requests[:2])
    assert s.remove(requests[1]) == []
    s.schedule()
    assert s.schedule().decode == (requests[0], requests[2])


def test_the_last_row_fills_the_hole():
    s, (a, b, c, _) = scheduler(1, 1, 1, 30)
    s.schedule()
    s.schedule()
    assert s.remove(a) == [Move(2, 0), Move(3, 2)]
    assert s.decoding == [c, b]
    s.check_integrity()


def test_removing_what_waits_or_prefills_moves_nothing():
    s, (a, b) = scheduler(30, 1)
    s.schedule()
    assert s.remove(b) == []
    assert s.remove(a) == []
    assert s.idle


@settings(max_examples=200)
@given(st.data())
def test_rows_are_packed_and_every_token_is_done_once(data):
    s = Scheduler(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 10)))
    rows: dict[int, FakeRequest] = {}  # what the cache would hold
    done: dict[FakeRequest, int] = {}
    for _ in range(data.draw(st.integers(0, 30))):
        if data.draw(st.booleans()):
            s.add(request(data.draw(st.integers(1, 25))))
        step = s.schedule()
        for row, r in enumerate(step.decode):
            assert rows[row] is r
        for c in step.prefill:
            assert c.start == done.get(c.request, 0)
            done[c.request] = c.stop
            rows[c.request.row] = c.request
        s.check_integrity()
        candidates = [*s.decoding, *([s.prefilling] if s.prefilling else []), *s.waiting]
        if candidates and data.draw(st.booleans()):
            leaving = data.draw(st.sampled_from(candidates))
            leaving.finished = True
            for move in s.remove(leaving):
                rows[move.target] = rows.pop(move.source)
            s.check_integrity()
        for r in s.decoding:
            assert rows[r.row] is r
