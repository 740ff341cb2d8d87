"""Products by mma.sync and by FMA on the GPU at hand: layouts, types, epilogues, odd sizes; verified and timed.

python tools/try_mma.py [right|fast]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "src")]

# m n k type layout [epilogue]: a[M, K] by rows (N) or by columns (T), b[N, K] by rows (T) or by columns (N).
RIGHT = [
    *(f"{size} bf16 {lay}" for lay in ("NT", "NN", "TN", "TT") for size in ("256 384 320", "200 136 72", "129 131 77")),
    *(f"{size} f32 {lay}" for lay in ("NT", "NN", "TN", "TT") for size in ("256 384 320", "129 131 77")),
    "33 70 500 bf16 NT", "33 70 500 bf16 TN", "130 264 96 f16 NT", "16 512 512 bf16 NT", "20 512 500 bf16 NT",
    "130 264 96 bf16 NT bias_gelu", "129 131 77 bf16 NN bias_gelu", "24 264 96 bf16 NT bias_gelu",
    "100 200 96 bf16 NT gate_up", "3 4096 1000 bf16 NT gate_up", "8 100 300 bf16 NT",
]  # fmt: skip
FAST = [
    "2048 4096 4096 bf16 NT", "8192 4096 4096 bf16 NT", "8192 4096 4096 bf16 TN", "16 4096 4096 bf16 NT",
    "1000 777 333 bf16 NT", "4095 4097 1031 bf16 NT", "4095 4097 1031 bf16 NN", "513 2049 4097 bf16 NT",
    "128 4097 4095 bf16 NT", "17 4097 4095 bf16 NT", "1 4097 4095 bf16 NT", "4096 4096 4096 f32 NT",
    "4096 4096 4096 f32 NN", "1024 1024 1024 f32 NT", "1001 1003 1005 f32 NT", "1 4096 4096 bf16 NT",
    "4 4096 4096 bf16 NT", "8 4096 4096 bf16 NT", "1 28672 4096 bf16 NT", "1 4096 4096 f32 NT",
]  # fmt: skip


def main() -> None:
    """Every case of the list, one line each."""
    fast = sys.argv[1:2] == ["fast"]
    for case in FAST if fast else RIGHT:
        try:
            m, n, k, element, layout, *epilogue = case.split()
            said = tried(int(m), int(n), int(k), element, layout, *epilogue, timed=fast)
        except Exception as error:  # the line says what happened
            said = f"FAILED {type(error).__name__}: {str(error)[:700]!r}"
        print(case, said, flush=True)


def tried(m: int, n: int, k: int, element: str, layout: str, epilogue: str = "", *, timed: bool) -> str:
    """One product by its default design without the matrix unit of Hopper."""
    import torch

    from tilewright.design.default import Facts
    from tilewright.design.gpu.simt import default_simt, legal_simt
    from tilewright.operators import OPERATORS
    from tilewright.runtime.buffer import Buffer
    from tilewright.runtime.cuda.dispatch import loaded, machine, requested
    from tilewright.runtime.cuda.kernel import layout_on_gpu
    from tilewright.runtime.dispatch import Program

    kind = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[element]
    torch.backends.cuda.matmul.allow_tf32 = False

    def tensor(*shape: int, columns: bool = False) -> Any:
        x = torch.randn(*(shape[::-1] if columns else shape), device="cuda").to(kind)
        return x.t() if columns else x

    gate = epilogue == "gate_up"
    a, b = tensor(m, k, columns=layout[0] == "T"), tensor(n, k, columns=layout[1] == "N")
    c = torch.full((m, n), float("nan"), device="cuda", dtype=kind)
    operator = OPERATORS["gate_up" if gate else "matmul"]
    given: dict[str, Any] = {"x": a, "gate": b, "up": tensor(n, k), "y": c} if gate else {"a": a, "b": b, "c": c}
    options: dict[str, Any] = {}
    if epilogue == "bias_gelu":
        given |= {"bias": tensor(n), "residual": tensor(m, n)}
        options["activation"] = "gelu"
    traced = operator.kernel.trace(dict.fromkeys(given, element), options=options)
    buffers = {name: Buffer.of(x) for name, x in given.items()}
    layouts = tuple((p.name, layout_on_gpu(buffers[p.name])) for p in traced.params)
    sizes, known = {"M": m, "N": n, "K": k}, machine(0)
    unit = {name: tuple(d for d, s in enumerate(x.strides) if s == 1) for name, x in layouts}
    facts = Facts(sizes, unit, known, frozenset(name for name, x in layouts if x.align >= 16))
    design = default_simt(traced, facts)
    reasons = legal_simt(traced, design, facts)
    assert not reasons, reasons
    kernel = loaded(requested(Program.of(traced), layouts, sizes, known, design), 0)
    launch = kernel.bind(buffers, {}, {d: sizes[d] for d in traced.dims})
    launch()
    torch.cuda.synchronize()
    exact, size = _expected(given, options)
    terms = (8 * k**0.5 + 20) * 2.0**-24 * size
    limit = terms + {"bf16": 2.0**-8, "f16": 2.0**-11, "f32": 2.0**-24}[element] * (exact.abs() + terms) + 1e-30
    worst = float(((c.double() - exact).abs() / limit).nan_to_num(1e9).max())
    report = kernel.binary.report
    said = f"{'ok' if worst <= 1 else 'WRONG'} {worst:.2f} regs {report.registers} spills {report.spill_stores}"
    if timed:
        ours, theirs = _times(launch, lambda: a @ b.t())
        flops = 2 * m * n * k / ours / 1e12
        said += f" {ours * 1e6:.1f} us, torch {theirs * 1e6:.1f} us, {theirs / ours:.2f}x, {flops:.1f} TFLOP/s"
    return f"{said} {dict(design.decisions)}"


def _expected(given: dict[str, Any], options: dict[str, Any]) -> tuple[Any, Any]:
    import torch

    wide = {name: x.double() for name, x in given.items()}
    if "gate" in given:
        g, u = wide["x"] @ wide["gate"].t(), wide["x"] @ wide["up"].t()
        sizes = [wide["x"].abs() @ wide[w].abs().t() for w in ("gate", "up")]
        value = torch.nn.functional.silu(g)
        return value * u, 1.13 * sizes[0] * u.abs() + value.abs() * sizes[1]
    value, size = wide["a"] @ wide["b"].t(), wide["a"].abs() @ wide["b"].abs().t()
    if options:
        value, size = value + wide["bias"], size + wide["bias"].abs()
        value = torch.nn.functional.gelu(value) + wide["residual"]
        size = 1.13 * size + wide["residual"].abs()
    return value, size


def _times(*functions: Any) -> list[float]:
    """Seconds of each, in turns, caches flushed before: medians of 20."""
    import torch

    flush = torch.empty(1 << 29, dtype=torch.int8, device="cuda")
    found: list[list[float]] = [[] for _ in functions]
    for _ in range(22):
        for times, function in zip(found, functions, strict=True):
            flush.zero_()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            stop.record()
            stop.synchronize()
            times.append(start.elapsed_time(stop) / 1e3)
    return [sorted(times[2:])[10] for times in found]


if __name__ == "__main__":
    main()
