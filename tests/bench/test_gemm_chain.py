"""Which products are timed as links of a chain, and how many links one has."""

from tilewright.bench.gemm_cases import gemm_cases
from tilewright.bench.gemm_chain import links_of

H200_L2 = 50 << 20


def test_few_rows_are_timed_so_and_no_others():
    assert {c.family for c in gemm_cases() if c.links} == {"gemm_chain"}
    chained, lone = ([c.name for c in gemm_cases() if c.family == f] for f in ("gemm_chain", "gemm_small"))
    assert chained == lone


def test_weights_of_all_links_are_more_than_any_cache_holds():
    for case in (c for c in gemm_cases() if c.links):
        assert 6 <= links_of(case) <= 20
        assert links_of(case) * case.bytes >= 3 * H200_L2
