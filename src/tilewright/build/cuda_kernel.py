"""From a design to a cubin: lowered, emitted and compiled once, and found again by what went in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tilewright.build import nvrtc
from tilewright.build.cache import Cache, cache_key, disk_cache
from tilewright.build.kernel_cache import Request
from tilewright.build.ptxas import Report
from tilewright.build.stages import save_artefacts
from tilewright.build.usage import usage_of, usage_text
from tilewright.design.cost.usage import Usage
from tilewright.design.design import Design
from tilewright.design.gpu.built import refused
from tilewright.design.gpu.packing import ALIGNED, as_packed, copy_design, copy_program, packed, without_packs
from tilewright.design.legality import check
from tilewright.emit.abi import Extent, Reserve, TensorLayout
from tilewright.emit.cuda_abi import CudaModule, Grid, Scratch, TensorMap
from tilewright.errors import ArgumentError, CompileError, IllegalDesign, TilewrightError
from tilewright.language import ir
from tilewright.language.printer import show
from tilewright.machines.machine import Machine


@dataclass(frozen=True)
class CudaBinary:
    """A compiled kernel: what a launch has to know, the machine code, and ptxas's report; `seconds` spent compiling."""

    module: CudaModule
    cubin: bytes = field(repr=False)
    report: Report
    seconds: float = 0.0
    packs: tuple[tuple[str, Request, CudaBinary], ...] = ()  # copies of operands that are launched first

    @property
    def usage(self) -> Usage:
        """What the kernel takes of an SM."""
        return usage_of(self.module, self.report)


class CudaStages:
    """What a request becomes for an NVIDIA machine, stage by stage; an artefact is made when it is first asked for."""

    def __init__(self, request: Request, machine: Machine) -> None:
        self.request, self.machine = request, machine

    @cached_property
    def packs(self) -> tuple[tuple[str, CudaStages], ...]:
        """The copies that come first: the tensor that each packs, and what becomes of its program."""
        return tuple((t, CudaStages(r, self.machine)) for t, r in pack_requests(self.request, self.machine))

    @cached_property
    def sched(self) -> ir.Kernel:
        """The scheduled program."""
        from tilewright.lower.gpu.stages import lower_gpu

        request = self.request
        facts = as_packed(request.kernel, request.facts(self.machine), packed(request.design))
        return lower_gpu(request.kernel, without_packs(request.design), facts)

    @cached_property
    def module(self) -> CudaModule:
        """The CUDA C++ with its design in the head, and what a launch has to know."""
        from tilewright.emit.cuda import emit_cuda
        from tilewright.emit.cuda_tidy import titled

        request = self.request
        made = emit_cuda(self.sched, packed_layouts(request), dict(request.sizes), self.machine)
        return replace(made, source=titled(made.source, request.sizes, request.design.decisions))

    @cached_property
    def compiled(self) -> nvrtc.Compiled:
        """The cubin with its report."""
        return nvrtc.compile_cuda(self.module.source, self.module.entry, self.machine.architecture)

    @property
    def usage(self) -> Usage:
        """What the kernel takes of an SM; it is compiled for that, and no GPU is needed."""
        return usage_of(self.module, self.compiled.report)

    @property
    def source(self) -> str:
        """What the compiler is given."""
        return self.module.source

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every stage to `folder` as `<operator>.<stage>`; the files written. ArgumentError if that cannot be."""
        made = {stage: self.text(stage).encode() for stage in STAGES}
        return save_artefacts(folder, self.request.kernel.name, {**made, "cubin": self.compiled.cubin})

    def text(self, stage: str) -> str:
        """`tile`, `sched`, `cu`, `ptx`, `sass` or `usage` as text; CompileError where no disassembler is found."""
        if stage != "tile" and self.packs:
            copies = [f"// pack {tensor}\n{copy.text(stage)}" for tensor, copy in self.packs]
            return "\n".join([*copies, self._own(stage)])
        return self._own(stage)

    def _own(self, stage: str) -> str:
        match stage:
            case "tile":
                return show(self.request.kernel)
            case "sched":
                return show(self.sched)
            case "cu":
                return self.module.source
            case "ptx":
                return nvrtc.compile_ptx(self.module.source, self.module.entry, self.machine.architecture)
            case "sass":
                return disassemble(self.compiled.cubin)
            case "usage":
                return usage_text(self.usage, self.compiled.report, self.machine)
        raise ArgumentError(f"no stage {stage!r} can be shown for {self.machine.name}; there are {', '.join(STAGES)}")


STAGES = ("tile", "sched", "cu", "ptx", "sass", "usage")


def build_cuda(request: Request, machine: Machine) -> CudaBinary:
    """Compile, or load from the cache on disk.

    Raises IllegalDesign, before anything is emitted, for a design that the request or the machine does not allow, and
    after compilation for one whose registers ptxas had to spill beyond use or that cannot be launched.
    """
    store, key = disk_cache(), key_of(request, machine)
    found = _found(store, key) or _compiled(store, key, request, machine)
    packs = tuple((t, r, build_cuda(r, machine)) for t, r in pack_requests(request, machine))
    return replace(found, packs=packs) if packs else found


def cached(request: Request, machine: Machine) -> bool:
    """Whether the cache on disk holds the kernel of a request."""
    return disk_cache().get(key_of(request, machine), "meta") is not None


def build_many(requests: Iterable[Request], machine: Machine, workers: int) -> list[CudaBinary | TilewrightError]:
    """`build_cuda` for each request, side by side in `workers` threads; an error stands in the place of its binary."""

    def one(request: Request) -> CudaBinary | TilewrightError:
        try:
            return build_cuda(request, machine)
        except TilewrightError as error:
            return error

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(one, requests))


def pack_requests(request: Request, machine: Machine) -> Iterator[tuple[str, Request]]:
    """The copy of each operand that the design packs, as a program: any sizes, from rows that lie anywhere."""
    for tensor in packed(request.design):
        param, layout = request.kernel.param(tensor), dict(request.layouts)[tensor]
        assert param.dims is not None
        program = copy_program(len(param.dims), param.dtype.name)
        to = packed_layouts(request)[tensor]
        bare = Request(program, Design(), (("x", layout), ("y", to)), ())
        yield tensor, replace(bare, design=copy_design(program, bare.facts(machine)))


def packed_layouts(request: Request) -> dict[str, TensorLayout]:
    """Layouts of the operands as the product meets them."""
    layouts = dict(request.layouts)
    for tensor in packed(request.design):
        strides = layouts[tensor].strides
        unit = next((d for d, s in enumerate(strides) if s == 1), len(strides) - 1)
        layouts[tensor] = TensorLayout(tuple(1 if d == unit else None for d in range(len(strides))), ALIGNED)
    return layouts


def key_of(request: Request, machine: Machine) -> str:
    """Where the cache keeps what becomes of a request."""
    return cache_key(f"{_sources()}\n{request.text()}\n{_limits(machine)}", machine.architecture, nvrtc.nvrtc_version())


def disassemble(cubin: bytes) -> str:
    """SASS of a cubin by nvdisasm or cuobjdump, from the path or from their packages."""
    tool = _disassembler()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        arguments = [tool, "-sass", file.name] if "cuobjdump" in tool else [tool, file.name]
        run = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if run.returncode:
        raise CompileError(f"{tool} cannot read the cubin: {run.stderr.strip()}")
    return run.stdout


@cache
def _disassembler() -> str:
    for name in ("nvdisasm", "cuobjdump"):
        if found := shutil.which(name):
            return found
        for packaged in _nvidia_packages():
            for path in packaged.rglob(name):
                if path.is_file():
                    return str(path)
    raise CompileError('no disassembler of cubins is here; pip install nvidia-cuda-nvdisasm, or look at stage "ptx"')


def _nvidia_packages() -> list[Path]:
    try:
        import nvidia
    except ImportError:
        return []
    return [Path(p) for p in nvidia.__path__]


def _compiled(store: Cache, key: str, request: Request, machine: Machine) -> CudaBinary:
    begun = time.perf_counter()
    check(request.kernel, request.design, request.facts(machine))
    stages = CudaStages(request, machine)
    module, compiled = stages.module, stages.compiled
    if reasons := refused(request.design, usage_of(module, compiled.report), machine):
        listed = "; ".join(map(str, reasons))
        raise IllegalDesign(f"design {request.design.hash} of {request.kernel.name}, compiled: {listed}")
    meta = {"module": {**asdict(module), "source": ""}, "report": compiled.report.to_dict()}
    store.put(key, "cu", module.source.encode())
    store.put(key, "meta", json.dumps(meta).encode())
    store.put(key, "cubin", compiled.cubin)
    return CudaBinary(module, compiled.cubin, compiled.report, time.perf_counter() - begun)


def _found(store: Cache, key: str) -> CudaBinary | None:
    cubin, meta, source = (store.get(key, stage) for stage in ("cubin", "meta", "cu"))
    if cubin is None or meta is None or source is None:
        return None
    data = json.loads(meta)
    report = Report(**{**data["report"], "warnings": tuple(data["report"]["warnings"])})
    return CudaBinary(_module(data["module"], source.decode()), cubin, report)


def _module(data: dict[str, Any], source: str) -> CudaModule:
    grid = {**data["grid"], "axes": _pairs(data["grid"]["axes"]), "cluster_axes": _pairs(data["grid"]["cluster_axes"])}
    grid["parts"] = tuple(grid["parts"])
    maps = [TensorMap(**{**m, "dims": tuple(m["dims"]), "box": tuple(m["box"])}) for m in data["maps"]]
    scratch = [Scratch(_reserve(s["reserve"]), s["zeroed"]) for s in data["scratch"]]
    fields = {**data, "source": source, "grid": Grid(**grid), "maps": tuple(maps), "scratch": tuple(scratch)}
    return CudaModule(**fields)


def _pairs(data: list[list[Any]]) -> tuple[tuple[Any, Any], ...]:
    return tuple((a, b) for a, b in data)


def _reserve(data: dict[str, Any]) -> Reserve:
    extents = tuple(Extent(**e) for e in data["extents"])
    return Reserve(data["name"], data["itemsize"], extents, data["per_thread"])


def _limits(machine: Machine) -> str:
    return json.dumps(sorted(machine.limits)) + str(machine.cores)


@cache
def _sources() -> str:
    """Hash of the code that turns a request into text: another version must not meet this one's binaries."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for folder in ("emit", "language", "lower"):
        for path in sorted((package / folder).rglob("*")):
            if path.suffix in (".py", ".cuh"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


__all__ = ["STAGES", "CudaBinary", "CudaStages", "build_cuda", "build_many", "cached", "disassemble", "key_of"]
