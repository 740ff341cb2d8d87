"""What the tests of models share: helper modules beside this file, and the sets of operators that models run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import plain_operators

from tilewright import ops
from tilewright.language import interpreter


def interpreted(operator, buffers, scalars, options):
    """A backend that runs the tile programs themselves, in tiles of everything at once."""
    kernel = operator.kernel.trace({name: b.dtype for name, b in buffers.items()}, options=options)
    arrays = {name: b.numpy() for name, b in buffers.items()}
    return lambda: interpreter.run(kernel, arrays, scalars, steps=1 << 20)


@pytest.fixture
def plain():
    """Operators in NumPy: what is wrong then is the model's own code."""
    return plain_operators


@pytest.fixture
def interpreted_ops():
    """`tilewright.ops` with their meaning as backend."""
    with ops.using(interpreted):
        yield ops


@pytest.fixture(params=["plain", "compiled"])
def operators(request):
    """Operators in NumPy, and `tilewright.ops` as users run them."""
    return plain_operators if request.param == "plain" else ops
