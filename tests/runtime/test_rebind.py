"""Rebinding: a call like an earlier one runs on its own memory, is checked as the first one was, and keeps nothing."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError
from tilewright.ops.op import op
from tilewright.runtime import form, rebind


@pytest.fixture
def counted(monkeypatch):
    """Ops as new, and how often each was bound: counted("linear") gives (op, list of calls)."""

    def make(name):
        calls = []
        original = getattr(ops, name)

        def bound(*args, **kwargs):
            calls.append(args)
            return original._bound(*args, **kwargs)

        ops.silu(torch.zeros(3))  # the first call of all chooses the backend, and shows what a tensor is
        return op(bound), calls

    return make


def random(*shape, seed=0):
    """Normal numbers in an array that starts at a cache line, as results of torch do and those of NumPy may."""
    room = np.empty(int(np.prod(shape)) + 16, np.float32)
    first = -room.ctypes.data % 64 // 4
    array = room[first : first + int(np.prod(shape))].reshape(shape)
    array[...] = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return array


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_the_second_call_is_not_bound_and_computes_on_its_own_memory(counted, convert):
    linear, calls = counted("linear")
    for seed in range(4):
        x, w = random(3, 5, 32, seed=seed), random(7, 32, seed=seed + 10)
        y = linear(convert(x), convert(w))
        assert type(y) is type(convert(x))
        np.testing.assert_allclose(np.asarray(y), x.astype(np.float64) @ w.T.astype(np.float64), atol=1e-4)
    assert len(calls) == 1


def test_results_of_several_calls_are_different_memory():
    x = torch.ones(4, 8)
    first, second = ops.silu(x), ops.silu(x + 1)
    assert first.data_ptr() != second.data_ptr()
    assert not torch.equal(first, second)


def test_two_results_come_as_a_tuple(counted):
    add_rmsnorm, calls = counted("add_rmsnorm")
    weight = torch.ones(16)
    for seed in range(3):
        x, r = (torch.from_numpy(random(2, 16, seed=seed + s)) for s in (0, 9))
        normed, total = add_rmsnorm(x, r, weight)
        torch.testing.assert_close(total, x + r)
        torch.testing.assert_close(normed, torch.nn.functional.rms_norm(x + r, (16,), weight, 1e-6))
    assert len(calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:-1],
        lambda x: x.T.copy().T,
        lambda x: x.astype(np.float16),
        lambda x: np.ascontiguousarray(np.pad(x, ((0, 0), (0, 1))))[:, :-1],
    ],
    ids=["shape", "order", "dtype", "stride"],
)
def test_another_form_is_bound_anew(counted, change):
    silu, calls = counted("silu")
    x = random(6, 6)
    silu(x)
    y = silu(change(x))
    assert len(calls) == 2
    assert y.dtype == change(x).dtype
    np.testing.assert_allclose(y.astype(np.float32), ops.silu(np.ascontiguousarray(change(x))), atol=1e-3)


def test_scalars_belong_to_the_form_and_zeros_have_signs(counted):
    scale_add, calls = counted("scale_add")
    a, b = np.ones(4, np.float32), np.full(4, -0.0, np.float32)
    assert [float(scale_add(a, alpha, b)[0]) for alpha in (2.0, 3.0, 2.0)] == [2, 3, 2]
    assert len(calls) == 2
    assert not np.signbit(scale_add(a, 0.0, b)).any()
    assert np.signbit(scale_add(a, -0.0, b)).all()


def test_one_tensor_in_two_places_is_a_form_of_its_own():
    a, b = random(5), random(5, seed=1)
    for x, y in ((a, a), (a, b), (b, b), (b, a)):
        np.testing.assert_allclose(ops.scale_add(x, 2.0, y), 2 * x + y, rtol=1e-6)


def test_out_may_be_the_operand_every_time(counted):
    silu, calls = counted("silu")
    wanted = ops.silu(random(40))
    for _ in range(3):
        x = random(40)
        assert silu(x, out=x) is x
        np.testing.assert_array_equal(x, wanted)
    assert len(calls) == 1


def test_out_that_overlaps_is_refused_however_well_known_the_form_is(counted):
    silu, calls = counted("silu")
    memory = torch.zeros(64)
    silu(memory[:16], out=memory[16:32])
    silu(memory[:16], out=memory[32:48])
    assert len(calls) == 1
    with pytest.raises(ArgumentError, match="shares memory"):
        silu(memory[:16], out=memory[8:24])


def test_a_result_that_is_read_only_is_refused(counted):
    silu, _ = counted("silu")
    x, y = random(8), random(8)
    silu(x, out=y)
    y.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        silu(x, out=y)


def test_what_memory_holds_is_checked_every_time():
    table, ids = np.eye(4, dtype=np.float32), np.array([0, 3])
    for _ in range(2):
        np.testing.assert_array_equal(ops.embedding(ids, table), table[ids])
    with pytest.raises(ArgumentError, match="outside"):
        ops.embedding(np.array([0, 4]), table)


def test_operands_and_results_are_not_kept_alive():
    x, w = torch.ones(2, 8), torch.ones(4, 8)
    y = ops.linear(x, w)
    y = ops.linear(x, w)
    dead = [weakref.ref(t) for t in (x, w, y)]
    del x, w, y
    gc.collect()
    assert [r() for r in dead] == [None, None, None]


def test_memory_that_lies_less_well_is_bound_anew():
    memory = np.zeros(64, np.float32)
    form = rebind.Form((memory,), {})
    bound = ops.silu._bound(memory)
    known = rebind.rebound(form, bound.launches, bound.result)
    assert known is not None and known.low_bits == ()  # nothing in this kernel relies on alignment
    strict = dataclasses.replace(known, low_bits=(form.pointers[0] % 64 + 4, 0))
    assert known.run(rebind.Form((memory,), {}))[0]
    assert not strict.run(rebind.Form((memory,), {}))[0]


def test_alignment_at_a_cache_line_is_a_part_of_the_form():
    memory = torch.zeros(80)
    keys = {rebind.Form((memory[n : n + 8],), {}).key for n in range(16)}
    assert len(keys) == 2


def test_another_backend_is_asked_every_time():
    asked = []

    def backend(operator, buffers, scalars, options):
        asked.append(operator.name)
        return lambda: None

    x = random(8)
    ops.silu(x)
    with ops.using(backend):
        ops.silu(x)
        ops.silu(x)
    assert asked == ["silu", "silu"]
    np.testing.assert_allclose(ops.silu(x), x / (1 + np.exp(-x)), rtol=1e-5)


def test_forget_binds_every_form_anew(counted):
    silu, calls = counted("silu")
    x = random(8)
    silu(x)
    rebind.forget()
    silu(x)
    silu(x)
    assert len(calls) == 2


def test_the_oldest_of_too_many_forms_makes_room(counted, monkeypatch):
    monkeypatch.setattr(rebind, "MOST", 3)
    silu, calls = counted("silu")
    for n in (1, 2, 3, 1, 4, 1, 2):  # 4 drops 2, the one not met for longest; of records 1, the first
        silu(random(n))
    assert [len(c[0]) for c in calls] == ([1, 2, 3, 4, 1, 2] if form.compiled() else [1, 2, 3, 4, 2])


def test_python_threads_do_not_mix_their_memory():
    w = random(24, 32)
    wrong = []

    def work(seed):
        x = random(4, 32, seed=seed)
        wanted = x.astype(np.float64) @ w.T.astype(np.float64)
        wrong.extend(seed for _ in range(200) if not np.allclose(ops.linear(x, w), wanted, atol=1e-4))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_subclasses_of_tensors_and_other_devices_are_left_alone():
    class Mine(torch.Tensor):
        pass

    assert rebind.Form((torch.zeros(3).as_subclass(Mine),), {}).key is None
    assert rebind.Form((torch.zeros(3, device="meta"),), {}).key is None
    assert rebind.Form((object(),), {}).key is None


def test_a_changed_book_is_met_by_calls_of_known_forms(counted):
    from tilewright.runtime import dispatch

    silu, calls = counted("silu")
    silu(random(7))
    silu(random(7))
    assert len(calls) == 1
    dispatch.forget_chosen()
    silu(random(7))
    assert len(calls) == 2
