"""A backend for `tilewright.ops` that runs every operator in the interpreter, on the very memory of its buffers."""

from __future__ import annotations

import numpy as np

from tilewright.language.interpreter import run

STEP = 5


def bind(operator, buffers, scalars, options):
    """A launch that poisons the outputs (unless they are operands too) and interprets the program."""
    kernel = operator.kernel.trace({name: b.dtype for name, b in buffers.items()}, options=options)
    inputs = [b for name, b in buffers.items() if name not in operator.outputs]
    fresh = [
        name
        for name in operator.outputs
        if name in buffers
        and name not in operator.updates
        and not any(buffers[name].overlaps(other) for other in inputs)
    ]

    def launch():
        tensors = {name: buffer.numpy() for name, buffer in buffers.items()}
        for name in fresh:
            tensors[name][...] = np.nan if buffers[name].dtype.kind == "float" else -1
        run(kernel, tensors, scalars, steps=STEP, seed=0)

    return launch
