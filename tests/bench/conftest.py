"""The interpreter as the backend of `tw.ops`: the bench is tested without any compiled kernel."""

from __future__ import annotations

import pytest

from tilewright.language import interpreter
from tilewright.ops import using


def interpreted(operator, buffers, scalars, options):
    kernel = operator.kernel.trace({name: b.dtype for name, b in buffers.items()}, options=options)
    arrays = {name: b.numpy() for name, b in buffers.items()}
    return lambda: interpreter.run(kernel, arrays, scalars)


@pytest.fixture
def interpreter_backend():
    with using(interpreted):
        yield
