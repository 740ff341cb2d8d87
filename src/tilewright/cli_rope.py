"""`tilewright bench rope`: the study of rotary embedding, forward and backward, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.cli_options import AsJson
from tilewright.errors import ArgumentError


def bench_rope(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    lengths: Annotated[str, typer.Option(help="Sequence lengths.")] = "32,64,128,256,512,1024,2048,4096,8192,16384",
    head_dims: Annotated[str, typer.Option(help="Sizes of heads.")] = "64,128,256",
    batch: Annotated[int, typer.Option(min=1, help="Sequences.")] = 1,
    heads: Annotated[int, typer.Option(min=1, help="Heads of a sequence.")] = 32,
    dtype: Annotated[str, typer.Option(help="f32, bf16 or f16.")] = "f32",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.0, help="Seconds of each comparison.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Folder for CSV, PNG, HTML and profiler tables.")] = Path("results"),
    save: Annotated[bool, typer.Option(help="Keep raw samples in benchmarks/results/ of this checkout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rotary embedding beside eager torch, torch.compile and fused kernels, by sequence length and head size."""
    import os

    os.environ["TILEWRIGHT_THREADS"] = str(threads)  # before the first kernel runs
    from tilewright.bench.plan import need

    need("torch")
    from tilewright.bench import rope, rope_report
    from tilewright.bench.console import publish
    from tilewright.machines import host, nvidia

    request = rope.RopeRequest(
        device, _counts("lengths", lengths), _counts("head-dims", head_dims), batch, heads, dtype, threads, seconds
    )
    results = []
    for result in rope.measure(request):
        results.append(result)
        typer.echo(_line(result.name, result.metrics, result.error), err=True)
    profile = rope.profile(request, max(n for n in request.lengths if n <= 2048 or n == min(request.lengths)))
    about = f"x is [{batch}, length, {heads}, head size] of {dtype} on {device}, {threads} CPU threads"
    for path in rope_report.write(results, profile, about, out):
        typer.echo(f"wrote {path}", err=True)
    if save or as_json:
        publish(results, nvidia.detect() if device == "cuda" else host.detect(), f"rope-{device}", save, as_json)
    if any(r.error for r in results):
        raise typer.Exit(1)


def _counts(name: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise ArgumentError(f"--{name} {text}: give positive whole numbers, such as 128,1024")
    return tuple(dict.fromkeys(int(p) for p in parts))


def _line(name: str, metrics: dict[str, float], error: str | None) -> str:
    if error:
        return f"{name:36} {error}"
    ratios = "  ".join(f"{key[6:]} {value:.2f}x" for key, value in metrics.items() if key.startswith("ratio "))
    return (
        f"{name:36} {metrics['us']:10.1f} us {metrics['gb_per_s']:6.1f} GB/s  {ratios}  (noise {metrics['noise']:.1%})"
    )
