"""How fast one core of an x86 processor is: its clock, and the vector atoms that it retires in a cycle."""

from __future__ import annotations

import ctypes
import time
from typing import Any

from tilewright.machines import isa

_CHAINS = 12  # independent accumulators: enough for two pipes of latency 4 to 5
_COUNT = 200_000
# x <- 0.5 * x + 1 stays near 2; the others add to x: no overflow, no denormal
_TIMED = {"fma": "vfmadd213ps $3, $2, $0", "vdpbf16ps": "vdpbf16ps $3, $2, $0", "vpdpbusd": "vpdpbusd $3, $2, $0"}


def measure_speed(features: tuple[str, ...]) -> tuple[float, dict[str, float]]:
    """Clock in Hz, and for each vector atom how many the core retires per cycle at full width, to the nearest half.

    The clock is that of a chain of integer multiplications, which take 3 cycles each on every x86
    core since 2008. The cycle counter of the processor counts at another rate than the core.
    """
    from tilewright.machines._jit import Compiled

    bits = isa.vector_bits(features)
    timed = [name for name in _TIMED if isa.has_atom(name, features)]
    switched_on = ",".join("+" + f for f in features)
    rates: dict[str, float] = {}
    clock = 0.0
    for name in timed:
        instruction = "{vex} " * (name == "vpdpbusd" and bits < 512) + _TIMED[name]
        code = Compiled(_speed_ir(bits, instruction), "x86-64", switched_on)
        clock = 3 * 4 * _COUNT / _fastest(code, "chain")  # beside each atom: the clock may change with the width
        rates[name] = round(2 * _CHAINS * _COUNT / (_fastest(code, "atoms") * clock)) / 2
    return clock, rates


def _fastest(code: Any, name: str) -> float:
    """Seconds of the fastest of some calls of a timed function."""
    function = code.function(name, ctypes.c_int64, ctypes.c_void_p)
    out = ctypes.create_string_buffer(64)
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        function(_COUNT, out)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _speed_ir(bits: int, instruction: str) -> str:
    """`atoms(count, out)`: chains of a vector instruction; `chain(count, out)`: one of integer multiplications."""
    lanes = bits // 32
    v = f"<{lanes} x float>"
    chains = range(_CHAINS)
    phis = "\n".join(f"  %a{j} = phi {v} [zeroinitializer, %entry], [%n{j}, %loop]" for j in chains)
    # as assembly: LLVM would merge equal chains, and regroup products into a shorter chain
    asm = f'asm sideeffect "{instruction}", "=v,0,v,v"'
    steps = "\n".join(f"  %n{j} = call {v} {asm}({v} %a{j}, {v} %half, {v} %one)" for j in chains)
    imul = "; ".join(["imulq $2, $0"] * 4)
    return f"""
define void @atoms(i64 %count, ptr %out) {{
entry:
  %h = insertelement {v} poison, float 0.5, i32 0
  %half = shufflevector {v} %h, {v} poison, <{lanes} x i32> zeroinitializer
  %o = insertelement {v} poison, float 1.0, i32 0
  %one = shufflevector {v} %o, {v} poison, <{lanes} x i32> zeroinitializer
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{phis}
{steps}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %exit
exit:
  ret void
}}
define void @chain(i64 %count, ptr %out) {{
entry:
  %seed = load i64, ptr %out, align 4
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %x = phi i64 [%seed, %entry], [%y, %loop]
  %y = call i64 asm sideeffect "{imul}", "=r,0,r"(i64 %x, i64 %count)
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %exit
exit:
  store i64 %y, ptr %out, align 4
  ret void
}}
"""


__all__ = ["measure_speed"]
