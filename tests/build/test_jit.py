"""IR text to object file to callable function, in this process and the next."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tilewright.build import jit
from tilewright.build.jit import Target, assemble, compile_ir, load
from tilewright.errors import CompileError

HOST = Target.host()

SCALED_COPY = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare double @cos(double)
define double @scaled_copy(ptr %to, ptr %from, i64 %bytes) {
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %bytes, i1 false)
  %v = load <8 x float>, ptr %to, align 4
  %w = fmul <8 x float> %v, splat (float 1.25)
  store <8 x float> %w, ptr %to, align 4
  %c = call double @cos(double 0.0)
  ret double %c
}
"""


def run_scaled_copy(address: int) -> None:
    """A constant in memory, an intrinsic that becomes a call, and a call of libm."""
    source = np.arange(8, dtype=np.float32)
    target = np.full(8, np.nan, np.float32)
    call = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    assert call(target.ctypes.data, source.ctypes.data, source.nbytes) == 1.0
    assert np.array_equal(target, source * np.float32(1.25))


@pytest.mark.parametrize("optimise", [False, True])
def test_text_becomes_a_function(optimise: bool) -> None:
    library = load(compile_ir(SCALED_COPY, HOST, optimise=optimise))
    assert library.symbols == {"scaled_copy"}
    assert library.address("scaled_copy") == library.address("scaled_copy")
    run_scaled_copy(library.address("scaled_copy"))


def test_an_object_outlives_its_process(tmp_path: Path) -> None:
    file = tmp_path / "kernel.o"
    program = f"""
import sys
sys.path[:0] = {[p for p in sys.path if p]!r}
from pathlib import Path
from tilewright.build.jit import Target, compile_ir
Path({str(file)!r}).write_bytes(compile_ir({SCALED_COPY!r}, Target.host()))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    library = load(file.read_bytes())
    run_scaled_copy(library.address("scaled_copy"))


def test_compiling_twice_gives_the_same_bytes() -> None:
    assert compile_ir(SCALED_COPY, HOST) == compile_ir(SCALED_COPY, HOST)


def test_the_target_decides_the_instructions() -> None:
    text = "define <16 x float> @f(<16 x float> %x) {\n  %y = fadd <16 x float> %x, %x\n  ret <16 x float> %y\n}"
    assert "zmm" in assemble(text, Target("x86-64-v4", ""))
    assert "ymm" in assemble(text, Target("x86-64-v3", ""))
    assert "ymm" not in assemble(text, Target("x86-64", ""))
    assert Target("a", "+fma,-avx2,+bmi").enabled == {"fma", "bmi"}
    assert len({Target("a", "").fingerprint, Target("b", "").fingerprint, Target("a", "", 1).fingerprint}) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "expected top-level entity"),
        ("define void @f() {\n  call void @undeclared()\n  ret void\n}", "undeclared"),
        ("define i32 @f(i1 %c) {\n  br i1 %c, label %a, label %b\na:\n  %x = add i32 1, 1\n  br label %b\nb:\n"
         "  ret i32 %x\n}", "dominate"),
    ],
)  # fmt: skip
def test_bad_text_is_a_compile_error(text: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        compile_ir(text, HOST)
    with pytest.raises(CompileError, match="stage ll"):
        assemble(text, HOST)


def test_a_missing_symbol_is_an_error_and_not_an_abort() -> None:
    binary = compile_ir("declare void @tw_absent()\ndefine void @f() {\n  call void @tw_absent()\n  ret void\n}", HOST)
    with pytest.raises(CompileError, match="tw_absent"):
        load(binary)
    called = []
    callback = ctypes.CFUNCTYPE(None)(lambda: called.append(1))
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    jit.add_symbol("tw_absent", address)
    library = load(binary)
    ctypes.CFUNCTYPE(None)(library.address("f"))()
    assert called == [1]
    with pytest.raises(CompileError, match="defines no function 'g'"):
        library.address("g")


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"garbage" * 50, lambda b: b[:100], lambda b: b[:-200]])
def test_damaged_objects_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CompileError, match="not an object file"):
        load(damage(compile_ir(SCALED_COPY, HOST)))


def test_objects_of_another_machine_are_refused() -> None:
    binary = bytearray(compile_ir(SCALED_COPY, HOST))
    binary[18] ^= 0xFF
    with pytest.raises(CompileError, match="ELF machine"):
        load(bytes(binary))


def test_many_threads_compile_and_load() -> None:
    def build(n: int) -> int:
        text = f"define i64 @f{n}(i64 %x) {{\n  %y = mul i64 %x, {n}\n  ret i64 %y\n}}"
        library = load(compile_ir(text, HOST))
        return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(library.address(f"f{n}"))(1000))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(build, range(64))) == [1000 * n for n in range(64)]


def test_code_that_is_a_part_of_a_cycle_can_be_collected() -> None:
    """The collector ends what a cycle holds in any order; LLVM minds the order, and would end the process."""
    code = """
import gc
from tilewright.build.jit import Target, compile_ir, load
object_bytes = compile_ir("define i32 @one() { ret i32 1 }", Target.host())
gc.disable()
for n in range(40):
    held = [load(object_bytes) for _ in range(3)]
    for one in held:
        one.cycle, one.others = one, held
    assert held[n % 3].address("one")
    del held, one
    gc.collect()
print("well")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "well"), done.stderr[-300:]


POLYNOMIAL = """
declare <4 x float> @llvm.fma.v4f32(<4 x float>, <4 x float>, <4 x float>)
define void @polynomial(ptr %x, i64 %n) {
entry:
  br label %round
round:
  %i = phi i64 [0, %entry], [%next, %round]
  %p = getelementptr <4 x float>, ptr %x, i64 %i
  %v = load <4 x float>, ptr %p, align 4
  %a = call <4 x float> @llvm.fma.v4f32(<4 x float> %v, <4 x float> splat (float 1.25), <4 x float> splat (float 0.625))
  %b = fmul <4 x float> %a, splat (float 0.3125)
  store <4 x float> %b, ptr %p, align 4
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %round, label %done
done:
  ret void
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")
def test_numbers_that_a_loop_needs_are_loaded_before_it() -> None:
    lines = assemble(POLYNOMIAL, HOST).splitlines()
    end = next(n for n, line in enumerate(lines) if line.startswith("\tj"))
    label = lines[end].split()[-1] + ":"
    begin = next(n for n, line in enumerate(lines) if line.startswith(label))
    assert any("LCPI" in line for line in lines[:begin])
    assert not any("LCPI" in line or "movabs" in line for line in lines[begin:end])
    x = np.arange(12, dtype=np.float32)
    library = load(compile_ir(POLYNOMIAL, HOST))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("polynomial"))(x.ctypes.data, 3)
    assert np.array_equal(x, (np.arange(12) * np.float32(1.25) + np.float32(0.625)) * np.float32(0.3125))


def test_code_that_calls_what_its_text_does_not_name_is_linked_from_afar() -> None:
    """An intrinsic of unknown length becomes a call, which an object of short addresses could not make."""
    text = """
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define void @clear(ptr %to, i64 %bytes) {
  call void @llvm.memset.p0.i64(ptr %to, i8 0, i64 %bytes, i1 false)
  ret void
}
"""
    data = np.ones(1000, np.uint8)
    library = load(compile_ir(text, HOST))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("clear"))(data.ctypes.data, 999)
    assert data.sum() == 1
