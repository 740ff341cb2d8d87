"""Scheduled programs, as text, run on the GPU at hand; and operators by a design, or by the default one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from tilewright.build.cuda_kernel import CudaBinary
from tilewright.build.kernel_cache import Request
from tilewright.build.nvrtc import compile_cuda
from tilewright.design.default import Facts
from tilewright.design.design import Design
from tilewright.design.gpu.rows import fixed_dims
from tilewright.emit.cuda_simt import emit_simt
from tilewright.language.interpreter import bind_sizes
from tilewright.language.parser import parse
from tilewright.language.verifier import check
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import driver
from tilewright.runtime.cuda.dispatch import loaded, machine, requested
from tilewright.runtime.cuda.kernel import GpuKernel, layout_on_gpu
from tilewright.runtime.dispatch import Program


def to_gpu(x: Any) -> torch.Tensor:
    """A NumPy array of any of our types on the GPU, row-major."""
    x = np.ascontiguousarray(x)
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).cuda()
    if x.dtype.name == "float8_e4m3fn":
        return torch.from_numpy(x.view(np.int8)).view(torch.float8_e4m3fn).cuda()
    return torch.from_numpy(x).cuda()


def to_numpy(x: torch.Tensor, kind: Any) -> Any:
    """Back again, as elements of `kind`."""
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).cpu().numpy().view(kind)


def run_text(text: str, tensors: Mapping[str, torch.Tensor], fixed: tuple[str, ...] = ()) -> None:
    """Run a scheduled program on tensors, which it writes in place; `fixed` dims become part of the kernel."""
    program = check(parse(text))
    buffers = {n: Buffer.of(x) for n, x in tensors.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in program.params)
    sizes = {d: n for p in program.params for d, n in zip(p.dims or (), buffers[p.name].shape, strict=True)}
    literal = {d: n for d, n in sizes.items() if d in fixed}
    module = emit_simt(program, dict(layouts), literal, machine(0))
    compiled = compile_cuda(module.source, module.entry, machine(0).architecture)
    function = driver.load(compiled.cubin, module.entry, 0, module.threads, module.shared_bytes, 1)
    request = Request(program, Design.of({}), layouts, tuple(literal.items()))
    GpuKernel(request, CudaBinary(module, compiled.cubin, compiled.report), function, machine(0)).bind(
        buffers, {}, sizes
    )()
    torch.cuda.synchronize()


def run_operator(
    operator: Any,
    tensors: Mapping[str, torch.Tensor],
    design: Design,
    options: Mapping[str, Any] | None = None,
    fixed: tuple[str, ...] = (),
) -> None:
    """Run an operator without scalars by `design`; `fixed` dims become part of the kernel."""
    names = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32", torch.int8: "i8"}
    program = operator.kernel.trace({n: names.get(x.dtype, "i32") for n, x in tensors.items()}, options=options or {})
    buffers = {n: Buffer.of(x) for n, x in tensors.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in program.params)
    sizes = bind_sizes(program, {n: np.empty(x.shape, np.float64) for n, x in tensors.items()}, exact=True)
    kernel = loaded(requested(Program.of(program), layouts, sizes, machine(0), design, fixed), 0)
    kernel.bind(buffers, {}, sizes)()
    torch.cuda.synchronize()


def placed(call: Any) -> dict[str, torch.Tensor]:
    """Tensors of a call of `operator_cases` on the GPU, its outputs poisoned."""
    tensors = {n: to_gpu(x) for n, x in call.inputs.items() if n not in call.outputs}
    for output, (shape, kind) in call.outputs.items():
        poison = np.full(shape, -1 if np.dtype(kind).kind == "i" else np.nan, kind)
        tensors[output] = to_gpu(call.inputs[output] if output in call.operator.updates else poison)
    return tensors


def run_call(call: Any, design: Design | None = None) -> dict[str, torch.Tensor]:
    """A call of `operator_cases` by a design (the default one): its outputs, poisoned before."""
    tensors = placed(call)
    kernel, facts, buffers = facts_of(call, tensors)
    request = request_of(kernel, facts, buffers, design)
    loaded(request, 0).bind(buffers, call.scalars, facts.sizes)()
    torch.cuda.synchronize()
    return {output: tensors[output] for output in call.outputs}


def request_of(kernel: Any, facts: Facts, buffers: Mapping[str, Buffer], design: Design | None) -> Request:
    """What has to be built for a program on operands by a design (the default one)."""
    layouts = tuple((n, layout_on_gpu(b)) for n, b in buffers.items())
    return requested(Program.of(kernel), layouts, facts.sizes, facts.machine, design, tuple(facts.fixed))


def facts_of(
    call: Any, tensors: Mapping[str, torch.Tensor], fixed: Iterable[str] = ()
) -> tuple[Any, Facts, dict[str, Buffer]]:
    """The program of a call on tensors, what designs may rely on, and the tensors as kernels take them.

    `fixed`: dims that are a part of the kernel beside those that always are.
    """
    buffers = {n: Buffer.of(x) for n, x in tensors.items()}
    kernel = call.operator.kernel.trace({n: b.dtype.name for n, b in buffers.items()}, options=call.options)
    shapes = {p.name: buffers[p.name].shape for p in kernel.params if p.dims is not None}
    pairs = [(d, n) for p in kernel.params if p.dims is not None for d, n in zip(p.dims, shapes[p.name], strict=True)]
    sizes = {d: n for d, n in pairs if isinstance(d, str)}
    layouts = {n: layout_on_gpu(b) for n, b in buffers.items()}
    unit = {n: tuple(d for d, s in enumerate(x.strides) if s == 1) for n, x in layouts.items()}
    aligned = frozenset(n for n, x in layouts.items() if x.align >= 16)
    part = frozenset((*fixed_dims(kernel), *Program.of(kernel).whole, *fixed))
    return kernel, Facts(sizes, unit, machine(0), aligned, part), buffers
