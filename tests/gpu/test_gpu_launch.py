"""Calls of ops on a GPU: streams, graphs, new pointers, wrong operands; and the machine as it is detected."""

from __future__ import annotations

import threading

import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError
from tilewright.language.dtypes import dtype
from tilewright.machines import Machine, nvidia
from tilewright.runtime import tolerance
from tilewright.runtime.cuda.measure import compare


def product(rows: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(rows, 256, device="cuda").bfloat16(), torch.randn(128, 256, device="cuda").bfloat16()


def check(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> None:
    """Within the bound of the float64 reference."""
    value, size = x.double() @ w.double().t(), x.double().abs() @ w.double().abs().t()
    limit = tolerance.bound(dtype("bf16"), x.shape[1], size.cpu().numpy(), value=value.cpu().numpy())
    assert ((y.double() - value).abs().cpu().numpy() <= limit).all()


def test_every_call_reads_its_own_operands():
    x, w = product()
    for seed in range(4):
        x, w = product(seed=seed)
        check(ops.linear(x, w), x, w)


def test_views_of_one_allocation_are_other_operands():
    x, w = product(48)
    for start in (0, 1, 8, 24):
        part = x[start : start + 24]
        check(ops.linear(part, w), part, w)


def test_a_call_runs_on_the_current_stream():
    x, w = product()
    out = torch.full((24, 128), float("nan"), device="cuda", dtype=torch.bfloat16)
    ops.linear(x, w, out=out)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        out.fill_(float("nan"))
        ops.linear(x, w, out=out)
        event = stream.record_event()
    event.synchronize()
    check(out, x, w)


def test_a_call_is_captured_in_a_graph():
    x, w = product()
    out = ops.linear(x, w)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.linear(x, w, out=out)
    for seed in range(3):
        new, _ = product(seed=seed + 7)
        x.copy_(new)
        out.fill_(float("nan"))
        graph.replay()
        torch.cuda.synchronize()
        check(out, x, w)


def test_two_runs_give_the_same_bits():
    x, w = product(300)
    assert torch.equal(ops.linear(x, w), ops.linear(x, w))


def test_operands_on_two_devices_are_named():
    x, w = product()
    with pytest.raises(ArgumentError, match="w"):
        ops.linear(x, w.cpu())


def test_an_output_that_overlaps_is_refused():
    memory = torch.zeros(64, 128, device="cuda")
    with pytest.raises(ArgumentError, match="shares memory"):
        ops.silu(memory[:32], out=memory[16:48])


def test_the_machine_is_what_the_driver_reports():
    found = nvidia.detect(0)
    assert found.cores == torch.cuda.get_device_properties(0).multi_processor_count
    assert (
        found.limit("compute_capability")
        == 10 * torch.cuda.get_device_capability()[0] + (torch.cuda.get_device_capability()[1])
    )
    assert Machine.from_json(found.to_json()) == found
    assert "\0" not in found.name


def test_a_slower_candidate_is_found_slower():
    small, large = torch.ones(1 << 12, device="cuda"), torch.ones(1 << 28, device="cuda")
    found = compare({"small": lambda: small.add_(1), "large": lambda: large.add_(1)}, rounds=8)
    assert found.faster("small", "large")
    assert len(found.samples["small"]) == 8


def test_a_known_call_makes_its_result_on_the_current_stream():
    x, w = product()
    for _ in range(2):
        ops.linear(x, w)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ys = [ops.linear(*pair) for pair in (product(seed=s) for s in range(6))]
    stream.synchronize()
    for seed, y in enumerate(ys):
        check(y, *product(seed=seed))


def test_a_known_call_follows_weights_that_alternate():
    x, _ = product()
    weights = [product(seed=s)[1] for s in range(3)]
    for _ in range(3):
        for w in weights:
            check(ops.linear(x, w), x, w)


def test_a_thread_that_never_used_the_gpu_may_call():
    x, w = product()
    ops.linear(x, w)
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.extend(ops.linear(x, w) for _ in range(3)))
    thread.start()
    thread.join()
    assert len(found) == 3
    for y in found:
        check(y, x, w)


def test_packed_operands_follow_a_known_call():
    for seed in range(4):
        torch.manual_seed(seed)
        x, w = (torch.randn(n, 333, device="cuda").bfloat16() for n in (24, 128))
        check(ops.linear(x, w), x, w)
