"""What an operator becomes on its way to machine code, at any stage, as text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewright.design.design import Design
from tilewright.errors import ArgumentError
from tilewright.language.program import TileProgram
from tilewright.machines.machine import Machine
from tilewright.operators import Operator
from tilewright.runtime.compiled import CompiledKernel, compile_at, dtypes_of
from tilewright.runtime.debug import design_table
from tilewright.runtime.inputs import written
from tilewright.runtime.subject import named

CPU_STAGES = ("tile", "design", "sched", "thread", "ll", "asm")
GPU_STAGES = ("tile", "design", "sched", "cu", "ptx", "sass", "usage")
STAGES = tuple(dict.fromkeys(CPU_STAGES + GPU_STAGES))
"""In the order in which a program passes them."""


def stage_text(
    operator: str,
    sizes: Mapping[str, int] | Sequence[int],
    dtype: str | None = None,
    stage: str = "sched",
    machine: Machine | None = None,
    *,
    design: Design | None = None,
) -> str:
    """A stage of an operator, or of `file.py:name`, at these sizes: by name, or in the order of `dims_of`.

    `stage` is one of STAGES; the design is the default one unless given, the machine the one this process runs on,
    `dtype` what is usual there (`Machine.usual_dtype`). On a GPU the sizes are constants of the kernel.
    Raises ArgumentError for an operator, size or stage that is unknown.
    """
    kernel = compiled(operator, sizes, dtype, machine, design)
    return design_table(kernel.design) if stage == "design" else kernel.stages.text(stage)


def save_stages(
    folder: str | os.PathLike[str],
    operator: str,
    sizes: Mapping[str, int] | Sequence[int],
    dtype: str | None = None,
    *,
    machine: Machine | None = None,
    design: Design | None = None,
) -> list[Path]:
    """Write every stage of an operator to `folder` as `<operator>.<stage>`; the files written."""
    return compiled(operator, sizes, dtype, machine, design).stages.save(folder)


def compiled(
    operator: str, sizes: Mapping[str, int] | Sequence[int], dtype: str | None, machine: Machine | None,
    design: Design | None,
) -> CompiledKernel:  # fmt: skip
    """The operator's kernel; every stage of it is made when asked for."""
    found, machine = named(operator), machine or Machine.detect()
    dtype = dtype or machine.usual_dtype
    given = dict(sizes) if isinstance(sizes, Mapping) else _in_order(found, dtype, sizes)
    return compile_at(found, given, design, dtype=dtype, machine=machine)


def dims_of(operator: Operator | TileProgram, dtype: str = "f32") -> list[str]:
    """Names of an operator's sizes: those of its results first, then the others in order of use."""
    tile = operator.kernel if isinstance(operator, Operator) else operator
    program = tile.trace(dtypes_of(tile, dtype))
    outputs = operator.outputs if isinstance(operator, Operator) else written(program)
    results = [d for p in program.params if p.name in outputs for d in p.dims or () if isinstance(d, str)]
    return list(dict.fromkeys([*results, *program.dims]))


def _in_order(operator: Operator | TileProgram, dtype: str, sizes: Sequence[int]) -> dict[str, int]:
    dims = dims_of(operator, dtype)
    if len(sizes) != len(dims):
        raise ArgumentError(f"{operator.name} needs {len(dims)} sizes ({', '.join(dims)}), not {len(sizes)}")
    return dict(zip(dims, sizes, strict=True))


__all__ = ["STAGES", "compiled", "dims_of", "save_stages", "stage_text"]
