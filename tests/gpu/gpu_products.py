"""Products on the GPU by designs that a test makes: their launches, and what several tests ask of them."""

from __future__ import annotations

from dataclasses import replace

import ml_dtypes
import torch
from gpu_programs import to_numpy

from tilewright.design.design import Design
from tilewright.design.gpu.product import product
from tilewright.design.gpu.straight import straight
from tilewright.design.legality import legal
from tilewright.errors import MachineError
from tilewright.operators import OPERATORS
from tilewright.runtime import tolerance
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda.dispatch import facts_of, loaded, machine, requested
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.cuda.measure import captured
from tilewright.runtime.dispatch import Program

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "i8": torch.int8, "i32": torch.int32}
_NAMES = {t: n for n, t in TYPES.items()}


def has_wgmma():
    """Whether there is a GPU at hand whose matrix unit takes tiles from shared memory."""
    try:
        return any(a.name.startswith("wgmma") for a in machine(0).atoms)
    except MachineError:
        return False


def whole(kind, *shape):
    """Small whole numbers: every product and sum is exact."""
    return torch.randint(-4, 5, shape, device="cuda").to(TYPES[kind])


def unwritten(*shape):
    return torch.full(shape, float("nan"), device="cuda", dtype=torch.bfloat16)


def dealt(*deal, **more):
    """A choice for `bound`: straight from memory by a deal, with `more` decisions."""
    return lambda p, facts: {**dict(straight(p, facts, *deal).decisions), **more}


def bound(operator, tensors, decide, constant=(), options=None):
    """A launch of a product by the design that `decide` makes of it and its facts, whose legality is asserted."""
    kernel = OPERATORS[operator].kernel.trace({n: _NAMES[x.dtype] for n, x in tensors.items()}, options=options or {})
    buffers = {n: replace(Buffer.of(x), writable=n not in constant) for n, x in tensors.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in kernel.params)
    sizes = {d: n for p in kernel.params for d, n in zip(p.dims or (), buffers[p.name].shape, strict=True)}
    facts = facts_of(layouts, sizes, machine(0), sizes)
    design = Design.of(decide(product(kernel), facts))
    assert legal(kernel, design, facts) == []
    request = requested(Program.of(kernel), layouts, sizes, machine(0), design, tuple(sizes))
    return loaded(request, 0).bind(buffers, {}, sizes)


def check_gate_and_up(decide):
    """Two products that share x, within the bound of every verification."""
    shapes = {"x": (2, 2048), "gate": (96, 2048), "up": (96, 2048)}
    inputs = {n: whole("bf16", *shape) / (8 if n == "x" else 64) for n, shape in shapes.items()}
    y = unwritten(2, 96)
    bound("gate_up", {**inputs, "y": y}, decide)()
    torch.cuda.synchronize()
    expected = OPERATORS["gate_up"].reference(**{n: to_numpy(x, ml_dtypes.bfloat16) for n, x in inputs.items()})
    tolerance.check("y", to_numpy(y, ml_dtypes.bfloat16), expected["y"])


def check_products_that_overlap(decide, times):
    """Each product reads what the last one wrote while its own weights are on their way; replayed as a graph, often."""
    size, count = 1024, 12
    order = [torch.randperm(size, device="cuda") for _ in range(count)]
    weights = [
        torch.eye(size, device="cuda", dtype=torch.bfloat16)[p].contiguous() for p in order
    ]  # nothing is rounded
    values = [torch.zeros(1, size, device="cuda", dtype=torch.bfloat16) for _ in range(count + 1)]
    launches = [
        bound("matmul", {"a": a, "b": b, "c": c}, decide, constant=("b",))
        for a, b, c in zip(values, weights, values[1:], strict=False)
    ]

    def run():
        for launch in launches:
            launch()

    replay = captured(run)
    for _ in range(times):
        values[0].copy_(torch.randn(1, size, device="cuda"))
        expected = values[0].clone()
        for p in order:
            expected = expected[:, p]
        replay()
        torch.cuda.synchronize()
        assert torch.equal(values[-1], expected)
