"""What runs a bound operator: the compiled kernels, unless another backend is put in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tilewright.operators import Operator
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.form import forget

Launch = Callable[[], None]
"""A kernel tied to its operands: runs without arguments, as often as wanted, on what the memory then holds."""

Scalars = Mapping[str, float | int]
Options = Mapping[str, object]
Backend = Callable[[Operator, Mapping[str, Buffer], Scalars, Options], Launch]

_chosen: Backend | None = None


def bind(
    operator: Operator,
    buffers: Mapping[str, Buffer],
    scalars: Scalars | None = None,
    options: Options | None = None,
) -> Launch:
    """The operator tied to its operands by the backend in use; operands that are absent are left out."""
    global _chosen
    if _chosen is None:
        from tilewright.runtime import dispatch

        _chosen = dispatch.bind
    return _chosen(operator, buffers, scalars or {}, options or {})


def chosen() -> Backend | None:
    """The backend in use; None before the first call."""
    return _chosen


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """Run every operator through `backend` inside the `with` block (the interpreter, say)."""
    global _chosen
    before, _chosen = _chosen, backend
    forget()  # what calls were bound to
    try:
        yield
    finally:
        _chosen = before
        forget()
