"""Slots on a GPU: calls are counted and timed, kernels swapped at a call's boundary, passes and graphs follow."""

from __future__ import annotations

import json
import random
import threading

import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.design.book.record import Record, now
from tilewright.design.pinned import differs
from tilewright.design.space import random_step
from tilewright.errors import CompileError, IllegalDesign
from tilewright.language.dtypes import dtype
from tilewright.models.decoder import Decoder, Want
from tilewright.runtime import background_worker, dispatch, modes, promotion, rebind, tolerance
from tilewright.runtime.background import BackgroundProcess, Budget
from tilewright.runtime.buckets import Range
from tilewright.runtime.cuda.follow import changes_bits
from tilewright.runtime.cuda.gpu import Gpu
from tilewright.runtime.learner import Learner, job_of
from tilewright.runtime.monitor import MONITOR
from tilewright.runtime.table import Table
from tilewright.runtime.trigger import Trigger


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """As a new process would begin: a cache folder, a book and a table of this test's own; somebody learns."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(dispatch, "TABLE", Table())
    monkeypatch.setattr(modes, "_learned", True)
    dispatch.forget_chosen()
    MONITOR.reset()
    yield dispatch.TABLE
    rebind.forget()


class Product:
    """A product on the GPU, checked against float64 each time."""

    def __init__(self, rows=96, columns=256, depth=512, seed=0):
        torch.manual_seed(seed)
        self.x = torch.randn(rows, depth, device="cuda").bfloat16()
        self.w = torch.randn(columns, depth, device="cuda").bfloat16()
        self.y = torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16)
        value, size = self.x.double() @ self.w.double().t(), self.x.double().abs() @ self.w.double().abs().t()
        self.limit = tolerance.bound(dtype("bf16"), depth, size.cpu().numpy(), value=value.cpu().numpy())
        self.value = value

    def check(self):
        assert ((self.y.double() - self.value).abs().cpu().numpy() <= self.limit).all()

    def call(self):
        self.y.fill_(float("nan"))
        ops.linear(self.x, self.w, out=self.y)
        self.check()

    def bound(self):
        launch = ops.linear.bind(self.x, self.w, out=self.y)

        def call():
            self.y.fill_(float("nan"))
            launch()
            self.check()

        return launch, call


def slot_of(table, operator="matmul"):
    (slot,) = [s for s in table.slots() if s.shape.operator == operator]
    return slot


def other(slot, **decisions):
    """A record of another legal design for the sizes that a slot meets most, said to be twice as fast."""
    start = slot.origin.generic_design(dict(slot.common))
    design = start.with_(**(decisions or {"stages": max(2, start.number("stages", 4) - 1)}))
    return Record(subject_of(slot).key(), design, 1e-6, 2e-6, 0.01, True, 0, now())


def subject_of(slot):
    job = job_of(slot)
    return background_worker.subject_of(json.loads(json.dumps(job)))


def test_A1_calls_are_counted_exactly_eager_bound_and_in_passes(table):
    product = Product()
    launch, call = product.bound()
    for _ in range(70):
        call()
        product.call()
    slot = slot_of(table)
    assert slot.calls == 140
    (shape,) = MONITOR.counts()
    assert (shape.device, shape.batch) == ("cuda:0", Range(65, 256))
    assert MONITOR.counts()[shape] == 140
    gpu = Gpu(0)
    torch.cuda.synchronize()
    batch, graph = gpu.prepared([launch, launch]), gpu.replayed([launch])
    for _ in range(40):
        batch(), graph()
    gpu.wait()
    assert slot.calls == 140 + 3 * 40 == MONITOR.counts()[shape]
    del batch, graph
    assert slot.calls == 140 + 3 * 40


def test_a_call_now_and_then_is_timed_by_the_gpu(table):
    product = Product(rows=200, columns=4096, depth=4096)
    _, call = product.bound()
    for _ in range(100):
        call()
    assert 1e-6 < slot_of(table).seconds / slot_of(table).calls < 1e-3


@pytest.mark.parametrize("kind", ["eager", "bound", "batch", "graph"])
def test_A6_a_swap_is_seen_by_the_next_call_whatever_makes_it(table, kind):
    product = Product()
    launch, call = product.bound()
    gpu = Gpu(0)
    calls = {"eager": product.call, "bound": call}
    if kind in ("batch", "graph"):
        torch.cuda.synchronize()
        run = gpu.prepared([launch]) if kind == "batch" else gpu.replayed([launch])

        def replay():
            product.y.fill_(float("nan"))
            torch.cuda.synchronize()
            run()
            gpu.wait()
            product.check()

        calls[kind] = replay
    for _ in range(3):
        calls[kind]()
    slot = slot_of(table)
    before = launch.kernel
    assert promotion.promote(slot, other(slot))
    calls[kind]()
    if kind != "eager":
        assert launch.kernel.design == slot.special.kernel.design != before.design
    assert slot.hits == 1
    promotion.roll_back(slot, "for the test")
    calls[kind]()
    if kind != "eager":
        assert launch.kernel.design == before.design
    assert (slot.swaps, slot.hits, slot.calls) == (2, 1, 5)


def test_A7_a_miss_is_answered_by_one_kernel_for_any_length(table):
    """No length that is new compiles anything: the generic kernel of the first one answers it."""
    Product(rows=100).call()
    known = modes.counts()
    for rows in (1, 7, 33, 64, 130, 257, 511):
        Product(rows=rows).call()
    assert modes.counts().compiles == known.compiles


def test_A8_kernels_are_specialised_by_batch_range(table):
    inside, outside = [Product(rows=n) for n in (129, 256)], [Product(rows=n) for n in (128, 257)]
    for product in (*inside, *outside):
        product.call()
    slot = next(s for s in table.slots() if dict(s.place)["M"] == Range(129, 256))
    promotion.promote(slot, other(slot))
    for product in (*inside, *outside):
        product.call()
    assert {str(dict(s.place)["M"]): s.hits for s in table.slots()} == {"129-256": 2, "65-128": 0, "257-512": 0}
    assert dict(slot.special.kernel.request.sizes) == {"K": 512, "N": 256}  # of all lengths; the rest are constants


def test_sixteen_threads_call_while_kernels_are_swapped(table):
    products = [Product(seed=n) for n in range(16)]
    products[0].call()
    slot = slot_of(table)
    records = [other(slot, stages=2), other(slot, stages=3)]
    for record in records:  # compiled before it counts
        slot.origin.load(slot.place, dict(record.key.sizes), record.design)
    errors, start = [], threading.Barrier(17)

    def work(product):
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                launch = ops.linear.bind(product.x, product.w, out=product.y)
                start.wait()
                for n in range(60):
                    product.y.fill_(float("nan"))
                    if n % 2:
                        launch()
                    else:
                        ops.linear(product.x, product.w, out=product.y)
                    stream.synchronize()
                    product.check()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in products]
    for thread in threads:
        thread.start()
    start.wait()
    n = 0
    while any(t.is_alive() for t in threads):
        promotion.promote(slot, records[n % 2])
        n += 1
        threads[n % 16].join(0.005)
    assert not errors, errors[0]
    assert n > 3
    assert slot.calls == 16 * 60 + 1


def test_A5_a_kernel_is_designed_in_another_process_and_swapped_in(table):
    """The background's own process, on this GPU; here nothing is compiled for it."""
    product = Product(rows=48, columns=1024, depth=2048)
    for _ in range(3):
        product.call()
    slot = slot_of(table)
    process = BackgroundProcess(Budget(share=1.0))
    try:
        answer = process.ask({"job": "design", **job_of(slot), "trials": 3, "seconds": 60.0, "seed": 0})
        assert answer["status"] == "found", answer
        record = Record.from_dict(answer["record"])
        named = {"design": record.design.to_json(), "sizes": list(slot.common), "seed": 7}
        checked = process.ask({"job": "verify", **job_of(slot), **named})
        assert checked["status"] == "right", checked
    finally:
        process.stop()
    before = modes.counts().compiles
    promotion.promote(slot, record)
    product.call()
    assert modes.counts().compiles == before
    assert slot.state in ("specialised", "kept generic")


def test_a_learner_learns_on_a_gpu(table):
    learning = Learner(table, Trigger(count=3, payback=None), Budget(trials=2, share=1.0))
    try:
        product = Product(rows=48, columns=1024, depth=2048)
        for _ in range(5):
            product.call()
        assert learning.step()
        product.call()
        assert slot_of(table).state in ("specialised", "kept generic"), slot_of(table).reason
    finally:
        learning.stop()


def alike(subject, start, most=3, steps=120):
    """Designs that pinned numerics allow in place of `start`, by random steps."""
    chance, design, found = random.Random(5), start, []
    for _ in range(steps):
        step = random_step(subject.kernel, design, subject.facts, chance)
        if step is not None and not differs(subject.kernel, step[1], start):
            design = step[1]
            if design not in found and design != start:
                found.append(design)
        if len(found) >= most:
            break
    return found


def test_A7_pinned_swaps_leave_every_bit_of_a_models_logits(table, tmp_path, monkeypatch):
    """Each slot of a small model is swapped to designs that pinned numerics allow; logits are the same to the bit."""
    monkeypatch.setenv("TILEWRIGHT_NUMERICS", "pinned")
    shape = Shape(hidden=256, layers=2, heads=4, kv_heads=2, intermediate=512, vocabulary=512)
    write_checkpoint(tmp_path / "model", shape)
    decoder = Decoder.from_folder(tmp_path / "model", device="cuda")
    cache = decoder.new_cache(1, 1024)
    decoder.reserve(cache, 1, 1000)
    ids = np.random.default_rng(0).integers(0, 512, 100).tolist()

    def logits():
        cache.clear(0)
        return decoder.prefill(cache, 0, ids, Want.LAST).copy()

    before, used = logits(), 0
    np.testing.assert_array_equal(logits(), before)
    for slot in table.slots():
        subject = subject_of(slot)
        for design in alike(subject, slot.origin.generic_design(dict(slot.common))):
            record = Record(subject.key(), design, 1e-6, 2e-6, 0.01, True, 0, now())
            try:
                promotion.promote(slot, record)
            except (IllegalDesign, CompileError):  # what the assembler makes of it is known only now
                continue
            np.testing.assert_array_equal(logits(), before, err_msg=f"{slot.shape}: {design.to_json()}")
            used += not changes_bits(slot.origin, slot.special, dict(slot.common))
    assert used > 5
