"""What is designed: an operator, or a user's program, at fixed sizes, types and layouts, on a machine."""

from __future__ import annotations

import importlib.util
import math
import sys
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tilewright.build.kernel_cache import Request
from tilewright.design.book.key import Key
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.trial import Objective
from tilewright.emit import abi
from tilewright.errors import ArgumentError, MachineError, TilewrightError
from tilewright.language import structure
from tilewright.language.dtypes import DType
from tilewright.language.program import TileProgram
from tilewright.machines.machine import Machine
from tilewright.operators import Operator
from tilewright.operators.names import operator_of
from tilewright.runtime import dispatch, pool
from tilewright.runtime.compiled import check_sizes, dtypes_of
from tilewright.runtime.cuda import dispatch as gpu
from tilewright.runtime.inputs import written

_LINE = 64


@dataclass(frozen=True, eq=False)
class Subject:
    """A traced program and all that its designs may depend on.

    `unit` names the dimension with stride one of every tensor; tensors lie in memory without gaps, from a cache line
    on. `operator` is None for a program without a reference of its own.
    """

    program: dispatch.Program
    operator: Operator | None
    options: tuple[tuple[str, Any], ...]
    sizes: dict[str, int]
    unit: dict[str, int]
    machine: Machine
    threads: int
    given: dispatch.Layouts | None = None
    """How a program's own operands lie, where a kernel is designed for them (GPUs)."""
    constant: tuple[str, ...] | None = None
    """On a GPU the dims that are constants of the machine code; None for all of them."""

    @classmethod
    def of(
        cls,
        operator: Operator | TileProgram | str,
        sizes: Mapping[str, int],
        dtype: str | DType | Mapping[str, str | DType] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        present: Collection[str] = (),
        unit: Mapping[str, int] | None = None,
        machine: Machine | str | None = None,
        threads: int | None = None,
    ) -> Subject:
        """The subject of a search; a text names a registered operator, or `file.py:name`.

        Raises ArgumentError for sizes that are missing, unknown or 0, and for a thread count below 1.
        """
        found = named(operator) if isinstance(operator, str) else operator
        tile = found.kernel if isinstance(found, Operator) else found
        if not isinstance(tile, TileProgram):
            raise ArgumentError(f"{operator!r} is no tile program; decorate a function with @kernel")
        traced = tile.trace(dtypes_of(tile, dtype, present), options=options)
        check_sizes(traced, sizes)
        if empty := [d for d, n in sizes.items() if n < 1]:
            raise ArgumentError(f"{traced.name}: {empty[0]}=0 leaves nothing to measure; give sizes of at least 1")
        known = dispatch.machine() if machine is None else Machine.of(machine)
        count = pool.available_threads() if threads is None else threads
        if count < 1:
            raise ArgumentError(f"threads={count} cannot run a kernel; give at least 1")
        count = count if known.is_cpu else 1  # threads of the host do nothing of it
        ordered = {d: sizes[d] for d in traced.dims}
        ranks = {p.name: len(p.dims) for p in traced.params if p.dims}
        last = {name: rank - 1 for name, rank in ranks.items()}
        declared = found if isinstance(found, Operator) else None
        fixed = tuple(sorted({**dict(tile.signature.options), **(options or {})}.items()))
        return cls(dispatch.Program.of(traced), declared, fixed, ordered, {**last, **(unit or {})}, known, count)

    @property
    def kernel(self) -> Any:
        """The traced program."""
        return self.program.kernel

    @cached_property
    def updates(self) -> tuple[str, ...]:
        """Tensors whose earlier contents count: the program reads them again, or writes a part of them."""
        if self.operator is not None:
            return self.operator.updates
        loaded = {r.buffer for _, r in structure.loads(self.kernel)}
        return tuple(t for t in written(self.kernel) if t in loaded)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Tensors that the program writes."""
        return written(self.kernel)

    @cached_property
    def layouts(self) -> dispatch.Layouts:
        """Unit strides, and what every row is aligned to."""
        if self.given is not None:
            return self.given
        return tuple((p.name, self._layout(p)) for p in self.kernel.params if p.dims is not None)

    def _layout(self, p: Any) -> abi.TensorLayout:
        unit = self.unit.get(p.name)
        shape = [d if isinstance(d, int) else self.sizes[d] for d in p.dims]
        alone = unit is None or all(n == 1 for d, n in enumerate(shape) if d != unit)
        step = _LINE if alone or unit is None else math.gcd(shape[unit] * p.dtype.bytes, _LINE)
        strides = tuple(1 if d == unit else None for d in range(len(shape)))
        return abi.TensorLayout(strides, step if step == _LINE or not self.machine.is_cpu else 1)

    @cached_property
    def facts(self) -> Facts:
        """What a design may rely on."""
        if not self.machine.is_cpu:
            return gpu.facts_of(self.layouts, self.sizes, self.machine, self.settled)
        known = dispatch.facts_of(self.layouts, self.sizes, self.machine)
        return replace(known, fixed=frozenset(self.program.whole), threads=self.threads)

    @property
    def settled(self) -> tuple[str, ...]:
        """Dims whose size is a part of the kernel: on a GPU all, unless it is to serve others too."""
        if self.machine.is_cpu:
            return self.program.whole
        return tuple(self.sizes) if self.constant is None else self.constant

    def request(self, design: Design) -> Request:
        """What has to be built for a design."""
        if not self.machine.is_cpu:
            return gpu.requested(self.program, self.layouts, self.sizes, self.machine, design, self.settled)
        return dispatch.requested(self.program, self.layouts, self.sizes, self.machine, design)

    def key(self, objective: Objective | str = "latency", numerics: str = "free") -> Key:
        """Where the book keeps what is found."""
        return Key.of(self.kernel, self.facts, threads=self.threads, objective=objective, numerics=numerics)

    def check_runnable(self) -> None:
        """MachineError unless this host executes what the machine's kernels are made of."""
        host = dispatch.machine()
        if self.machine.kind == "nvidia":
            host = _gpu_of_this_host(host)
        features = set(self.machine.vector.features) if self.machine.is_cpu and self.machine.vector else None
        own = set(host.vector.features) if host.vector else set()
        if self.machine.fingerprint != host.fingerprint and (features is None or not features <= own):
            raise MachineError(
                f"designs for {self.machine.name} cannot be measured on {host.name}; search there, and export the book"
            )


def _gpu_of_this_host(host: Machine) -> Machine:
    """The GPU that designs would be tried on; the host itself where there is none."""
    from tilewright.machines import nvidia

    try:
        return nvidia.detect()
    except MachineError:
        return host


def named(text: str) -> Operator | TileProgram:
    """The operator called `text`, or the one that `file.py:name` defines (the file is executed; `file.py` has but one).

    A call of `tilewright.ops` names the operator that it runs: linear is matmul. Raises ArgumentError that lists what
    there is.
    """
    path, colon, name = text.rpartition(":")
    if not colon:
        path, name = (text, "") if text.endswith(".py") else ("", text)
    if not path:
        return operator_of(name)
    module = _executed(Path(path).expanduser())
    there = {n: x for n, x in vars(module).items() if isinstance(x, (Operator, TileProgram))}
    if name not in there:
        if not name and len(there) == 1:
            return next(iter(there.values()))
        fault = f"{path} defines no tile program {name!r}; it has" if name else f"write {path}:name for one of"
        raise ArgumentError(f"{fault} {', '.join(there) or 'none'}")
    return there[name]


def program_named(text: str) -> TileProgram:
    """The tile program of the operator called `text`, or of the one that `file.py:name` defines, as `named`."""
    found = named(text)
    return found.kernel if isinstance(found, Operator) else found


def _executed(path: Path) -> Any:
    """The module that a file makes."""
    if not path.is_file():
        raise ArgumentError(f"there is no file {path}; write file.py:name")
    spec = importlib.util.spec_from_file_location(f"_tilewright_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{path} is no Python file; write file.py:name")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except TilewrightError:
        raise  # it points at the author's line already
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = error.lineno if isinstance(error, SyntaxError) else place.lineno
        where = f"{error.filename if isinstance(error, SyntaxError) else place.filename}:{line}"
        raise ArgumentError(f"{path} cannot be executed: {where}: {type(error).__name__}: {error}") from error
    return module


__all__ = ["Subject", "named"]
