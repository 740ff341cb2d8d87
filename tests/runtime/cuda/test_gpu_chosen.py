"""Designs of the book on a GPU: looked up for the very sizes of a call, by the key under which a search keeps them."""

from __future__ import annotations

import pytest

from tilewright import operators
from tilewright.design.book.record import Record, now
from tilewright.design.book.store import Book
from tilewright.design.default import default_design
from tilewright.errors import BookWarning, CompileError
from tilewright.knobs import knobs
from tilewright.language.dtypes import bf16
from tilewright.machines import Machine
from tilewright.runtime import dispatch, modes
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.cuda.origin import GpuOrigin
from tilewright.runtime.subject import Subject

H200 = Machine.named("h200")
NONE = {"activation": None}


def operands(m: int, n: int, k: int, at: int = 1 << 20) -> dict[str, Buffer]:
    def rows(r: int, c: int) -> Buffer:
        return Buffer(at, (r, c), (c, 1), bf16, "cuda:0")

    return {"a": rows(m, k), "b": rows(n, k), "c": rows(m, n)}


def asked(m: int, n: int, k: int, at: int = 1 << 20):
    """The request of the kernel that a call gets from the book."""
    buffers = operands(m, n, k, at)
    kernel = operators.matmul.kernel.trace(dict.fromkeys(buffers, "bf16"), options=NONE)
    layouts = tuple((t, layout_on_gpu(b)) for t, b in buffers.items())
    origin = GpuOrigin(dispatch.Program.of(kernel), layouts, operators.matmul, (), 0)
    special = dispatch.slot_of(origin, {"M": m, "K": k, "N": n}, knobs()).special
    return None if special is None else special.kernel


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book that this process uses, and a GPU that answers with the request that it is asked to load."""
    monkeypatch.setenv("TILEWRIGHT_BOOK", str(tmp_path / "book.sqlite"))
    monkeypatch.setattr(modes, "_learned", False)
    monkeypatch.setattr(gpu, "machine", lambda _device: H200)
    monkeypatch.setattr(gpu, "loaded", lambda request, _device: request)
    dispatch.forget_chosen()
    yield Book.open()
    monkeypatch.undo()
    dispatch.forget_chosen()


def keep(book: Book, m: int, n: int, k: int, **changes: object) -> Record:
    """A verified record of a design that is not the default."""
    subject = Subject.of(operators.matmul, {"M": m, "N": n, "K": k}, "bf16", options=NONE, machine=H200)
    design = default_design(subject.kernel, subject.facts).with_(**changes)
    record = Record(subject.key(), design, 1e-6, 2e-6, 0.01, True, 0, now())
    book.put(record)
    dispatch.forget_chosen()
    return record


@pytest.mark.parametrize("k", [4096, 1000, 333])
def test_a_call_gets_the_design_of_its_very_sizes(book, k):
    assert asked(512, 2048, k) is None
    record = keep(book, 512, 2048, k, stages=3)
    found = asked(512, 2048, k)
    assert found.design == record.design and dict(found.sizes) == {"M": 512, "N": 2048, "K": k}
    assert asked(513, 2048, k) is None


def test_operands_that_lie_less_well_do_not_get_it(book):
    keep(book, 512, 2048, 4096, stages=3)
    assert asked(512, 2048, 4096, at=(1 << 20) + 2) is None


def test_the_book_is_read_again_when_it_has_changed(book):
    keep(book, 512, 2048, 4096, stages=3)
    assert asked(512, 2048, 4096).design.get("stages") == 3
    keep(book, 512, 2048, 4096, stages=4)
    assert asked(512, 2048, 4096).design.get("stages") in (3, 4)  # whichever the book holds to be the faster
    assert asked(512, 2048, 4096).design == book.list()[0].design


def test_generic_mode_asks_no_book(book, monkeypatch):
    keep(book, 512, 2048, 4096, stages=3)
    monkeypatch.setenv("TILEWRIGHT_MODE", "generic")
    assert asked(512, 2048, 4096) is None


def test_a_design_that_the_compiler_refuses_is_passed_over(book, monkeypatch):
    keep(book, 512, 2048, 4096, stages=3)

    def refuse(_request, _device):
        raise CompileError("it spills")

    monkeypatch.setattr(gpu, "loaded", refuse)
    with pytest.warns(BookWarning, match="it spills"):
        assert asked(512, 2048, 4096) is None
