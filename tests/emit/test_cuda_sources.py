"""Sources of the bench's products under their default designs: short enough to be read once."""

import pytest

from tilewright import operators
from tilewright.bench.gemm_cases import gemm_cases
from tilewright.build.cuda_kernel import CudaStages
from tilewright.build.kernel_cache import Request
from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.emit.abi import TensorLayout
from tilewright.machines.machine import Machine

H200 = Machine.named("h200")
CASES = [c for c in gemm_cases() if not c.links]
MOST = {False: 80, True: 88}
"""Lines; some more where weights that nobody writes are sent for before the last kernel has ended."""


def request(case, weights_stay=False):
    """What has to be built for a case: rows as they lie side by side, all sizes part of the kernel."""
    gate = case.epilogue == "gate_up"
    more = {"bias_gelu": ["bias"], "residual": ["residual"]}.get(case.epilogue, [])
    names = ["x", "gate", "up", "y"] if gate else ["a", "b", "c", *more]
    options = {} if gate else {"activation": "gelu" if case.epilogue == "bias_gelu" else None}
    kernel = (operators.gate_up if gate else operators.matmul).kernel.trace(
        dict.fromkeys(names, case.dtype), options=options
    )
    sizes = {"M": case.m, "N": case.n, "K": case.k}
    layouts = []
    for p in kernel.params:
        row = 2 * sizes[p.dims[-1]] if len(p.dims) > 1 else 256
        strides = (*(None for _ in p.dims[1:]), 1)
        layouts.append(
            (p.name, TensorLayout(strides, min(128, row & -row), weights_stay and p.name in ("b", "gate", "up")))
        )
    bare = Request(kernel, Design(), tuple(layouts), tuple(sizes.items()))
    return Request(kernel, default_design(kernel, bare.facts(H200)), bare.layouts, bare.sizes)


@pytest.mark.parametrize("family", sorted({c.family for c in CASES}))
@pytest.mark.parametrize("weights_stay", [False, True])
def test_the_source_of_a_product_is_short_enough_to_be_read_at_once(family, weights_stay):
    long = {}
    for case in (c for c in CASES if c.family == family):
        source = CudaStages(request(case, weights_stay), H200).source
        assert source.startswith("// ") and " design: atom.dot0=" in source.replace("\n//  ", "")
        if len(source.rstrip().splitlines()) > MOST[weights_stay]:
            long[case.name] = len(source.rstrip().splitlines())
    assert not long
