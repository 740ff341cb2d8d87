import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tilewright.errors import CacheWarning, KnobError, MachineError
from tilewright.machines import Machine, cores, trial, x86

Forget = Callable[[], None]

on_x86 = pytest.mark.skipif(cores.host_kind() != "x86", reason="x86 only")


def test_detected_machine_round_trips() -> None:
    machine = Machine.detect()
    assert machine.is_cpu and machine.cores == cores.cores_available()
    assert Machine.from_json(machine.to_json()) == machine
    assert machine.l1_bytes <= machine.l2_bytes
    assert machine.vector_bits in (128, 256, 512)
    assert Machine.detect() is machine


@on_x86
def test_a_second_process_reads_what_the_first_found(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    first = Machine.detect()
    forget()
    monkeypatch.setattr(trial, "try_features", lambda: pytest.fail("tried again"))
    assert Machine.detect() == first


@on_x86
@pytest.mark.parametrize("damage", ["{", '{"features": ["warp-drive"]}', '{"features": 3}', "[]"])
def test_a_damaged_record_is_found_again(empty_cache: Path, damage: str, forget: Forget) -> None:
    first = Machine.detect()
    (record,) = (empty_cache / "machines").glob("isa-*.json")
    record.write_text(damage)
    forget()
    if damage == "{":
        with pytest.warns(CacheWarning):
            assert Machine.detect().fingerprint == first.fingerprint
    else:
        assert Machine.detect().fingerprint == first.fingerprint
    assert record.stat().st_size > 100


@on_x86
def test_an_unwritable_cache_does_not_matter(unwritable_cache: Path) -> None:
    with pytest.warns(CacheWarning):
        machine = Machine.detect()
    assert machine.kind == "x86"


@on_x86
def test_where_no_child_can_run_reports_are_believed(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, forget: Forget
) -> None:
    tried = Machine.detect()
    forget()
    (next((empty_cache / "machines").glob("isa-*.json"))).unlink()
    monkeypatch.setattr(trial, "try_features", lambda: None)
    machine = Machine.detect()
    assert machine.has("sse2") and not machine.has("amx-tile")
    assert machine.vector_bits >= tried.vector_bits
    assert all(a.flops_per_cycle is None for a in machine.atoms)


@on_x86
def test_a_named_cpu_restricts_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Machine.detect()
    if not host.has("avx2"):
        pytest.skip("a host without AVX2")
    monkeypatch.setenv("TILEWRIGHT_MACHINE", "x86-avx2")
    machine = Machine.detect()
    assert (machine.vector_bits, machine.vector_registers, machine.has("avx512f")) == (256, 16, False)
    assert (machine.cores, machine.levels) == (host.cores, host.levels)
    assert machine.fingerprint != host.fingerprint or host.vector == machine.vector
    assert machine.atom("fma").shape == (1, 8, 1)


@on_x86
def test_a_cpu_that_the_host_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if Machine.detect().has("amx-bf16"):
        pytest.skip("this host could be one")
    monkeypatch.setenv("TILEWRIGHT_MACHINE", "sapphire-rapids")
    with pytest.raises(MachineError, match=r"TILEWRIGHT_MACHINE=sapphire-rapids.*lacks .*amx-.*unset"):
        Machine.detect()
    monkeypatch.setenv("TILEWRIGHT_MACHINE", "arm-neon")
    with pytest.raises(MachineError, match="kind x86"):
        Machine.detect()


def test_a_named_accelerator_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_MACHINE", "h200")
    assert Machine.detect() == Machine.named("h200")


def test_threads_bound_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_THREADS", "1")
    assert Machine.detect().cores == 1
    monkeypatch.setenv("TILEWRIGHT_THREADS", "4096")
    assert Machine.detect().cores == cores.cores_available()
    monkeypatch.setenv("TILEWRIGHT_THREADS", "none")
    with pytest.raises(KnobError, match="TILEWRIGHT_THREADS"):
        Machine.detect()


@pytest.mark.parametrize(
    ("processor", "kind", "bits", "registers"), [("aarch64", "arm", 128, 32), ("riscv64", "generic", 128, 16)]
)
def test_other_processors_have_a_description_too(
    processor: str, kind: str, bits: int, registers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: processor)
    machine = Machine.detect()
    assert (machine.kind, machine.vector_bits, machine.vector_registers) == (kind, bits, registers)
    assert machine.cores >= 1 and machine.l1_bytes > 0
    assert machine.llvm_cpu == ""


@on_x86
def test_identity_does_not_change_between_calls() -> None:
    assert x86.cpu_identity() == x86.cpu_identity()
    assert len(x86.cpu_identity()) == 16


@on_x86
def test_identity_without_sysfs_leaves_out_what_wobbles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(x86, "_MODALIAS", tmp_path / "absent")
    monkeypatch.setattr(x86, "_CPUINFO", cpuinfo)
    identities = []
    for mhz, flags in (("2100.1", "avx2"), ("3999.9", "avx2"), ("2100.1", "avx2 avx512f")):
        cpuinfo.write_text(f"processor\t: 0\ncpu MHz\t\t: {mhz}\nflags\t: {flags}\n\nprocessor\t: 1\n")
        identities.append(x86.cpu_identity())
    assert identities[0] == identities[1] != identities[2]


@on_x86
def test_amx_permission_follows_the_processor() -> None:
    assert x86.request_amx() or not Machine.detect().has("amx-tile")


def test_detection_imports_neither_numpy_nor_llvm_nor_torch(shared_cache: Path) -> None:
    Machine.detect()
    code = (
        "import sys; from tilewright.machines import Machine; Machine.detect(); "
        "print(*{'torch', 'numpy', 'llvmlite', 'subprocess'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    allowed = {"numpy"} & set(subprocess_modules(environment))
    assert set(done.stdout.split()) <= allowed


def subprocess_modules(environment: dict[str, str]) -> list[str]:
    """What a bare `import tilewright` brings in already."""
    code = "import sys, tilewright; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()
