"""Scheduled program -> LLVM IR text for x86 (and any machine LLVM knows).

One walk over the program, no knowledge of operators. Each top-level loop is a phase (two where it deals
out parts of a loop): a function `void(args, thread, threads)` over its share of the tiles; `tw_run(args)` runs
the phases in order, on a pool where the call asks for several threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tilewright.emit import abi
from tilewright.emit.llvm_builder import Builder
from tilewright.emit.llvm_parts import phases
from tilewright.emit.llvm_phase import Phase
from tilewright.emit.llvm_places import LINE
from tilewright.emit.llvm_values import Context
from tilewright.emit.llvm_wide import widened
from tilewright.emit.llvm_workspace import Workspace
from tilewright.language import ir


@dataclass(frozen=True)
class Module:
    """Emitted text, and the workspace it wants."""

    text: str
    workspace: tuple[abi.Reserve, ...]


@dataclass(frozen=True)
class VectorUnit:
    """What the emitter must know of the machine's vector unit."""

    bytes: int
    features: frozenset[str]


def emit(
    kernel: ir.Kernel, layouts: Mapping[str, abi.TensorLayout], sizes: Mapping[str, int], unit: VectorUnit
) -> Module:
    """LLVM IR for a scheduled program with these layouts; dims in `sizes` are fixed, all others symbolic."""
    kernel = widened(kernel)
    workspace = Workspace(kernel, dict(sizes))
    declarations: set[str] = set()
    loops = phases(kernel)
    functions = [_phase(n, loop, workspace, layouts, unit, declarations) for n, loop in enumerate(loops)]
    parts = [f"; {kernel.name}", *sorted(declarations), *functions, _entry(loops), "!0 = !{i32 1}\n!1 = !{}"]
    return Module("\n\n".join(parts) + "\n", tuple(workspace.reserves))


def _phase(
    number: int,
    loop: ir.Loop,
    workspace: Workspace,
    layouts: Mapping[str, abi.TensorLayout],
    unit: VectorUnit,
    declarations: set[str],
) -> str:
    lanes = ir.note(workspace.kernel.notes, "lanes", ())
    names = tuple(str(a) for a in lanes) if isinstance(lanes, tuple) else (str(lanes),)
    builder = Builder(declarations)
    Phase(Context(builder, names, unit.bytes, unit.features), workspace, layouts).emit(number, loop)
    head = f"define internal void @phase{number}(ptr noalias %args, i64 %thread, i64 %threads) {{\nentry:"
    return f"{head}\n{builder.text()}\n}}"


def _entry(loops: list[ir.Loop]) -> str:
    """`tw_run(args)`: phases in order; with one thread without any synchronisation."""
    phases = len(loops)
    calls = "\n".join(f"  call void @phase{n}(ptr %args, i64 0, i64 1)" for n in range(phases))
    table_ = ", ".join(f"ptr @phase{n}" for n in range(phases))
    return f"""@phases = internal constant [{phases} x ptr] [{table_}]

define void @tw_run(ptr %args) {{
entry:
{_nothing_drawn(loops)}
  %threads_at = getelementptr i64, ptr %args, i64 {abi.THREADS}
  %threads = load i64, ptr %threads_at
  %alone = icmp sle i64 %threads, 1
  br i1 %alone, label %serial, label %team
serial:
{calls}
  ret void
team:
  %entry_at = getelementptr i64, ptr %args, i64 {abi.ENTRY}
  %entry_fn = load ptr, ptr %entry_at
  %pool = load ptr, ptr %args
  call void %entry_fn(ptr %pool, ptr @phases, i64 {phases}, ptr %args)
  ret void
}}"""


def _nothing_drawn(loops: list[ir.Loop]) -> str:
    """No tile of any phase was drawn yet."""
    counted = [n for n, loop in enumerate(loops) if ir.note(loop.notes, "drawn")]
    if not counted:
        return ""
    lines = [
        f"  %base_at = getelementptr i64, ptr %args, i64 {abi.WORKSPACE}",
        "  %base = load ptr, ptr %base_at",
        *(
            f"  %count{n} = getelementptr i8, ptr %base, i64 {LINE * n}\n  store i64 0, ptr %count{n}, align 8"
            for n in counted
        ),
    ]
    return "\n".join(lines)


__all__ = ["Module", "VectorUnit", "emit"]
