"""An op: a function of tensors that is bound to its operands first and called then."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

from tilewright.errors import ArgumentError
from tilewright.ops.backend import Launch
from tilewright.runtime import form, rebind

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Bound(Generic[R]):
    """A call that is ready to run: its launches in order, the tensors it writes, and a check of what it reads."""

    launches: Sequence[Launch]
    result: R
    check: Callable[[], None] | None = None

    def launch(self) -> Launch:
        """All launches as one."""
        if len(self.launches) == 1:
            return self.launches[0]
        return functools.partial(_run, tuple(self.launches))


class Op(Generic[P, R]):
    """`op(...)` computes now; `op.bind(..., out=y)` gives a Launch that computes each time it is called.

    A Launch reads the same memory again on every call, so that new data is put in place and not passed. What
    the memory holds (token ids, positions, lengths, page numbers) is checked by `op(...)` only.
    """

    def __init__(self, bound: Callable[P, Bound[R]]) -> None:
        self._bound = bound
        self._rebinding = rebind.Rebinding()
        functools.update_wrapper(self, bound)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Check, compute, and return what was written. A call like an earlier one of this thread is not bound again."""
        told = form.called(args, kwargs, self._rebinding.known)
        if type(told) is not list:
            done: R = told
            return done
        met = form.Form(args, kwargs, told)
        if met.asks and met.recorded:
            from tilewright.ops import autograd

            recorded: R = autograd.recorded(self._bound.__name__, args, kwargs)
            return recorded
        ran, result = self._rebinding.run(met)
        if ran:
            known: R = result
            return known
        bound = self._bound(*args, **kwargs)
        if bound.check is not None and not met.on_gpu:
            bound.check()
        else:
            self._rebinding.keep(met, bound.launches, bound.result)
        for launch in bound.launches:
            launch()
        return bound.result

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Launch:
        """The call without its arguments; `out` must be given, or nobody could read what it writes.

        A CUDA graph that a launch was captured in needs it alive, as it needs the tensors: its scratch memory is used.
        """
        if kwargs.get("out") is None:
            raise ArgumentError(f"{self._bound.__name__}.bind needs out=, the tensors that each launch writes")
        return self._bound(*args, **kwargs).launch()

    def __repr__(self) -> str:
        return f"tilewright.ops.{self._bound.__name__}"


def op(bound: Callable[P, Bound[R]]) -> Op[P, R]:
    """Decorator of a function that checks operands and binds an operator to them."""
    return Op(bound)


def _run(launches: tuple[Launch, ...]) -> None:
    for launch in launches:
        launch()


# What ops take and give: a torch tensor or a NumPy array. Named for readers; checked at run time.
Tensor = Any
