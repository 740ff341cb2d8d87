"""How long kernels run on the GPU by themselves, beside what two events around a call say."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tilewright import ops
from tilewright.errors import ArgumentError
from tilewright.runtime.cuda.measure import compare, kernels_us


def test_a_kernel_runs_for_less_than_two_events_say_and_longer_for_more_rows():
    out = {m: torch.empty(m, 4096, device="cuda", dtype=torch.bfloat16) for m in (1, 8192)}
    x = {m: torch.randn(m, 4096, device="cuda").bfloat16() for m in out}
    own, between = {}, {}
    for m, y in out.items():
        launch = ops.softmax.bind(x[m], out=y)
        own[m] = kernels_us(launch, lambda y=y: y.fill_(float("nan")))
        between[m] = compare({"call": launch}, rounds=8, pause=True).median_ns("call") / 1e3
        assert torch.isfinite(y.float()).all()
    assert 0 < own[1] < between[1] and own[8192] < between[8192]
    assert own[8192] > 5 * own[1]


def test_all_kernels_of_a_call_are_counted():
    x, y = (torch.randn(4096, 4096, device="cuda") for _ in range(2))
    once, twice = (lambda: torch.sin(x, out=y)), (lambda: (torch.sin(x, out=y), torch.sin(x, out=y)))
    one, two = kernels_us(once, y.zero_), kernels_us(twice, y.zero_)
    assert one < two


def test_a_call_without_kernels_of_its_own_is_refused():
    y = torch.empty(8, device="cuda")
    with pytest.raises(ArgumentError, match="starts no kernel"):
        kernels_us(lambda: None, lambda: y.fill_(1.0))
