"""Case names, arithmetic and traffic, and which cases a pattern picks."""

from __future__ import annotations

import pytest

from tilewright.bench.cases import FAMILIES, LLAMA_WEIGHTS, WORKLOADS, Case, cpu_cases, matches, select
from tilewright.bench.peers import OURS, PEERS
from tilewright.bench.reference import REFERENCES


def case(operator: str, dtype: str, **sizes: int) -> Case:
    return Case("family", operator, dtype, tuple(sizes.items()))


def test_names_are_unique():
    names = [c.name for c in cpu_cases() if c.family != "decode_linear"]
    assert len(set(names)) == len(names)


def test_every_case_has_both_sides_and_a_reference():
    for c in cpu_cases():
        assert c.operator in OURS
        assert (c.operator, c.peer) in PEERS
        assert c.operator in REFERENCES


def test_the_issue_s_shapes_are_there():
    cases = cpu_cases()
    for dtype in ("f32", "bf16"):
        cubes = {dict(c.sizes)["M"] for c in cases if c.operator == "matmul" and c.dtype == dtype}
        assert {512, 1024, 2048, 4096} <= cubes
        for m in (1, 16, 128, 512):
            shapes = {tuple(dict(c.sizes).values())[1:] for c in cases
                      if c.operator == "linear" and c.dtype == dtype and dict(c.sizes)["M"] == m}  # fmt: skip
            assert shapes == set(LLAMA_WEIGHTS)
    rows = {(c.operator, c.dtype) for c in cases if c.family == "rows"}
    assert rows == {(o, d) for o in ("rmsnorm", "softmax", "swiglu", "rope", "scale_add") for d in ("f32", "bf16")}


@pytest.mark.parametrize(
    "c, flops, traffic",
    [
        (case("matmul", "f32", M=2, N=3, K=5), 2 * 2 * 3 * 5, 4 * (10 + 15 + 6)),
        (case("linear", "bf16", M=1, N=4096, K=4096), 2 * 4096**2, 2 * (4096**2 + 2 * 4096)),
        (case("scale_add", "f32", M=4, D=8), 2 * 32, 4 * 3 * 32),
        (case("rmsnorm", "bf16", M=4, D=8), 4 * 32, 2 * (2 * 32 + 8)),
        (case("rope", "f32", B=1, S=2, H=3, C=4), 3 * 24, 4 * (2 * 24 + 2 * 8)),
    ],
)
def test_arithmetic_and_traffic(c, flops, traffic):
    assert (c.flops, c.bytes) == (flops, traffic)


def test_streams_bound_what_moves_memory_and_nothing_else():
    streams = {c.family: c.streams for c in cpu_cases()}
    assert streams["decode_linear"] == ("read",)
    assert streams["rows"] == streams["rows_best"] == ("copy", "copy_nontemporal")
    assert streams["matmul_f32"] == streams["matmul_bf16"] == ()


def test_large_products_take_fewer_rounds_and_fewer_copies():
    large, small = case("matmul", "f32", M=4096, N=4096, K=4096), case("matmul", "f32", M=64, N=64, K=64)
    assert (large.rounds, small.rounds) == (3, 6)
    assert large.copies(1 << 30) == 1
    assert small.copies(10 * small.bytes) == 30
    assert small.copies(1 << 30) == 64
    assert small.copies(1) == 1


def test_families_of_cases_are_listed():
    assert {c.family for c in cpu_cases()} < set(FAMILIES)


def test_patterns_and_quick():
    cases = cpu_cases()
    assert {c.family for c in select(cases, "decode_linear", quick=False)} == {"decode_linear"}
    assert {c.operator for c in select(cases, "softmax bf16*", quick=False)} == {"softmax"}
    assert select(cases, "no such case", quick=False) == []
    quick = select(cases, None, quick=True)
    assert max(c.flops for c in quick if c.operator in ("matmul", "linear")) <= 2 * 1024**3
    assert matches("4096x*", "4096x1") and not matches("4096x*", "1x4096")


def test_operands_name_known_dims():
    for workload in WORKLOADS.values():
        dims = {d for operand in workload.operands.values() for d in operand}
        assert set(workload.result) <= dims
        assert workload.rows in workload.result
