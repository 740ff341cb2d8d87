"""Scheduled programs of all operators mean what was written: the interpreter gives both the same results."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "gpu"))

from operator_cases import NAMES, draw

from tilewright.design.default import Facts
from tilewright.design.gpu.simt import default_simt
from tilewright.language import ir
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import bind_sizes, run
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.lower.gpu.simt import lower_simt
from tilewright.machines.machine import Machine
from tilewright.runtime import tolerance


def scheduled(call, machine="a100"):
    """(program, scheduled program, operands) of a call."""
    tensors = dict(call.inputs)
    for name, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        tensors[name] = np.array(call.inputs[name]) if name in call.operator.updates else poison
    kernel = call.operator.kernel.trace({n: dtype(x.dtype) for n, x in tensors.items()}, options=call.options)
    sizes = bind_sizes(kernel, tensors)
    unit = {p.name: (len(p.dims) - 1,) for p in kernel.params if p.dims}
    facts = Facts(sizes, unit, Machine.named(machine))
    return kernel, lower_simt(kernel, default_simt(kernel, facts), facts), tensors


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_the_scheduled_program_means_what_was_written(name, seed):
    call = draw(name, seed, ("f32", "bf16")[seed % 2])
    _, program, tensors = scheduled(call)
    assert verify(program) == []
    assert parse(show(program)) == program
    run(program, tensors, call.scalars)
    for output, exact in call.expected().items():
        tolerance.check(output, tensors[output], exact)


def test_operands_of_dots_pass_through_a_ring_of_shared_memory():
    call = draw("batched_matmul", 4, "bf16")
    _, program, _ = scheduled(call)
    loop = next(s for s in ir.walk(program.body) if isinstance(s, ir.Loop) and not s.parallel)
    kinds = [type(s).__name__ for s in loop.body]
    assert kinds == ["Alloc", "Alloc", "Copy", "Copy", "Sync", "Let", "Let", "Let", "Let", "Assign"]
    assert ir.note(loop.notes, "stages") == ir.note(loop.body[0].notes, "stages") == 3
