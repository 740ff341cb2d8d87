"""Which instruction sets the host really executes, found by executing them in a child process.

Reported features can be wrong (an emulator, a hypervisor, a kernel that does not save the registers),
and one wrong instruction ends the process. So a child executes one instruction of each family and
reports it before the next; when it dies or hangs, only the family it was trying is lost.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewright.machines import isa
from tilewright.machines.cpuid import cpuid
from tilewright.machines.speed import measure_speed

AMX_SYSCALL = (158, 0x1023, 18)  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
CHILD = "from tilewright.machines.trial import child; child()"
_TIMEOUT = 30.0
_BUFFER = 1024


@dataclass(frozen=True)
class Trial:
    """A family of instructions: assembly on pointers $0, $1 (operands), $2 (result), $3 (tile configuration).

    Each operand is one bit pattern repeated; the result must be `expected`, repeated over `bytes`.
    """

    feature: str
    asm: str
    a: bytes
    b: bytes
    c: bytes
    expected: bytes
    bytes: int
    needs: str = ""


def _f32(x: float) -> bytes:
    return struct.pack("<f", x)


def _bf16(x: float) -> bytes:
    return _f32(x)[2:]


def _i32(x: int) -> bytes:
    return struct.pack("<i", x)


def _accumulate(width: str, instruction: str) -> str:
    """$2 += $0 * $1 by one three-operand instruction on registers of `width` (ymm or zmm)."""
    v = "%" + width
    return (
        f"vmovups ($0), {v}0; vmovups ($1), {v}1; vmovups ($2), {v}2; {instruction} {v}1, {v}0, {v}2; "
        f"vmovups {v}2, ($2); vzeroupper"
    )


def _tiles(instruction: str) -> str:
    """$2 += $0 * $1 on three AMX tiles of 16 rows by 64 bytes."""
    load = "; ".join(f"tileloadd (${i},%rax,1), %tmm{t}" for t, i in ((1, 0), (2, 1), (0, 2)))
    return (
        f"ldtilecfg ($3); movq $$64, %rax; {load}; {instruction} %tmm2, %tmm1, %tmm0; "
        "tilestored %tmm0, ($2,%rax,1); tilerelease"
    )


_TWO, _THREE, _ONE = _f32(2), _f32(3), _f32(1)
_H = struct.Struct("<e").pack
TRIALS: tuple[Trial, ...] = (
    Trial("avx", _accumulate("ymm", "vaddps"), _TWO, _THREE, _ONE, _f32(5), 32),
    Trial("avx2", _accumulate("ymm", "vpaddd"), _i32(2), _i32(3), _i32(1), _i32(5), 32),
    Trial("fma", _accumulate("ymm", "vfmadd231ps"), _TWO, _THREE, _ONE, _f32(7), 32),
    Trial("f16c", "vcvtph2ps ($0), %ymm0; vmovups %ymm0, ($2); vzeroupper", _H(2), _THREE, _ONE, _TWO, 32),
    Trial("avxvnni", _accumulate("ymm", "{vex} vpdpbusd"), b"\x02", b"\x03", _i32(1), _i32(25), 32),
    Trial("avx512f", _accumulate("zmm", "vfmadd231ps"), _TWO, _THREE, _ONE, _f32(7), 64),
    Trial("avx512bw", _accumulate("zmm", "vpaddw"), b"\x02\0", b"\x03\0", _i32(1), b"\x05\0", 64),
    Trial("avx512dq", _accumulate("zmm", "vpmullq"), b"\x02" + b"\0" * 7, b"\x03" + b"\0" * 7, _i32(1),
          b"\x06" + b"\0" * 7, 64),
    Trial("avx512vl", "kxnorw %k1, %k1, %k1; vmovdqu32 ($0), %ymm16; vpaddd ($1), %ymm16, %ymm16 {%k1} {z}; "
          "vmovdqu32 %ymm16, ($2)", _i32(2), _i32(3), _i32(1), _i32(5), 32),
    Trial("avx512vnni", _accumulate("zmm", "vpdpbusd"), b"\x02", b"\x03", _i32(1), _i32(25), 64),
    Trial("avx512bf16", _accumulate("zmm", "vdpbf16ps"), _bf16(2), _bf16(3), _ONE, _f32(13), 64),
    Trial("avx512fp16", _accumulate("zmm", "vfmadd231ph"), _H(2), _H(3), _H(1), _H(7), 64),
    Trial("amx-tile", _tiles("tdpbssd"), b"\x02", b"\x03", _i32(1), _i32(385), 1024, needs="+amx-int8"),
    Trial("amx-int8", _tiles("tdpbssd"), b"\x02", b"\x03", _i32(1), _i32(385), 1024),
    Trial("amx-bf16", _tiles("tdpbf16ps"), _bf16(2), _bf16(3), _ONE, _f32(193), 1024),
    Trial("amx-fp16", _tiles("tdpfp16ps"), _H(2), _H(3), _ONE, _f32(193), 1024),
)  # fmt: skip


# -------------------------------------------------------------------------------------- in the parent
@dataclass(frozen=True)
class Outcome:
    """What the child found: features that executed, features that failed, who the processor is, and how fast.

    `per_cycle` is how many of each vector atom one core retires in a cycle; `clock_hz` is None where
    the timing failed.
    """

    features: tuple[str, ...]
    failed: tuple[str, ...]
    cpu: dict[str, Any]
    per_cycle: dict[str, float]
    clock_hz: float | None


def try_features() -> Outcome | None:
    """Execute every family that the processor reports; None where no child process can be started or run code."""
    if not sys.executable or getattr(sys, "frozen", False):  # a bundled program would start itself again
        return None
    failed: dict[str, None] = {}  # an ordered set
    for _ in range(len(TRIALS) + 1):
        reports, died = _run_child(list(failed))
        facts: dict[str, Any] = {key: value for report in reports for key, value in report.items()}
        trying = facts.get("trying")
        if "reported" not in facts or (died and trying is None):
            return None  # not one instruction set: nothing that is compiled can run
        failed.update((r["failed"], None) for r in reports if "failed" in r)
        if died and trying != "speed":
            failed[str(trying)] = None
            continue
        features = isa.without(facts["reported"], failed)
        return Outcome(features, tuple(failed), facts["cpu"], facts.get("per_cycle", {}), facts.get("clock_hz"))
    return None


def _run_child(skip: list[str]) -> tuple[list[dict[str, Any]], bool]:
    """The child's reports, one a line, and whether it died on the way."""
    import subprocess  # costs more than all of a start that finds the result in the cache folder

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *skip], env=environment, capture_output=True, timeout=_TIMEOUT, check=False
        )
        output, died = done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as e:
        output, died = e.stdout or b"", True
    except OSError:
        return [], True
    return list(_parse(output)), died


def _parse(output: bytes) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        try:
            yield dict(json.loads(line))
        except (ValueError, TypeError):
            continue  # a line cut short by the child's death, or printed by another library


# --------------------------------------------------------------------------------------- in the child
def child() -> None:
    """Report the processor, then each family in turn; `sys.argv[1:]` are families not to execute."""
    from llvmlite.binding import get_host_cpu_features

    skip = set(sys.argv[1:])
    reported = [f for f, on in get_host_cpu_features().items() if on and f in isa.FEATURES]
    _report(reported=reported, cpu=cpuid())
    if any(f.startswith("amx") for f in reported) and not request_amx():
        _report(failed="amx-tile")
        skip.add("amx-tile")
    for trial in TRIALS:
        if trial.feature in isa.without(reported, skip):
            _report(trying=trial.feature)
            if not execute(trial):
                _report(failed=trial.feature)
                skip.add(trial.feature)
    features = isa.without(reported, skip)
    if "fma" in features:
        _report(trying="speed")
        clock, rates = measure_speed(features)
        _report(clock_hz=clock, per_cycle=rates)


def _report(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def request_amx() -> bool:
    """Ask the kernel to let this process use AMX tiles; False where it may not, or cannot."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(*(ctypes.c_long(n) for n in AMX_SYSCALL))) == 0


def execute(trial: Trial) -> bool:
    """Run the instructions of `trial` in this process and say whether the result is right."""
    from tilewright.machines._jit import Compiled

    clobbers = "~{xmm0},~{xmm1},~{xmm2},~{rax},~{memory}"
    if trial.feature == "avx512vl":
        clobbers += ",~{xmm16},~{k1}"
    ir = (
        "define void @trial(ptr %a, ptr %b, ptr %c, ptr %d) {\n"
        f'  call void asm sideeffect "{trial.asm}", "r,r,r,r,{clobbers}"(ptr %a, ptr %b, ptr %c, ptr %d)\n'
        "  ret void\n}\n"
    )
    features = f"+{trial.feature},{trial.needs}".rstrip(",")
    code = Compiled(ir, "x86-64", features)
    buffers = [ctypes.create_string_buffer(x * (_BUFFER // len(x)), _BUFFER) for x in (trial.a, trial.b, trial.c)]
    config = ctypes.create_string_buffer(_tile_configuration(), 64)
    code.function("trial", *[ctypes.c_void_p] * 4)(*buffers, config)
    return buffers[2].raw[: trial.bytes] == trial.expected * (trial.bytes // len(trial.expected))


def _tile_configuration() -> bytes:
    """Palette 1 with tiles 0 to 2 of 16 rows by 64 bytes."""
    columns = struct.pack("<16H", 64, 64, 64, *[0] * 13)
    rows = struct.pack("<16B", 16, 16, 16, *[0] * 13)
    return bytes([1, 0]) + bytes(14) + columns + rows
