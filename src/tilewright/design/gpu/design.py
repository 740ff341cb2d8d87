"""Designs of any program on a GPU: products go to the matrix unit where they fit it, packed if need be."""

from __future__ import annotations

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import chain
from tilewright.design.gpu.chain_design import default_chain, draw_chain
from tilewright.design.gpu.default import default_product
from tilewright.design.gpu.draw import draw_product, draw_straight
from tilewright.design.gpu.legality import is_for_matrix_unit, legal_gpu
from tilewright.design.gpu.packing import (
    as_packed,
    legal_packs,
    packed,
    with_packs,
    without_packs,
    worth_packing,
)
from tilewright.design.gpu.product import product
from tilewright.design.gpu.straight_default import default_straight
from tilewright.design.gpu.straight_mutations import FEW
from tilewright.design.legality import Reason
from tilewright.design.pick import Pick
from tilewright.language import ir

_ROWS_TO_PACK = 12
"""Rows of a product from which on reading its weights three times is still better than reading them unaligned."""


def default_gpu(kernel: ir.Kernel, facts: Facts) -> Design:
    """The default design of a traced program."""
    found = product(kernel)
    if not isinstance(found, str):
        if (straight := default_straight(kernel, found, facts)) is not None:
            return straight
        packs = worth_packing(found, facts)
        if not packs or found.size(found.m, facts) >= _ROWS_TO_PACK:
            design = with_packs(default_product(found, as_packed(kernel, facts, packs)), packs)
            if not legal_with_packs(kernel, design, facts):
                return design
    elif not isinstance(chained := chain(kernel), str):
        found_chain = default_chain(kernel, chained, facts)
        if found_chain is not None:
            return found_chain
    from tilewright.design.gpu.simt import default_simt

    return default_simt(kernel, facts)


def draw_gpu(kernel: ir.Kernel, facts: Facts, pick: Pick) -> Design:
    """A whole design: drawn where the program is a product for the matrix unit or one of rows, else its default one."""
    found = product(kernel)
    if isinstance(found, str):
        from tilewright.design.gpu.simt import draw_simt

        chained = chain(kernel)
        if not isinstance(chained, str) and is_for_matrix_unit(default_gpu(kernel, facts)):
            return draw_chain(chained, facts, pick)
        return draw_simt(kernel, facts, pick)
    packs = worth_packing(found, facts)
    if not packs and found.size(found.m, facts) <= FEW and pick("operands", ("straight", "staged")) == "straight":
        return draw_straight(found, facts, pick)
    return with_packs(draw_product(found, as_packed(kernel, facts, packs), pick), packs)


def legal_with_packs(kernel: ir.Kernel, design: Design, facts: Facts) -> list[Reason]:
    """Why a design is illegal: its packs, or the product as it meets the packed operands."""
    return legal_packs(kernel, design) or legal_gpu(
        kernel, without_packs(design), as_packed(kernel, facts, packed(design))
    )


__all__ = ["default_gpu", "draw_gpu", "legal_with_packs"]
