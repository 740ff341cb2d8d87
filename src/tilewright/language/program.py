"""`@kernel`: a Python function becomes a tile program, traced once per choice of dtypes and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tilewright.errors import ArgumentError, LanguageError
from tilewright.language import ir
from tilewright.language.dtypes import DType, dtype
from tilewright.language.handles import ScalarParam
from tilewright.language.printer import KEYWORDS
from tilewright.language.tensors import TensorParam
from tilewright.language.tracer import Trace, author_traceback


class _TensorMeta(type):
    def __getitem__(cls, dims: ir.Dim | tuple[ir.Dim, ...]) -> Tensor:
        return Tensor(dims if isinstance(dims, tuple) else (dims,))


@dataclass(frozen=True)
class Tensor(metaclass=_TensorMeta):
    """Annotation of a tensor parameter: `Tensor["M", "K"]`; `Tensor["B"].of("i32")` fixes its dtype."""

    dims: tuple[ir.Dim, ...]
    dtype: DType | None = None

    def of(self, fixed: str | DType) -> Tensor:
        """The same dimensions with dtype `fixed`, whatever the kernel is traced for."""
        return Tensor(self.dims, dtype(fixed))


class _ScalarMeta(type):
    def __getitem__(cls, name: str | DType) -> Scalar:
        return Scalar(dtype(name))


@dataclass(frozen=True)
class Scalar(metaclass=_ScalarMeta):
    """Annotation of a scalar parameter: `Scalar["f32"]`, `Scalar["i64"]`."""

    dtype: DType


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tile program; an `optional` one has the default None and may be absent."""

    name: str
    spec: Tensor | Scalar
    optional: bool


@dataclass(frozen=True)
class Signature:
    """Parameters in order, and static options with their defaults."""

    params: tuple[Parameter, ...]
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TileProgram:
    """An operator as its author wrote it: `trace` gives the program for a choice of dtypes and options."""

    name: str
    doc: str
    signature: Signature
    function: Callable[..., None] = field(repr=False)
    _traces: dict[object, ir.Kernel] = field(default_factory=dict, repr=False, compare=False)

    def trace(
        self,
        dtypes: str | DType | Mapping[str, str | DType] = "f32",
        *,
        options: Mapping[str, Any] | None = None,
        present: Collection[str] = (),
    ) -> ir.Kernel:
        """The program with tensors of `dtypes`: one for all, or a mapping from parameter to dtype.

        `options` gives static options other than their defaults. Optional parameters are absent unless they
        are named in `present` or in the mapping. Traces are cached. Raises ArgumentError for a name that the
        program does not have, and the author's LanguageError for a program that is not meaningful.
        """
        chosen = self._options(options or {})
        params = self._params(dtypes, set(present))
        key = (params, tuple(sorted((name, repr(value)) for name, value in chosen.items())))
        if key not in self._traces:
            self._traces[key] = self._run(params, chosen)
        return self._traces[key]

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        known = dict(self.signature.options)
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ArgumentError(f"{self.name} has no option {unknown[0]!r}; its options are {_listed(known)}")
        return {**known, **given}

    def _params(self, dtypes: str | DType | Mapping[str, str | DType], present: set[str]) -> tuple[ir.Param, ...]:
        names = [p.name for p in self.signature.params]
        named = dict(dtypes) if isinstance(dtypes, Mapping) else {}
        unknown = sorted((present | set(named)) - set(names))
        if unknown:
            raise ArgumentError(f"{self.name} has no parameter {unknown[0]!r}; its parameters are {_listed(names)}")
        default = None if isinstance(dtypes, Mapping) else dtype(dtypes)
        wanted = present | set(named)
        used = [p for p in self.signature.params if not p.optional or p.name in wanted]
        return tuple(self._param(p, named.get(p.name), default) for p in used)

    def _param(self, param: Parameter, given: str | DType | None, default: DType | None) -> ir.Param:
        fixed = param.spec.dtype
        chosen = dtype(given) if given is not None else fixed or default
        if chosen is None:
            raise ArgumentError(f"{self.name} was given no dtype for {param.name!r}; add it to the mapping")
        if fixed is not None and chosen != fixed:
            raise ArgumentError(f"{param.name!r} of {self.name} is {fixed}, not {chosen}; leave it out of the mapping")
        return ir.Param(param.name, chosen, param.spec.dims if isinstance(param.spec, Tensor) else None)

    def _run(self, params: tuple[ir.Param, ...], options: dict[str, Any]) -> ir.Kernel:
        handles: dict[str, Any] = {p.name: None for p in self.signature.params}
        handles.update((p.name, _handle(p)) for p in params)
        try:
            with Trace(self.name, params) as trace:
                self.function(**handles, **options)
                return trace.finish()
        except LanguageError as error:
            raise error.with_traceback(author_traceback(error.__traceback__)) from None


def kernel(function: Callable[..., None]) -> TileProgram:
    """Make a tile program of `function`, whose parameters are annotated with Tensor and Scalar.

    Parameters after `*` are static options, plain Python values at trace time; a tensor or scalar with the
    default None is optional. Raises LanguageError if the signature is not of that form.
    """
    name = function.__name__
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except NameError as error:
        fix = 'quote dimensions, as in Tensor["M"], and import Tensor and Scalar where the module sees them'
        raise LanguageError(f"kernel {name!r}: {error}; {fix}") from None
    params = tuple(_parameter(name, p) for p in parameters if p.kind is not p.KEYWORD_ONLY)
    options = tuple((p.name, _default(name, p)) for p in parameters if p.kind is p.KEYWORD_ONLY)
    _check_names(name, params)
    return TileProgram(name, inspect.getdoc(function) or "", Signature(params, options), function)


def _parameter(kernel_name: str, param: inspect.Parameter) -> Parameter:
    spec = param.annotation
    if not isinstance(spec, (Tensor, Scalar)):
        message = 'annotate it as Tensor["M", "N"] or Scalar["f32"], or put it after * as an option'
        raise LanguageError(f"kernel {kernel_name!r}, parameter {param.name!r}: {message}")
    if param.default not in (param.empty, None):
        raise LanguageError(f"kernel {kernel_name!r}, parameter {param.name!r}: only None may be its default")
    return Parameter(param.name, spec, param.default is None)


def _default(kernel_name: str, param: inspect.Parameter) -> Any:
    if param.default is param.empty:
        raise LanguageError(f"kernel {kernel_name!r}, option {param.name!r}: give it a default")
    return param.default


def _check_names(kernel_name: str, params: tuple[Parameter, ...]) -> None:
    dims = {d for p in params if isinstance(p.spec, Tensor) for d in p.spec.dims}
    for dim in dims:
        if isinstance(dim, str) and not dim.isidentifier():
            raise LanguageError(f"kernel {kernel_name!r}: dimension {dim!r} is not a name; use letters, as in 'M'")
    for name in [kernel_name, *(p.name for p in params), *(d for d in dims if isinstance(d, str))]:
        if name in KEYWORDS:
            raise LanguageError(f"kernel {kernel_name!r}: {name!r} is a word of the tile language; rename it")
    for param in params:
        if param.name in dims:
            raise LanguageError(f"kernel {kernel_name!r}: {param.name!r} is a parameter and a dimension; rename one")


def _handle(param: ir.Param) -> TensorParam | ScalarParam:
    if param.dims is None:
        return ScalarParam(param.name, param.dtype)
    return TensorParam(param.name, param.dtype, param.dims)


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) if names else "none"
