"""Designs of the book on a GPU: a hint is verified and measured here, and then answers the calls of its very sizes."""

from __future__ import annotations

import pytest
import torch

from tilewright import operators, ops
from tilewright.design.book.record import Record, now
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.machines import nvidia
from tilewright.runtime import dispatch
from tilewright.runtime.designer import search
from tilewright.runtime.subject import Subject

SIZES = {"M": 64, "N": 512, "K": 1024}
NONE = {"activation": None}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of this test's own that `tw.ops` asks."""
    path = tmp_path / "book.sqlite"
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(path))
    dispatch.forget_chosen()
    yield Book.open(path)
    monkeypatch.undo()
    dispatch.forget_chosen()


def kernels_of_their_own():
    """The kernels that answer calls in place of generic ones."""
    return [s.special.kernel for s in dispatch.TABLE.slots() if s.special is not None]


def test_a_hint_is_verified_and_then_answers_calls(book):
    machine = nvidia.detect()
    subject = Subject.of(operators.matmul, SIZES, "bf16", options=NONE, machine=machine)
    default = default_design(subject.kernel, subject.facts)
    hint = default.with_(stages=max(2, default.number("stages") - 1))
    book.put(Record(subject.key(), hint, 1e-9, 2e-9, 0.01, False, 0, now(), origin="starter"))
    x, w = (torch.randn(n, SIZES["K"], device="cuda").bfloat16() for n in (SIZES["M"], SIZES["N"]))
    before = ops.linear(x, w)  # an unverified design is not used
    assert not kernels_of_their_own()

    found = search(operators.matmul, dtype="bf16", machine=machine, budget="1 trials", book=book, options=NONE, **SIZES)
    assert found.found == "hint" and found.record.verified
    assert found.design in (hint, default)

    after = ops.linear(x, w)
    (kernel,) = kernels_of_their_own()
    assert kernel.request.design == found.design
    assert dict(kernel.request.sizes) == SIZES
    torch.testing.assert_close(after, before, rtol=2e-2, atol=2e-1)
    exact = x.double() @ w.double().t()
    assert (after.double() - exact).abs().max() <= 2**-8 * exact.abs().max() + 1e-3
