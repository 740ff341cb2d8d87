"""The stages of a build as artefacts with names: seen, saved, and replaced by a user's own.

| stage  | what it is                                                  | may be overridden |
|--------|-------------------------------------------------------------|-------------------|
| tile   | the traced program                                          |                   |
| sched  | the scheduled program (text of the IR)                      | yes               |
| thread | what one thread executes, to be read                        |                   |
| ll     | LLVM IR                                                     | yes               |
| o      | the object file                                             |                   |
| asm    | its assembly                                                |                   |

A file `<key>.override.sched` or `<key>.override.ll` beside a kernel's cache entry takes the place of that stage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.build.cache import Cache
from tilewright.build.jit import Target, assemble, compile_ir
from tilewright.emit.listing import listing
from tilewright.emit.llvm import Module, VectorUnit, emit
from tilewright.errors import ArgumentError, CompileError
from tilewright.language import ir
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import check
from tilewright.lower.stages import lower
from tilewright.machines.machine import Machine

if TYPE_CHECKING:
    from tilewright.build.kernel_cache import Request

STAGES = ("tile", "sched", "thread", "ll", "o", "asm")
OVERRIDABLE = ("sched", "ll")

Overrides = Callable[[str], "tuple[str, bytes] | None"]
"""From a stage to where its override lies and what that says, or None."""


def no_overrides(_stage: str) -> None:
    """Every stage is what the one before makes of it."""


def overrides_in(store: Cache, key: str) -> Overrides:
    """The overrides that lie in a cache folder for `key`."""

    def find(stage: str) -> tuple[str, bytes] | None:
        found = store.override(key, stage)
        return None if found is None else (str(store.override_path(key, stage)), found)

    return find


class Stages:
    """What a request becomes for a machine, stage by stage; an artefact is made when it is first asked for.

    An override that is no program, breaks a rule of the IR or has other parameters raises ParseError, VerifyError or
    CompileError naming the file.
    """

    def __init__(self, request: Request, machine: Machine, target: Target, overrides: Overrides = no_overrides) -> None:
        self.request, self.machine, self.target = request, machine, target
        self._overrides = {s: found for s in OVERRIDABLE if (found := overrides(s)) is not None}
        for stage, (where, _) in self._overrides.items():
            print(f"tilewright: stage {stage} of {request.kernel.name} is {where}", file=sys.stderr)

    @property
    def overridden(self) -> bool:
        """Whether a user's file takes the place of a stage; the result must not be cached as the request's own."""
        return bool(self._overrides)

    @cached_property
    def sched(self) -> ir.Kernel:
        """The scheduled program."""
        if "sched" not in self._overrides:
            return lower(self.request.kernel, self.request.design)
        where, raw = self._overrides["sched"]
        try:
            kernel = parse(raw.decode())
            check(kernel)
        except Exception as error:
            error.add_note(f"in the override {where}; mend or remove it")
            raise
        if kernel.params != self.request.kernel.params:
            raise CompileError(f"{where} has other parameters than {self.request.kernel.name}; keep its first line")
        return kernel

    @cached_property
    def module(self) -> Module:
        """The LLVM module and the workspace that its calls need."""
        made = emit(self.sched, dict(self.request.layouts), dict(self.request.sizes), self._unit)
        if "ll" not in self._overrides:
            return made
        return Module(self._overrides["ll"][1].decode(errors="replace"), made.workspace)

    @cached_property
    def thread(self) -> str:
        """The listing of one thread."""
        return listing(self.sched, dict(self.request.layouts), dict(self.request.sizes), self._unit)

    @cached_property
    def o(self) -> bytes:
        """The object file."""
        return compile_ir(self.module.text, self.target)

    @cached_property
    def asm(self) -> str:
        """The assembly of the same code."""
        return assemble(self.module.text, self.target)

    def text(self, stage: str) -> str:
        """A stage as text; ArgumentError for one that is unknown or binary."""
        match stage:
            case "tile":
                return show(self.request.kernel)
            case "sched":
                return show(self.sched)
            case "thread":
                return self.thread
            case "ll":
                return self.module.text
            case "asm":
                return self.asm
        known = ", ".join(s for s in STAGES if s != "o")
        raise ArgumentError(f"no stage {stage!r} can be shown; there are {known}")

    @property
    def source(self) -> str:
        """What the compiler is given."""
        return self.module.text

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every stage to `folder` as `<operator>.<stage>`; the files written. ArgumentError if that cannot be."""
        made = {stage: self.o if stage == "o" else self.text(stage).encode() for stage in STAGES}
        return save_artefacts(folder, self.request.kernel.name, made)

    def keep(self, store: Cache, key: str) -> Path:
        """Put the text stages beside the kernel's entry in the cache; where an override of `sched` would lie."""
        for stage in ("tile", "sched", "ll", "asm"):
            store.put(key, stage, self.text(stage).encode())
        return store.override_path(key, "sched")

    @property
    def _unit(self) -> VectorUnit:
        return VectorUnit(self.machine.vector_bits // 8, self.target.enabled)


def save_artefacts(folder: str | os.PathLike[str], name: str, artefacts: Mapping[str, bytes]) -> list[Path]:
    """Write `<name>.<stage>` for each artefact; the files written. ArgumentError if that cannot be."""
    root, written = Path(folder), []
    try:
        root.mkdir(parents=True, exist_ok=True)
        for stage, data in artefacts.items():
            path = root / f"{name}.{stage}"
            temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            os.replace(temporary, path)
            written.append(path)
    except OSError as error:
        raise ArgumentError(f"the stages cannot be saved in {root} ({error.strerror}); choose another") from None
    return written


__all__ = ["OVERRIDABLE", "STAGES", "Overrides", "Stages", "no_overrides", "overrides_in", "save_artefacts"]
