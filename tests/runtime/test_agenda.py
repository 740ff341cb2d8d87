"""The agenda: what is worth most for a second of searching comes first, and first looks before long searches."""

from __future__ import annotations

from test_table import slot

from tilewright.runtime.agenda import LOOK_DOUBT, MORE, SAVING, SLOWER, Agenda
from tilewright.runtime.table import Table


def met(key, seconds):
    """A slot whose calls have taken so many seconds."""
    found = slot(key)
    tally = found.tally((("M", key),))
    tally.add()
    tally.took(seconds)
    return found


def taken(agenda):
    return [agenda.next().key for _ in range(len(agenda))]


def test_what_takes_the_most_time_comes_first():
    agenda = Agenda()
    for one in (met(1, 1e-3), met(2, 3e-3), met(3, 2e-3)):
        agenda.add(one)
    assert taken(agenda) == [2, 3, 1]
    assert agenda.next() is None


def test_many_slots_are_looked_at_before_one_is_searched_at_length():
    agenda, large = Agenda(), met(1, 1.0)
    agenda.look_over(large)
    agenda.add(met(2, 0.9))
    agenda.add(met(3, 2.0 * MORE * SLOWER))
    agenda.add(met(4, 0.5 * MORE * SLOWER))  # so little is to be had there that the long search comes first
    assert agenda.looked(large)
    assert taken(agenda) == [2, 3, 1, 4]


def test_an_operator_of_which_looks_found_nothing_is_expected_to_save_less():
    agenda, one = Agenda(), met(1, 1.0)
    assert agenda.saving(one) == SAVING
    agenda.learnt(one, promoted=False, look=True)
    assert agenda.saving(one) == SAVING * LOOK_DOUBT
    saves = slot(2, saves=1.0)
    saves.shape = one.shape
    agenda.learnt(saves, promoted=True, look=True)
    share = 1.0 - saves.special.seconds / saves.special.generic_seconds
    assert agenda.saving(one) == max(share, SAVING * LOOK_DOUBT)


def test_what_the_background_died_of_comes_last_and_is_given_up_the_second_time():
    agenda, deadly = Agenda(), met(1, 1.0)
    assert not agenda.died(deadly)
    agenda.add(met(2, 1e-6))
    assert taken(agenda) == [2, 1]
    assert agenda.died(deadly)
    assert len(agenda) == 0


def test_slots_that_were_evicted_are_dropped():
    agenda, table, gone = Agenda(), Table(), met(2, 1.0)
    kept = table.add(met(1, 1.0))
    for one in (gone, kept):
        agenda.add(one)
    agenda.drop_evicted(table)
    assert agenda.pop_all() == [kept]
    assert len(agenda) == 0
