"""`tilewright bench attention`: its cases and jobs; what needs the GPU is in tests/gpu."""

import pytest

from tilewright.bench import worker
from tilewright.bench.attention_cases import SHAPES, attention_cases
from tilewright.bench.attention_jobs import FAMILIES, AttentionRequest, attention_jobs
from tilewright.bench.packed_cases import PackedCase, packed_cases
from tilewright.bench.packed_problem import PackedProblem
from tilewright.bench.tables import TABLES
from tilewright.errors import ArgumentError, VerificationError


def test_cases_have_names_of_their_own_and_all_shapes():
    cases = attention_cases()
    assert len({c.name for c in cases}) == len(cases)
    for width in (64, 128):
        for causal in (False, True):
            found = {(c.batch, c.length) for c in cases if (c.width, c.causal, c.kv) == (width, causal, c.heads)}
            assert set(SHAPES) <= found
    assert any(c.kv < c.heads for c in cases) and {c.width for c in cases} == {64, 96, 128, 256}


def test_half_of_the_pairs_are_seen_under_a_causal_mask():
    full, causal = (next(c for c in attention_cases() if c.causal is kind and c.width == 128) for kind in (False, True))
    assert full.flops == 4 * 16 * 32 * 512 * 512 * 128 == 2 * causal.flops
    assert full.bytes == 4 * 2 * 16 * 32 * 512 * 128


def test_ragged_batches_and_few_queries_count_what_exists():
    ragged = next(c for c in attention_cases() if c.lengths and c.width == 128)
    whole = sum(n * n for n in ragged.lengths)
    assert ragged.flops == 2 * 32 * whole * 128 and ragged.batch == len(ragged.lengths)
    few = next(c for c in attention_cases() if c.queries == 16)
    assert few.sizes["S"] == 16 and few.sizes["T"] == 4096 and few.flops == 4 * 8 * 32 * 16 * 4096 * 128
    assert few.bytes == 4 * 128 * 8 * (32 * 16 + 8 * 4096)


def test_jobs_hold_every_case_once_and_can_be_chosen():
    jobs = attention_jobs(AttentionRequest())
    named = [(step.family, step.name) for job in jobs for step in job.steps]
    assert named == [(c.family, c.name) for c in (*attention_cases(), *packed_cases())]
    assert {job.kind for job in jobs} <= set(worker.JOBS)
    (job,) = attention_jobs(AttentionRequest("*d256*"))
    assert len(job.steps) == 2
    with pytest.raises(ArgumentError, match="attention_prefill"):
        attention_jobs(AttentionRequest("nothing like it"))


def test_its_families_have_a_table():
    assert {f for t in TABLES for f in t.families} >= set(FAMILIES)


def test_packed_cases_count_pairs_that_are_seen():
    causal, decode = PackedCase("", (3, 5), 64), PackedCase("", (3, 5), 64, 8, (1, 1))
    assert causal.pairs == 1 + 2 + 3 + 1 + 2 + 3 + 4 + 5 and causal.flops == 4 * 32 * 64 * causal.pairs
    assert decode.pairs == 3 + 5 and decode.bytes == 2 * 2 * 64 * (32 * 2 + 8 * 8)
    (job,) = attention_jobs(AttentionRequest("attention_packed"))
    assert job.options["names"] == [c.name for c in packed_cases()]


@pytest.mark.parametrize("queries", [(), (1, 1, 1), (2, 9, 4)])
def test_the_judge_of_packed_attention_takes_what_is_right_and_nothing_else(queries):
    setup = PackedProblem(PackedCase("", (5, 33, 17), 32, 2, queries, heads=4), 3, "cpu")
    setup.poison()
    with pytest.raises(VerificationError, match="not written"):
        setup.check()
    setup.ours()()
    setup.check()
    setup.redraw()
    setup.check()
    setup.o.mul_(1.05)
    with pytest.raises(VerificationError, match="off its bound"):
        setup.check()
