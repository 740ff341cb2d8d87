"""Decoding on dataflow chips: several sequences, the three ways, and what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.errors import IllegalDesign
from tilewright.language.verifier import check
from tilewright.machines import Machine
from tilewright.machines.dataflow import DataflowArray
from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.dataflow.decoder import REDUCED, decoder_program, sizes
from tilewright.simulate.dataflow.decoding import KERNELS, OUTSIDE, decode
from tilewright.simulate.decoder import decoder

SN40L = DataflowArray.of(Machine.named("sn40l"))
MODEL = decoder("llama-3.1-8b")


def test_the_program_is_right_and_holds_every_weight():
    program = check(decoder_program())
    shares = sizes(MODEL, 1, 4096)
    weights = [p for p in program.params if p.name[0] in "w" or p.name in ("n1", "n2")]
    elements = 0
    for p in weights:
        count = 1
        for d in p.dims:
            count *= shares[d]
        elements += count
    assert elements == MODEL.layers * MODEL.layer_weights
    names = {s.name for s in program.body[-2].body if hasattr(s, "name")}
    assert set(REDUCED) <= names


@pytest.mark.parametrize("chips, heads, queries", [(1, 8, 4), (4, 2, 4), (8, 1, 4), (16, 1, 2), (64, 1, 1)])
def test_heads_are_dealt_first_and_then_the_queries_that_share_one(chips, heads, queries):
    found = sizes(MODEL, chips, 100, batch=3)
    assert (found["H"], found["G"], found["B"]) == (heads, queries, 3)
    assert found["F"] == -(-14336 // chips)


def test_sequences_share_the_weights_until_their_caches_take_longer():
    found = {b: decode(MODEL, SN40L, 8, batch=b).way("looped") for b in (1, 4, 16, 64)}
    rates = [b / way.seconds for b, way in found.items()]
    assert rates == sorted(rates)
    assert 3.5 < rates[1] / rates[0] < 4
    cache = MODEL.layers * MODEL.cache_bytes(4096) / 8 / 1.6e12
    assert found[64].memory - found[1].memory == pytest.approx(63 * cache, rel=0.02)


def test_ways_and_their_calls():
    found = decode(MODEL, SN40L, 8)
    assert [w.calls - OUTSIDE for w in found.ways] == [32 * KERNELS, 32, 1]
    slow, layered, looped = found.ways
    assert slow.seconds > layered.seconds > looped.seconds
    free = decode(MODEL, SN40L, 8, sync=0.0)
    assert all(w.sync == 0 for w in free.ways)
    assert free.way("looped").seconds == pytest.approx(looped.seconds - looped.sync)


def test_slow_links_stop_the_layers():
    fast, slow = (decode(MODEL, SN40L, 8, link=Link(bandwidth, 1e-6, 2e-6)) for bandwidth in (1e12, 1e9))
    assert slow.all_reduce > 5 * fast.all_reduce
    assert slow.way("looped").seconds - fast.way("looped").seconds > 30 * (slow.all_reduce - fast.all_reduce)


def test_caches_that_main_memory_does_not_hold_are_refused():
    with pytest.raises(IllegalDesign, match=r"bytes of tensors of .*: split (kc|vc|w).* over more chips"):
        decode(MODEL, SN40L, 8, batch=1024)
    with pytest.raises(IllegalDesign, match="compute units"):
        decode(MODEL, replace(SN40L, compute_units=8), 8)
