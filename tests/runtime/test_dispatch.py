"""Dispatch: launches, threads, kernels shared by lengths, Python threads, and caches that are damaged or closed."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from cases import Case, Memory

from tilewright import operators
from tilewright.design.design import Design
from tilewright.errors import ArgumentError, CacheWarning, IllegalDesign
from tilewright.machines.machine import Machine
from tilewright.runtime import dispatch, launch, tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.table import Table


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A process that knows no kernel, and a cache folder of its own."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache"


def forget(monkeypatch):
    """As a new process would begin."""
    monkeypatch.setattr(dispatch, "_kernels", {})
    monkeypatch.setattr(dispatch, "_by_design", {})
    monkeypatch.setattr(dispatch, "TABLE", Table())


def rmsnorm(rows, columns, seed=0):
    memory = Memory(seed)
    x, weight = (memory.random.standard_normal(shape, np.float32) for shape in ((rows, columns), (columns,)))
    return Case(operators.rmsnorm, {"x": x, "weight": weight}, {"y": ((rows, columns), np.float32)}, {"eps": 1e-5})


def attention(batch, lengths, seed=0):
    random = np.random.default_rng(seed)
    shape, room = (batch, 2, 2, 1, 16), (batch, 2, max(lengths) + 3, 16)
    q, k, v = (random.standard_normal(s, np.float32) for s in (shape, room, room))
    inputs = {"q": q, "k": k, "v": v, "lengths": np.array(lengths)}
    case = Case(operators.attention, inputs, {"o": (shape, np.float32)}, {"scale": 0.25})
    case.options = {"causal": True, "window": None}
    return case


def matmul(rows, seed=0):
    random = np.random.default_rng(seed)
    a, b = (random.standard_normal(s, np.float32) for s in ((rows, 200), (96, 200)))
    return Case(operators.matmul, {"a": a, "b": b}, {"c": ((rows, 96), np.float32)}, options={"activation": None})


def bound(case):
    """(launch, outputs) of a case, the outputs poisoned."""
    outputs = {n: np.full(shape, np.nan, kind) for n, (shape, kind) in case.outputs.items()}
    buffers = {n: Buffer.of(x) for n, x in {**case.inputs, **outputs}.items()}
    return dispatch.bind(case.operator, buffers, case.scalars, case.options), outputs


def launched(case):
    launch, outputs = bound(case)
    launch()
    return outputs


def check(case):
    expected = case.expected()
    for name, actual in launched(case).items():
        tolerance.check(name, actual, expected[name])


# ------------------------------------------------------------------------------------------- launches
def test_a_launch_reads_what_the_memory_then_holds():
    case = rmsnorm(5, 70)
    launch, outputs = bound(case)
    for seed in range(3):
        case.inputs["x"][...] = np.random.default_rng(seed).standard_normal((5, 70))
        outputs["y"][...] = np.nan
        launch()
        tolerance.check("y", outputs["y"], case.expected()["y"])


def test_a_launch_keeps_its_operands_alive():
    case = rmsnorm(3, 40)
    launch, outputs = bound(case)
    expected = case.expected()["y"]
    case.inputs.clear()
    launch()
    tolerance.check("y", outputs["y"], expected)


def test_operands_on_several_devices_are_refused():
    x = np.zeros((2, 3), np.float32)
    there = Buffer(0, (2, 3), (3, 1), Buffer.of(x).dtype, "cuda:0")
    with pytest.raises(ArgumentError, match=r"silu: operands lie on several devices \(x on cuda:0, y on cpu\)"):
        dispatch.bind(operators.silu, {"x": there, "y": Buffer.of(x)}, {}, {})


@pytest.mark.parametrize("rows", [0, 1, 4, 16, 17, 40])
def test_products_of_every_class_of_rows(rows):
    check(matmul(rows))


# -------------------------------------------------------------------------------------------- threads
@pytest.mark.parametrize(
    "case", [matmul(300), rmsnorm(700, 300), attention(5, [90, 1, 33, 0, 64])], ids=lambda c: c.operator.name
)
def test_one_thread_and_two_give_the_same_bits(case, monkeypatch):
    monkeypatch.setattr(launch, "_WORTH_A_TEAM", 0.0)
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("TILEWRIGHT_THREADS", threads)
        found.append(launched(case))
    assert len(dispatch.kernels()) == 1
    for name, first in found[0].items():
        tolerance.check(name, first, case.expected()[name])
        for other in found[1:]:
            np.testing.assert_array_equal(first.view(np.uint32), other[name].view(np.uint32))


def test_the_machine_follows_the_settings(monkeypatch):
    """Keys of the book name it: one remembered from other settings would match no other process's."""
    dispatch.machine()
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    assert dispatch.machine().cores == 1
    assert dispatch.machine() == Machine.detect()


def test_small_work_runs_alone(monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_THREADS", "2")
    monkeypatch.setattr(dispatch.pool, "get", lambda *_: pytest.fail("a team for a few elements"))
    check(rmsnorm(2, 8))


def test_python_threads_that_meet_a_new_shape_compile_it_once():
    errors, cases = [], [rmsnorm(64, 128, seed) for seed in range(4)]
    start = threading.Barrier(len(cases))

    def work(case):
        try:
            start.wait()
            for _ in range(5):
                check(case)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(dispatch.kernels()) == 1


# -------------------------------------------------------------------------------------------- lengths
def test_a_new_sequence_length_compiles_nothing():
    check(attention(2, [40, 37]))
    check(rmsnorm(40, 64))
    check(matmul(40))
    known = dispatch.kernels()
    for length in (41, 57, 63, 64, 65, 100, 127, 300):
        check(attention(2, [length, length // 2], seed=length))
        check(rmsnorm(length, 64, seed=length))
        check(matmul(length, seed=length))
    assert dispatch.kernels() == known


def test_another_head_size_is_another_kernel():
    check(attention(1, [20]))
    case = attention(1, [20])
    case.inputs |= {n: case.inputs[n][..., :8].copy() for n in "qkv"}
    case.outputs = {"o": ((*case.outputs["o"][0][:-1], 8), np.float32)}
    check(case)
    assert len(dispatch.kernels()) == 2


# ------------------------------------------------------------------------------------------ the cache
def test_a_second_process_compiles_nothing(monkeypatch):
    check(rmsnorm(5, 70))
    assert dispatch.kernels()[0].binary.seconds > 0
    forget(monkeypatch)
    check(rmsnorm(5, 70))
    assert dispatch.kernels()[0].binary.seconds == 0


@pytest.mark.parametrize("stage", ["o", "meta"])
def test_a_damaged_entry_is_compiled_again(fresh, monkeypatch, stage):
    check(rmsnorm(5, 70))
    (entry,) = fresh.rglob(f"*.{stage}")
    whole = entry.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        entry.write_bytes(damaged)
        forget(monkeypatch)
        with pytest.warns(CacheWarning, match="is damaged; it was dropped and will be compiled again"):
            check(rmsnorm(5, 70))
        assert entry.read_bytes() == whole


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(CacheWarning, match="cannot write to the cache folder"):
        check(rmsnorm(5, 70))
    with warnings.catch_warnings():  # it is said once
        warnings.simplefilter("error")
        check(matmul(5))


def test_a_read_only_folder_serves_what_it_holds(fresh, monkeypatch):
    check(rmsnorm(5, 70))
    held = {p: p.read_bytes() for p in fresh.rglob("*") if p.is_file()}
    monkeypatch.setattr("os.replace", refused)
    forget(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(rmsnorm(5, 70))
    with pytest.warns(CacheWarning, match="Read-only file system"):
        check(matmul(5))
    assert {p: p.read_bytes() for p in fresh.rglob("*") if p.is_file()} == held


def refused(*_):
    raise OSError(30, "Read-only file system")


# ----------------------------------------------------------------------------------------- the design
def test_an_illegal_design_is_named_with_its_reasons():
    case = matmul(8)
    program = dispatch.Program.of(operators.matmul.kernel.trace(dict.fromkeys("abc", "f32"), options=case.options))
    buffers = {**case.inputs, "c": np.zeros((8, 96), np.float32)}
    layouts = tuple((n, dispatch.layout_of(Buffer.of(x))) for n, x in buffers.items())
    sizes = {"M": 8, "N": 96, "K": 200}
    request = dispatch.requested(program, layouts, sizes, dispatch.machine(), Design.of({"pack.c": "panel"}))
    with pytest.raises(IllegalDesign, match=r"pack\.c=panel: c is not just an operand of dots; drop it"):
        dispatch.compiled(program, request)
