"""Products of few rows straight from memory, on the GPU: deals, types, edges, epilogues; and launches that overlap."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from gpu_products import TYPES, bound, check_gate_and_up, check_products_that_overlap, dealt, unwritten, whole


@pytest.mark.parametrize("deal", [(1, 8, 1, 4), (2, 4, 2, 2), (4, 1, 4, 1), (1, 5, 1, 3), (1, 16, 1, 8), (2, 1, 1, 4)])
@pytest.mark.parametrize("atom", ["mma", "fma"])
@pytest.mark.parametrize("size", [(1, 512, 2048), (3, 200, 1000), (8, 136, 4096), (5, 77, 264)])
def test_every_deal_gives_every_element(atom, deal, size):
    m, n, k = size
    a, b = whole("bf16", m, k), whole("bf16", n, k)
    c = unwritten(m, n)
    bound("matmul", {"a": a, "b": b, "c": c}, dealt(*deal, atom))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize("deal", [(1, 8, 1, 4), (2, 4, 2, 2), (4, 1, 4, 1), (1, 5, 1, 3), (2, 1, 1, 4)])
@pytest.mark.parametrize("size", [(1, 512, 2048), (3, 200, 1000), (8, 136, 4096), (17, 77, 264)])
def test_weights_that_flow_give_every_element(deal, size):
    m, n, k = size
    a, b = whole("bf16", m, k), whole("bf16", n, k)
    c = unwritten(m, n)
    bound("matmul", {"a": a, "b": b, "c": c}, dealt(*deal, "mma", stages=1), constant=("b",))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


def test_gate_and_up_that_flow_share_x():
    check_gate_and_up(dealt(1, 4, 1, 2, "mma", stages=1))


def test_a_row_of_products_that_flow_and_overlap_gives_what_they_give_one_after_the_other():
    check_products_that_overlap(dealt(1, 4, 2, 2, "mma", stages=1), 100)


@pytest.mark.parametrize("rows", [16, 17, 33, 64, 100])
def test_more_rows_come_in_more_fragments_and_tiles(rows):
    a, b = whole("bf16", rows, 1024), whole("bf16", 264, 1024)
    c = unwritten(rows, 264)
    bound("matmul", {"a": a, "b": b, "c": c}, dealt(1, 4, 1, 2, "mma"))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(torch.bfloat16))


@pytest.mark.parametrize(("kind", "atom"), [("f16", "mma"), ("f16", "fma"), ("f32", "fma"), ("i8", "mma")])
def test_other_types_are_multiplied_too(kind, atom):
    a, b = whole(kind, 4, 2048), whole(kind, 96, 2048)
    out = torch.int32 if kind == "i8" else TYPES[kind]
    c = torch.full((4, 96), -7, device="cuda").to(out)
    bound("matmul", {"a": a, "b": b, "c": c}, dealt(1, 4, 1, 2, atom))()
    torch.cuda.synchronize()
    assert torch.equal(c, (a.double() @ b.double().t()).to(out))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_epilogues_follow_the_joined_sums(atom):
    a, b, bias, residual = whole("bf16", 3, 1024), whole("bf16", 72, 1024), whole("bf16", 72), whole("bf16", 3, 72)
    c = unwritten(3, 72)
    tensors = {"a": a, "b": b, "c": c, "bias": bias, "residual": residual}
    bound("matmul", tensors, dealt(1, 4, 2, 2, atom), options={"activation": "relu"})()
    torch.cuda.synchronize()
    exact = (a.double() @ b.double().t() + bias.double()).clamp(min=0) + residual.double()
    assert torch.equal(c, exact.to(torch.bfloat16))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_gate_and_up_share_x(atom):
    check_gate_and_up(dealt(1, 4, 1, 4, atom))


@pytest.mark.parametrize("atom", ["mma", "fma"])
def test_a_row_of_products_that_overlap_gives_what_they_give_one_after_the_other(atom):
    check_products_that_overlap(dealt(1, 4, 2, 2, atom), 100)
