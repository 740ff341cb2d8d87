"""From a design to machine code: lowered, emitted and compiled once, and found again by what went in."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.build.cache import Cache, cache_key, disk_cache
from tilewright.build.jit import Library, Target, compiler_version, load
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.emit import abi
from tilewright.language import ir
from tilewright.language.printer import show
from tilewright.machines.machine import Machine

if TYPE_CHECKING:
    from tilewright.build.stages import Stages


@dataclass(frozen=True)
class Binary:
    """A loaded kernel: the address of `tw_run(args)`, and the workspace a call needs."""

    address: int
    workspace: tuple[abi.Reserve, ...]
    library: Library = field(repr=False, compare=False)
    seconds: float = 0.0  # spent compiling; 0 if it was found on disk


@dataclass(frozen=True)
class Request:
    """All that decides a binary: the program, the design, layouts, fixed sizes and the machine."""

    kernel: ir.Kernel
    design: Design
    layouts: tuple[tuple[str, abi.TensorLayout], ...]
    sizes: tuple[tuple[str, int], ...]

    def text(self) -> str:
        """Canonical text of the request: the cache key is made of it."""
        layouts = {n: [list(x.strides), x.align, *["constant"][: x.constant]] for n, x in self.layouts}
        sizes = json.dumps(dict(self.sizes))
        return "\n".join((show(self.kernel), self.design.to_json(), json.dumps(layouts, sort_keys=True), sizes))

    def facts(self, machine: Machine) -> Facts:
        """What its kernel may rely on: the fixed sizes and no others, and the layouts."""
        unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in self.layouts}
        line = 16 if machine.kind == "nvidia" else 64  # what the copy engine, or a store around the caches, asks for
        aligned = frozenset(n for n, x in self.layouts if x.align >= line)
        return Facts(dict(self.sizes), unit, machine, aligned, frozenset(dict(self.sizes)))


Observer = Callable[[str, "Stages", Binary], None]
"""Told of every kernel that is built or found: its key, its stages and the binary."""


def build(request: Request, machine: Machine, observe: Observer | None = None) -> Binary:
    """Compile, or load from the cache on disk; a stage that a user has overridden is compiled each time.

    Raises IllegalDesign, before anything is emitted, for a design that the request or the machine does not allow.
    """
    store, key = disk_cache(), key_of(request, machine)
    binary = None if store.overridden(key) else _found(store, key)
    if binary is not None and observe is None:
        return binary
    # Imported here: a program that finds all its kernels on disk need not wait for what compiles them.
    from tilewright.build.stages import Stages, overrides_in

    stages = Stages(request, machine, target_for(request, machine), overrides_in(store, key))
    if binary is None:
        binary = _compiled(store, key, stages)
    if observe is not None:
        observe(key, stages, binary)
    return binary


def key_of(request: Request, machine: Machine) -> str:
    """Where the cache keeps what becomes of a request."""
    text = f"{_sources()}\n{machine.vector_bits}\n{request.text()}"
    return cache_key(text, target_for(request, machine).fingerprint, compiler_version())


def _compiled(store: Cache, key: str, stages: Stages) -> Binary:
    from tilewright.design.legality import check

    begun, request = time.perf_counter(), stages.request
    check(request.kernel, request.design, request.facts(stages.machine))
    workspace, library = stages.module.workspace, load(stages.o)
    if not stages.overridden:
        store.put(key, "meta", json.dumps(_described(workspace)).encode())
        store.put(key, "o", stages.o)
    return Binary(library.address("tw_run"), workspace, library, time.perf_counter() - begun)


def _found(store: Cache, key: str) -> Binary | None:
    binary, described = store.get(key, "o"), store.get(key, "meta")
    if binary is None or described is None:
        return None
    library = load(binary)
    return Binary(library.address("tw_run"), _reserves(json.loads(described)), library)


def _described(workspace: tuple[abi.Reserve, ...]) -> list[list[object]]:
    return [[r.name, r.itemsize, [[e.dim, e.round_to, e.per] for e in r.extents], r.per_thread] for r in workspace]


def _reserves(data: Sequence[tuple[str, int, Sequence[tuple[str, int, int]], bool]]) -> tuple[abi.Reserve, ...]:
    return tuple(
        abi.Reserve(name, size, tuple(abi.Extent(*extent) for extent in extents), per_thread)
        for name, size, extents, per_thread in data
    )


@lru_cache(maxsize=16)
def target_of(machine: Machine, effort: int = 3) -> Target:
    """What LLVM compiles for on `machine`, and with how much effort."""
    return Target(machine.llvm_cpu, machine.llvm_features, effort)


def target_for(request: Request, machine: Machine) -> Target:
    """What LLVM compiles a request for. Packed products take the least effort: copies are most of their code, and their
    inner loops are in order as they are written (docs/notes/0001-x86-speed.md); others may run at half speed by it.
    """
    packs = next(request.design.prefixed("pack"), None) is not None
    return target_of(machine, 1 if packs else 3)


@cache
def _sources() -> str:
    """Hash of the code that turns a request into text: another version of it must not meet this one's binaries."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for folder in ("emit", "language", "lower"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


__all__ = ["Binary", "Observer", "Request", "build", "disk_cache", "key_of", "target_for", "target_of"]
