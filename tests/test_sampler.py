"""Batches of similar length."""

from __future__ import annotations

import random

import pytest
from torch.utils.data import DataLoader

from tilewright.errors import ArgumentError
from tilewright.sampler import LengthGroupedBatches

RANDOM = random.Random(1)
LENGTHS = [RANDOM.randint(1, 700) for _ in range(203)]


def test_every_sequence_comes_once_an_epoch():
    batches = list(LengthGroupedBatches(LENGTHS, 8))
    assert sorted(i for b in batches for i in b) == list(range(203))
    assert len(batches) == len(LengthGroupedBatches(LENGTHS, 8)) == 26


def test_an_epoch_is_the_same_again_and_the_next_one_another():
    sampler = LengthGroupedBatches(LENGTHS, 8, seed=3)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_batches_come_in_no_order_of_length():
    padded = [LengthGroupedBatches(LENGTHS, 8).padded_length(b) for b in LengthGroupedBatches(LENGTHS, 8)]
    assert padded != sorted(padded)


def test_padding_is_counted():
    sampler = LengthGroupedBatches([3, 64, 65, 1], 2, multiple=64, window=9)
    found = sampler.padding()  # {1, 3} -> 64 and {64, 65} -> 128
    assert (found.tokens, found.padded, found.shapes, found.recompiles) == (133, 2 * 64 + 2 * 128, 2, 1)
    assert found.waste == 1 - 133 / 384
    assert LengthGroupedBatches([], 2).padding().waste == 0


def test_a_smaller_window_leaves_more_to_chance_and_pads_more():
    whole, narrow = (LengthGroupedBatches(LENGTHS, 4, multiple=1, window=w).padding() for w in (99, 2))
    assert whole.padded < narrow.padded < LengthGroupedBatches(LENGTHS, 4, multiple=1).random_padding().padded


@pytest.mark.parametrize("drop", [False, True])
def test_replicas_share_an_epoch_without_overlap(drop):
    parts = [list(LengthGroupedBatches(LENGTHS, 8, drop_last=drop, rank=r, replicas=3)) for r in range(3)]
    assert {len(p) for p in parts} == {8}
    seen = [i for p in parts for b in p for i in b]
    assert len(seen) == len(set(seen))
    if drop:
        assert {len(b) for p in parts for b in p} == {8}


def test_torch_takes_it_for_a_batch_sampler():
    loader = DataLoader(range(203), batch_sampler=LengthGroupedBatches(LENGTHS, 8), collate_fn=list)
    assert list(loader) == list(LengthGroupedBatches(LENGTHS, 8))
    assert len(loader) == 26


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"multiple": 0}, {"rank": 1}, {"window": 0}])
def test_numbers_that_make_no_batch_are_refused(wrong):
    with pytest.raises(ArgumentError, match=r"=\d+ (makes no batch|is none of)"):
        LengthGroupedBatches([1, 2], **{"batch_size": 1, **wrong})
