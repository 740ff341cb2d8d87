"""Dispatched calls while torch captures a CUDA graph: counted, never timed, bound and even compiled without harm."""

from __future__ import annotations

import threading

import pytest
import torch
from gpu_graphs import mend

from tilewright import ops
from tilewright.design.book.record import Record, now
from tilewright.language.dtypes import dtype
from tilewright.runtime import background_worker, dispatch, promotion, rebind, tolerance
from tilewright.runtime.learner import job_of
from tilewright.runtime.monitor import MONITOR, SAMPLE
from tilewright.runtime.table import Table


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """A cache folder and a table of this test's own: no kernel is compiled, none loaded, no call counted."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(dispatch, "TABLE", Table())
    dispatch.forget_chosen()
    MONITOR.reset()
    yield dispatch.TABLE
    rebind.forget()


class Product:
    """A product on the GPU that is checked against float64 after each replay, on operands that are new each time."""

    def __init__(self, rows=24, columns=256, depth=512):
        self.x = torch.randn(rows, depth, device="cuda").bfloat16()
        self.w = torch.randn(columns, depth, device="cuda").bfloat16()
        self.y = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)

    def call(self):
        ops.linear(self.x, self.w, out=self.y)

    def check(self, run):
        self.x.copy_(torch.randn_like(self.x, dtype=torch.float32))
        self.y.fill_(float("nan"))
        torch.cuda.synchronize()
        run()
        torch.cuda.synchronize()
        value, size = self.x.double() @ self.w.double().t(), self.x.double().abs() @ self.w.double().abs().t()
        limit = tolerance.bound(dtype("bf16"), self.x.shape[1], size.cpu().numpy(), value=value.cpu().numpy())
        assert ((self.y.double() - value).abs().cpu().numpy() <= limit).all()


class Decode:
    """One query a head over keys that are dealt out to blocks, which meet by counters and sums in scratch memory."""

    def __init__(self):
        self.q = torch.randn(1, 32, 1, 128, device="cuda").bfloat16()
        self.k, self.v = (torch.randn(1, 8, 4096, 128, device="cuda").bfloat16() for _ in range(2))
        self.y = torch.empty_like(self.q)

    def call(self):
        ops.attention(self.q, self.k, self.v, causal=True, out=self.y)

    def check(self, run):
        self.q.copy_(torch.randn_like(self.q, dtype=torch.float32))
        self.y.fill_(float("nan"))
        torch.cuda.synchronize()
        run()
        torch.cuda.synchronize()
        keys, values = (x.double().repeat_interleave(4, 1) for x in (self.k, self.v))
        exact = torch.softmax(self.q.double() @ keys.mT * 128**-0.5, -1) @ values
        torch.testing.assert_close(self.y.double(), exact, rtol=2e-2, atol=2e-3)


def captured(call, stream=None):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


def slot_of(table):
    (slot,) = table.slots()
    return slot


def until_one_is_due(call, table):
    """Calls until the very next one would be timed, while the time of an earlier one has not been read."""
    call()
    slot = slot_of(table)
    while slot.calls <= SAMPLE or slot.calls & SAMPLE != 1:
        call()
    return slot


@pytest.mark.parametrize("kind", ["on another stream", "on the same stream", "bound"])
def test_a_call_that_would_be_timed_is_captured(table, kind):
    product = Product()
    stream = torch.cuda.Stream() if kind == "on the same stream" else None
    call = ops.linear.bind(product.x, product.w, out=product.y) if kind == "bound" else product.call
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        slot = until_one_is_due(call, table)
    before = slot.calls
    graph = captured(call, stream)
    assert slot.calls == before + 1
    for _ in range(3):
        product.check(graph.replay)
    assert slot.calls == before + 1  # a replay is nobody's call
    product.check(call)


@pytest.mark.parametrize("kind", [Product, Decode])
def test_the_first_call_of_all_may_be_in_a_capture(kind):
    """It is compiled, loaded and given its memory there; counters begin at zero in the graph and outside."""
    made, stream = kind(), torch.cuda.Stream()
    torch.cuda.synchronize()
    first = captured(made.call, stream)

    def eager():
        with torch.cuda.stream(stream):
            made.call()

    made.check(eager)
    second = captured(made.call, stream)
    for run in (second.replay, eager, first.replay, second.replay, first.replay, eager):
        made.check(run)


def test_graphs_of_one_stream_share_no_scratch_memory():
    """They may be replayed at once, each on a stream of its own; so may calls outside."""
    made = [Decode() for _ in range(3)]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        made[2].call()
    graphs = [captured(one.call, stream) for one in made[:2]]
    runs = (graphs[0].replay, graphs[1].replay, made[2].call)
    alone = []
    for one, run in zip(made, runs, strict=True):
        one.check(run)
        alone.append(one.y.clone())
        one.y.fill_(float("nan"))
    torch.cuda.synchronize()
    streams = (torch.cuda.Stream(), torch.cuda.Stream(), stream)
    for _ in range(100):
        for where, run in zip(streams, runs, strict=True):
            with torch.cuda.stream(where):
                run()
    torch.cuda.synchronize()
    for one, y in zip(made, alone, strict=True):
        assert torch.equal(one.y, y)


def test_a_kernel_that_was_swapped_in_is_captured(table):
    product = Product()
    launch = ops.linear.bind(product.x, product.w, out=product.y)
    product.check(launch)
    swap(slot_of(table))
    graph = captured(launch)
    assert launch.kernel is slot_of(table).special.kernel
    for _ in range(2):
        product.check(graph.replay)


def swap(slot):
    """Another legal design, compiled here and put in the slot."""
    start = slot.origin.generic_design(dict(slot.common))
    subject = background_worker.subject_of(job_of(slot))
    design = start.with_(stages=max(2, start.number("stages", 4) - 1))
    record = Record(subject.key(), design, 1e-6, 2e-6, 0.01, True, 0, now())
    assert promotion.promote(slot, record)


def test_others_call_are_timed_and_swap_while_a_graph_is_captured(table):
    """torch captures in the mode in which the driver refuses all threads what a graph cannot hold."""
    mine, theirs = Product(), Product()
    launch = ops.linear.bind(theirs.x, theirs.w, out=theirs.y)
    mine.call()
    slot, errors = slot_of(table), []
    torch.cuda.synchronize()
    other = torch.cuda.Stream()

    def work():
        try:
            with torch.cuda.stream(other):
                for _ in range(3 * SAMPLE):
                    launch()
                swap(slot)
                launch()
        except BaseException as error:
            errors.append(error)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="global"):
        mine.call()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        mine.call()
    assert not errors, errors[0]
    assert slot.calls == 3 * SAMPLE + 4
    assert launch.kernel is slot.special.kernel
    for _ in range(2):
        mine.check(graph.replay)
    theirs.check(launch)


def test_a_capture_that_fails_is_mended_for_the_tests_that_follow():
    product = Product()
    product.call()
    with pytest.raises(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.randn(4, device="cuda")
        torch.cuda.synchronize()
    mend()
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.randn(100, device="cuda").std() > 0.1
    graph = captured(product.call)
    product.check(graph.replay)
