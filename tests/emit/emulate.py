"""Emitted CUDA C++ of programs with roles, compiled for this CPU and run; barriers, copies, products as in `emulated/`.

The tile library is taken as it is, but for its instructions, which are written here in C++. No GPU is needed.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.build.nvrtc import header
from tilewright.emit.cuda_abi import CudaModule
from tilewright.language import ir

HERE = Path(__file__).parent / "emulated"
COMPILER = shutil.which("g++")
_TICKETS = 1 << 16
_BFLOAT2 = "return emulated::to_bf16(low) | (u32)emulated::to_bf16(high) << 16;"
_HALF2 = "return emulated::to_f16(low) | (u32)emulated::to_f16(high) << 16;"
_MATRICES = """{
      const u32 parts[4] = {a, b, c, d};
      const unsigned mine = line + ((f + half) ^ turned) * 16;
      for (int m = 0; m < 4; ++m) {
        memcpy(::shared + emulated::shown(mine, m * 8 + lane / 4) + lane % 4 * 4, &parts[m], 4);
      }
    }"""
# Of each header: what is replaced, from one text to another, and by what.
_REPLACED: dict[str, tuple[tuple[str, str, str], ...]] = {
    "types": (
        ("float y;\n  asm(\"cvt.f32.f16", "return y;", "return emulated::from_f16(x.bits);"),
        ('asm("cvt.rn.bf16.f32', '"f"(x));', "y.bits = emulated::to_bf16(x);"),
        ('asm("cvt.rn.f16.f32', '"f"(x));', "y.bits = emulated::to_f16(x);"),
        ('u32 y;\n  asm("cvt.rn.bf16x2', "return y;", _BFLOAT2),
        ('u32 y;\n  asm("cvt.rn.f16x2', "return y;", _HALF2),
    ),
    "map": (
        ('float z;\n    asm("max.NaN', "return z;", "return emulated::larger(x, y);"),
        ('float z;\n    asm("min.NaN', "return z;", "return emulated::smaller(x, y);"),
    ),
    "approx": (
        ('float y;\n  asm("ex2.approx.ftz.f32', "return y;", "return emulated::power_of_2(x);"),
        ('float y;\n  asm("rcp.approx', "return y;", "return 1.0f / x;"),
    ),
    "shared": (
        ('asm volatile("stmatrix.sync.aligned.m8n8.x4.shared', ': "memory");', _MATRICES),
        ("// The same turned over", "}  // namespace tw", "}  // namespace tw"),
    ),
    "chain": (
        ("// d = a b + (keep ? d : 0), a in registers", "// d = a b + (keep ? d : 0), where the sum", "//"),
        ("template <class T, int N, int STEPS, class B>\n", "const B& b, bool keep) {",
         "template <class T, int N, int STEPS, int PAIRS, class B>\n"
         "void multiply(float (&d)[N / 2], const Fragments<T, PAIRS>& a, const B& b, bool keep) {"),
        ("#pragma unroll\n  for (int step = 0; step < STEPS", "}\n}",
         "multiply_registers<T, N, STEPS>(d, a, b, keep);\n}"),
        ("// Keeps the compiler from touching an operand", "#undef TW_ROWS_16", ""),
    ),
    "global": (
        ('asm volatile("st.global.v4', ': "memory");', "memcpy(p, &w, 16);"),
        ('asm volatile("st.shared.v4', ': "memory");', "memcpy(p, &w, 16);"),
    ),
    "leaving": (("// The same turned over", "at...);\n  }", ""),),
    "layout": (('asm volatile("bar.sync', ': "memory");', 'emulated::fail("a block meets");'),),
    "tile": (), "reduce": (), "grid": (), "roles": (), "ring": (), "products": (),
}  # fmt: skip


def _own_headers(folder: Path) -> None:
    (folder / "tw").mkdir(parents=True, exist_ok=True)
    for path in [*HERE.glob("*.h"), *(HERE / "tw").glob("*.cuh")]:
        target = folder / path.relative_to(HERE)
        target.write_text(path.read_text("utf-8"), "utf-8")
    (folder / "tw" / "across.cuh").write_text("#pragma once\n", "utf-8")  # one block is all there is
    for name, changes in _REPLACED.items():
        text = header(f"tw/{name}.cuh")
        for begin, end, new in changes:
            at = text.index(begin)  # a header that reads otherwise must be emulated otherwise
            text = text[:at] + new + text[text.index(end, at + len(begin) - 1) + len(end) :]
        text = text.replace("#pragma once", '#pragma once\n#include "block.h"', 1)
        (folder / "tw" / f"{name}.cuh").write_text(text, "utf-8")


def compiled(module: CudaModule, folder: Path) -> Path:
    """An executable that runs the kernel of a module."""
    _own_headers(folder)
    source = module.source.replace("extern __shared__ __align__(1024) unsigned char shared[];", "")
    source = re.sub(r"\(const __grid_constant__ Args args\)", "(const Args& args)", source)
    text = f'#include "block.h"\n{source}\n#define ENTRY {module.entry}\n#include "main.h"\n'
    (folder / "kernel.cpp").write_text(text, "utf-8")
    command = [str(COMPILER), "-std=c++17", "-O1", "-fno-strict-aliasing", "-w", "-I", str(folder)]
    done = subprocess.run([*command, "-o", str(folder / "kernel"), str(folder / "kernel.cpp")], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "kernel"


def run(
    module: CudaModule, program: ir.Kernel, tensors: dict[str, Any], scalars: dict[str, float], sizes: dict[str, int],
    folder: Path, seed: int = 0, resident: int = 2,
) -> dict[str, Any]:  # fmt: skip
    """Operands after a launch on a GPU with `resident` blocks at once; AssertionError says what went wrong."""
    program_path = compiled(module, folder) if not (folder / "kernel").exists() else folder / "kernel"
    names = [p.name for p in program.params if p.dims is not None]
    arrays = [np.ascontiguousarray(tensors[n]) for n in names] + [np.zeros(_TICKETS, np.uint8)]
    (folder / "in").write_bytes(_setup(module, program, names, arrays, scalars, sizes, resident))
    done = subprocess.run([str(program_path), str(folder / "in"), str(folder / "out"), str(seed)], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    data, found, at = (folder / "out").read_bytes(), {}, 0
    for name, array in zip([*names, ""], arrays, strict=True):
        found[name] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
        at += array.nbytes
    assert not found.pop("").any(), "a ticket was not left at 0"
    return found


def _setup(
    module: CudaModule, program: ir.Kernel, names: list[str], arrays: list[Any], scalars: dict[str, float],
    sizes: dict[str, int], resident: int,
) -> bytes:  # fmt: skip
    """What the executable reads: operands, words of the argument, pointers among them, tensor maps, the grid."""
    places = module.words(program)
    words, pointers = [0] * places.count, []
    for n, name in enumerate(names):
        pointers.append((places.tensor(name), n))
        for d, stride in enumerate(arrays[n].strides):
            words[places.stride(name, d)] = stride // arrays[n].itemsize
    for dim in program.dims:
        words[places.dim(dim)] = sizes[dim]
    for p in program.params:
        if p.dims is None:
            words[places.scalar(p.name)] = struct.unpack("<i", struct.pack("<f", scalars[p.name]))[0]
    pointers += [(places.scratch_word(s.name), len(names)) for s in module.scratch]
    numbers: list[int] = [len(words), *words, len(pointers), *(x for pair in pointers for x in pair), len(module.maps)]
    for m in module.maps:
        array = arrays[names.index(m.tensor)]
        numbers += [names.index(m.tensor), len(m.dims), m.swizzle]
        for d, box in zip(m.dims, m.box, strict=True):
            numbers += [array.shape[d], array.strides[d] // array.itemsize, box]
    numbers += [module.grid.blocks(sizes, resident), module.threads]
    head = struct.pack("<q", len(arrays)) + b"".join(struct.pack("<q", a.nbytes) + a.tobytes() for a in arrays)
    return head + struct.pack(f"<{len(numbers)}q", *numbers)
