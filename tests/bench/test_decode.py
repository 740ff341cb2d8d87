"""The cases of `tilewright bench decode` and its jobs; what needs a GPU is tested where there is one."""

import pytest

from tilewright.bench import worker
from tilewright.bench.attention_decode import FAMILIES, DecodeRequest, decode_jobs
from tilewright.bench.decode_cases import DecodeCase, decode_cases
from tilewright.errors import ArgumentError


def test_names_are_of_one_case_each():
    cases = decode_cases()
    assert len({(c.family, c.name) for c in cases}) == len(cases)
    assert {c.family for c in cases} == set(FAMILIES)


def test_every_case_is_in_one_job_that_the_worker_knows():
    jobs = decode_jobs(DecodeRequest())
    named = [tuple(pair) for job in jobs for pair in job.options["cases"]]
    assert sorted(named) == sorted((c.family, c.name) for c in decode_cases())
    assert {job.kind for job in jobs} <= set(worker.JOBS)


def test_a_pattern_that_fits_nothing_names_the_families():
    with pytest.raises(ArgumentError, match="attention_decode, attention_paged"):
        decode_jobs(DecodeRequest(only="no such case"))


def test_bytes_are_those_of_keys_that_exist():
    full, ragged = DecodeCase("f", 4, 64, 128), DecodeCase("f", 4, 64, 128, ragged=True)
    assert ragged.lengths == (4, 16, 36, 64)
    queries = 2 * 2 * 32 * 4 * 128
    assert full.bytes - queries == 2 * 2 * 8 * 256 * 128
    assert ragged.bytes - queries == 2 * 2 * 8 * (4 + 16 + 36 + 64) * 128
