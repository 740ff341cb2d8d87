"""The cases of `tilewright bench rows` as the bench sets them up, small and on the CPU: peers, references, facts."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from tilewright.bench.rows_cases import FAMILIES, row_cases
from tilewright.bench.rows_jobs import RowsRequest, rows_jobs
from tilewright.bench.rows_problem import RowProblem
from tilewright.errors import ArgumentError, VerificationError

SMALL = {"M": 6, "N": 5, "B": 2, "S": 7, "P": 7, "H": 3, "D": 40, "R": 8, "V": 30, "K": 8, "E": 12}


def small(case):
    sizes = tuple((d, min(n, SMALL[d])) for d, n in case.sizes)
    return replace(case, sizes=sizes, element="f32")


CASES = {(c.operator, c.options, c.present, c.interleaved): small(c) for c in row_cases()}


@pytest.mark.parametrize("case", CASES.values(), ids=lambda c: f"{c.operator} {c.label}")
def test_what_torch_computes_is_what_the_operator_should(case):
    setup = RowProblem(case, device="cpu")
    with pytest.raises(VerificationError):
        setup.check()
    results = setup.peer(compiled=False)()
    results = results if isinstance(results, tuple) else (results,)
    for name, result in zip(setup.operator.outputs, results, strict=False):
        setup.tensors[name].copy_(result.reshape(setup.tensors[name].shape))
    setup.check()
    setup.redraw()
    setup.check()


def test_every_family_is_measured_once_and_names_are_distinct():
    cases = row_cases()
    assert {c.family for c in cases} == set(FAMILIES)
    assert len({(c.family, c.name) for c in cases}) == len(cases)
    steps = [(s.family, s.name) for job in rows_jobs(RowsRequest()) for s in job.steps]
    assert steps == [(c.family, c.name) for c in cases]


def test_bytes_are_those_that_must_move():
    by_name = {c.name: c for c in row_cases()}
    assert by_name["rmsnorm 8192x4096 bf16"].bytes == 2 * (2 * 8192 * 4096 + 4096)
    assert by_name["embedding 8192x4096 bf16"].bytes == 4 * 8192 * 4096 + 4 * 8192
    assert by_name["argmax 64x128256 bf16"].bytes == 2 * 64 * 128256 + 4 * 64


def test_a_pattern_that_fits_nothing_is_refused():
    with pytest.raises(ArgumentError, match="gpu_rows_few"):
        rows_jobs(RowsRequest("nothing"))
