import ctypes
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tilewright.errors import MachineError
from tilewright.machines import Machine, _streaming, bandwidth
from tilewright.machines._jit import Compiled
from tilewright.machines._stream_kernels import LINE, StreamKernel
from tilewright.machines.bandwidth import OPERATIONS, Bandwidth, measured_bandwidth, probe, remembered

Forget = Callable[[], None]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small buffers and short runs: the way is the same, the rates mean nothing."""
    monkeypatch.setattr(_streaming, "_MOST_BYTES", 2**22)
    monkeypatch.setattr(_streaming, "_PASS_SECONDS", 1e-4)


def line_aligned(size: int) -> np.ndarray:
    block = np.zeros(size + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + size]


def kernels(operation: str) -> list[StreamKernel]:
    return _streaming.candidates(Machine.detect(), operation)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("passes", [1, 3])
def test_every_kernel_touches_every_byte_once_a_pass(operation: str, passes: int) -> None:
    machine, rng = Machine.detect(), np.random.default_rng(7)
    for kernel in kernels(operation):
        size = 3 * kernel.streams * kernel.step
        source, target = line_aligned(size), line_aligned(size + LINE)
        source[:] = rng.integers(0, 256, size)
        target[:] = 171
        function = Compiled(kernel.ir, machine.llvm_cpu, machine.llvm_features).function(
            "kernel", *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2
        )
        function(source.ctypes.data, target.ctypes.data, size, passes)
        width = kernel.bits // 8
        if operation == "read":
            lanes = source.view(np.uint32).reshape(-1, width // 4).sum(axis=0, dtype=np.uint32) * np.uint32(passes)
            assert np.array_equal(target[:width].view(np.uint32), lanes)
            assert (target[width:] == 171).all()
        else:
            assert np.array_equal(target[:size], source)
            assert (target[size:] == 171).all()


def test_nontemporal_copies_use_nontemporal_stores() -> None:
    assert "!nontemporal !0" in StreamKernel("copy_nontemporal", 256, 1, 64).ir
    assert "!nontemporal !0" not in StreamKernel("copy", 256, 1, 64).ir


def test_sums_fit_the_registers() -> None:
    neon = Machine.named("arm-neon")
    for machine in (neon, Machine.named("x86-avx2"), Machine.named("zen5")):
        sums = [k.streams * k.step * 8 // k.bits for k in _streaming.candidates(machine, "read")]
        assert sums and max(sums) <= machine.vector_registers - 2
    assert {k.bits for k in _streaming.candidates(neon, "copy")} == {128}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("threads", [1, 2])
def test_measured_once_then_remembered(
    empty_cache: Path, threads: int, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    machine = Machine.detect()
    assert remembered(machine, threads) is None
    found = measured_bandwidth(machine, threads)
    assert found.threads == threads
    assert all(1e8 < getattr(found, operation) < 1e13 for operation in OPERATIONS)
    forget()
    monkeypatch.setattr(_streaming, "measure", lambda *_: pytest.fail("measured again"))
    assert measured_bandwidth(Machine.detect(), threads) == found
    (record,) = (empty_cache / "machines").glob("bandwidth-*.json")
    samples = json.loads(record.read_text())["samples"]
    assert {o: len(s["bytes_per_s"]) for o, s in samples.items()} == dict.fromkeys(OPERATIONS, _streaming._SAMPLES)


@pytest.mark.usefixtures("quick")
def test_refresh_measures_again(empty_cache: Path, monkeypatch: pytest.MonkeyPatch, forget: Forget) -> None:
    machine = Machine.detect()
    first = dict.fromkeys(OPERATIONS, 1e9)
    monkeypatch.setattr(_streaming, "measure", lambda *_: (first, {}))
    assert measured_bandwidth(machine, 1).read == 1e9
    monkeypatch.setattr(_streaming, "measure", lambda *_: (dict.fromkeys(OPERATIONS, 2e9), {}))
    assert measured_bandwidth(machine, 1).read == 1e9
    assert measured_bandwidth(machine, 1, refresh=True).read == 2e9
    forget()
    assert measured_bandwidth(machine, 1).read == 2e9


def test_detection_attaches_what_was_measured(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    rates = {"read": 3e9, "copy": 4e9, "copy_nontemporal": 5e9}
    monkeypatch.setattr(_streaming, "measure", lambda *_: (rates, {}))
    plain = Machine.detect()
    assert plain.memory.read is None
    measured_bandwidth(plain)
    for _ in range(2):  # in this process, then as another one would
        machine = Machine.detect()
        assert (machine.memory.read, machine.memory.copy, machine.memory.copy_nontemporal) == (3e9, 4e9, 5e9)
        assert machine.fingerprint == plain.fingerprint
        forget()


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", '{"read": "fast"}', '{"read": 0, "copy": 1, "copy_nontemporal": 1, "threads": 1}',
     '{"read": NaN, "copy": 1, "copy_nontemporal": 1, "threads": 1}'],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_a_miss(empty_cache: Path, text: str, forget: Forget) -> None:
    machine = Machine.detect()
    path = empty_cache / "machines" / f"bandwidth-{machine.fingerprint}-1.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert remembered(machine, 1) is None
    forget()
    path.write_text(json.dumps({"read": 1.0, "copy": 2.0, "copy_nontemporal": 3.0, "threads": 1}))
    assert remembered(machine, 1) == Bandwidth(1.0, 2.0, 3.0, 1)


@pytest.mark.usefixtures("quick")
def test_probe_times_streams_beside_other_work() -> None:
    with probe(Machine.detect(), 1) as streams:
        assert all(streams.rate(operation) > 1e8 for operation in OPERATIONS)


def test_machines_that_this_host_is_not_are_refused() -> None:
    with pytest.raises(MachineError, match="'h200' cannot be measured"):
        measured_bandwidth(Machine.named("h200"))
    with pytest.raises(MachineError, match="0 threads"):
        measured_bandwidth(Machine.detect(), 0)
    host = Machine.detect()
    if host.kind == "x86" and host.vector is not None:
        more = replace(host, vector=replace(host.vector, features=(*host.vector.features, "amx-complex")))
        with pytest.raises(MachineError, match="lacks amx-complex"):
            measured_bandwidth(more)


def test_buffer_is_bounded_by_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine.named("zen5")
    assert _streaming._buffer_bytes(machine) <= 2**29
    monkeypatch.setattr(_streaming, "free_memory", lambda: 2**28)
    assert _streaming._buffer_bytes(machine) == 2**26
    assert bandwidth.OPERATIONS == OPERATIONS
