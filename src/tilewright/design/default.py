"""The default design: closed-form decisions for any tile program, from its structure, its sizes and the machine.

Three shapes of nests are told apart by what they contain, never by the operator's name:

- *products*: a serial loop whose axis a dot sums over, with tiles of two parallel axes (matmul and kin);
- *streams*: dots over whole dimensions inside a serial loop (attention);
- *rows*: no dot at all (norms, softmax, elementwise).

A default is only a start: it must be legal everywhere and good on the shapes that matter.
"""

from __future__ import annotations

from tilewright.design.default_products import is_product, products
from tilewright.design.default_rows import rows
from tilewright.design.default_streams import streams
from tilewright.design.design import Choice, Design
from tilewright.design.facts import Facts
from tilewright.language import ir, structure


def default_design(kernel: ir.Kernel, facts: Facts) -> Design:
    """The default design of a traced program."""
    if facts.machine.kind == "systolic":
        from tilewright.design.systolic.design import default_systolic

        return default_systolic(kernel, facts)
    if facts.machine.kind == "dataflow":
        return Design()  # all is left to the placement
    if facts.machine.kind == "nvidia":
        from tilewright.design.gpu.design import default_gpu

        return default_gpu(kernel, facts)
    decisions: dict[str, Choice] = {}
    lanes: list[str] = []
    for nest in structure.nests(kernel):
        rules = products if is_product(nest) else streams if nest.dots else rows
        chosen, nest_lanes = rules(kernel, nest, facts)
        decisions.update(chosen)
        lanes += [a for a in nest_lanes if a not in lanes]
    return Design.of({**decisions, "lanes": tuple(lanes)})


__all__ = ["Facts", "default_design"]
