"""The lowering of NVIDIA GPUs: ordered, named rewrites from the tile program to the scheduled program."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.chain import chain
from tilewright.language import ir
from tilewright.lower.gpu.annotate import annotate
from tilewright.lower.gpu.pipeline import pipeline
from tilewright.lower.gpu.place import place
from tilewright.lower.gpu.split import split
from tilewright.lower.gpu.tile import tile

Stage = Callable[[ir.Kernel, Design, Facts], ir.Kernel]

STAGES: tuple[tuple[str, Stage], ...] = (
    ("tile", tile),
    ("split", split),
    ("place", place),
    ("pipeline", pipeline),
    ("annotate", annotate),
)


def lower_gpu(kernel: ir.Kernel, design: Design, facts: Facts) -> ir.Kernel:
    """The scheduled program of `kernel` under `design`; the interpreter gives both the same meaning."""
    if not any(atom == "wgmma" for _, atom in design.prefixed("atom")):
        from tilewright.lower.gpu.simt import lower_simt

        return lower_simt(kernel, design, facts)
    if not isinstance(chain(kernel), str):
        from tilewright.lower.gpu.chain import lower_chain

        return lower_chain(kernel, design, facts)
    for _name, stage in STAGES:
        kernel = stage(kernel, design, facts)
    return kernel
