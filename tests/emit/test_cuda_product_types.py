"""Products of every type and layout with scales, by their default designs: what they mean, and what they compile to."""

from __future__ import annotations

import numpy as np
import pytest
from product_kinds import KINDS

from tilewright.build import nvrtc
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.design.default import Facts, default_design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.design.legality import legal
from tilewright.emit.abi import TensorLayout
from tilewright.language.dtypes import dtype
from tilewright.language.interpreter import run
from tilewright.lower.gpu.stages import lower_gpu
from tilewright.machines.machine import Machine
from tilewright.operators import matmul
from tilewright.runtime import tolerance

SIZES = {"M": 33, "N": 65, "K": 47}
LAYOUTS = {"NT": (False, False), "NN": (False, True), "TT": (True, False), "TN": (True, True)}


def request_of(kind, layout, align, machine):
    """The product with a scale for each row and column (where its result is no plain sum), by its default design."""
    element, result, precision = KINDS[kind]
    scaled = {} if result == np.int32 else {"row_scale": "f32", "column_scale": "f32"}
    types = {"a": element, "b": element, "c": result}
    kernel = matmul.kernel.trace(
        {**{n: dtype(np.dtype(t)).name for n, t in types.items()}, **scaled},
        options={"precision": precision} if precision else {},
    )
    across = dict(zip("ab", LAYOUTS[layout], strict=True))
    found = {n: TensorLayout((1, None) if across.get(n) else (None, 1), align) for n in "abc"}
    found |= {n: TensorLayout((1,), 16) for n in scaled}
    layouts = tuple((p.name, found[p.name]) for p in kernel.params)
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts}
    sizes = {d: SIZES[d] for d in kernel.dims}
    aligned = frozenset(n for n, x in layouts if x.align >= 16)
    facts = Facts(sizes, unit, Machine.named(machine), aligned, frozenset(fixed_dims(kernel)))
    design = default_design(kernel, facts)
    return Request(kernel, design, layouts, tuple((d, sizes[d]) for d in facts.fixed)), facts


def operands(kind, random):
    element, result, _ = KINDS[kind]

    def values(*shape):
        if element == np.int8:
            return random.integers(-128, 128, shape).astype(np.int8)
        return random.standard_normal(shape, dtype=np.float32).astype(element)

    m, n, k = SIZES.values()
    tensors = {"a": values(m, k), "b": values(n, k), "c": np.full((m, n), -1 if result == np.int32 else np.nan, result)}
    if result != np.int32:
        tensors["row_scale"] = random.uniform(2.0**-12, 2.0**-9, m).astype(np.float32)
        tensors["column_scale"] = random.uniform(-1.0, 1.0, n).astype(np.float32)
    return tensors


@pytest.mark.parametrize("align", [16, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_layout_of_any_type_is_computed_as_written_without_spills(kind, layout, align):
    request, facts = request_of(kind, layout, align, "h200")
    assert legal(request.kernel, request.design, facts) == []
    tensors = operands(kind, np.random.default_rng(len(kind)))
    options = {"precision": KINDS[kind][2]} if KINDS[kind][2] else {}
    exact = matmul.reference(**{n: x for n, x in tensors.items() if n != "c"}, **options)["c"]
    run(lower_gpu(request.kernel, request.design, facts), tensors)
    tolerance.check("c", tensors["c"], exact)
    if nvrtc.missing() is None:
        report = CudaStages(request, facts.machine).compiled.report
        assert (report.spill_stores, report.spill_loads, report.stack) == (0, 0, 0)


@pytest.mark.skipif(nvrtc.missing() is not None, reason="there is no NVRTC")
@pytest.mark.parametrize("machine", ["a100", "l40s"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["bf16", "i8", "tf32"])
def test_older_gpus_take_every_layout_without_spills(kind, layout, machine):
    for align in (16, 1):
        request, facts = request_of(kind, layout, align, machine)
        assert legal(request.kernel, request.design, facts) == []
        report = CudaStages(request, facts.machine).compiled.report
        assert (report.spill_stores, report.spill_loads, report.stack) == (0, 0, 0)
