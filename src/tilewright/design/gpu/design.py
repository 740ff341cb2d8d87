"""The default design of any program on a GPU: products go to the matrix unit where they fit it."""

from __future__ import annotations

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.default import default_product
from tilewright.design.gpu.draw import Pick, draw_product
from tilewright.design.gpu.legality import legal_gpu
from tilewright.design.gpu.product import product
from tilewright.language import ir


def default_gpu(kernel: ir.Kernel, facts: Facts) -> Design:
    """The default design of a traced program."""
    found = product(kernel)
    if not isinstance(found, str):
        design = default_product(found, facts)
        if not legal_gpu(kernel, design, facts):
            return design
    from tilewright.design.gpu.simt import default_simt

    return default_simt(kernel, facts)


def draw_gpu(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A whole design: drawn where the program is a product for the matrix unit, else its default one."""
    found = product(kernel)
    return default_gpu(kernel, facts) if isinstance(found, str) else draw_product(found, facts, pick)
