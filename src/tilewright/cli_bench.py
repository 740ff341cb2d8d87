"""`tilewright bench`: Tilewright beside the tools you would use instead, its floors, and the tables made of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright import cli_rope
from tilewright.cli_options import AsJson
from tilewright.errors import ArgumentError

if TYPE_CHECKING:
    from tilewright.bench.plan import Job
    from tilewright.bench.result import Result
    from tilewright.machines.machine import Machine

app = typer.Typer(help="Measure Tilewright beside the tools you would use instead.", no_args_is_help=True)
app.command(name="rope")(cli_rope.bench_rope)

ThreadCounts = Annotated[str | None, typer.Option(help="Thread counts, such as 1,2. Default: one, and all cores.")]
Save = Annotated[
    bool, typer.Option(help="Write the results to benchmarks/results/, beside others of this machine and day.")
]


@app.command()
def cpu(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: matmul_f32, matmul_bf16, "
            "decode_linear, rows, rows_best, compile, memory, decoder, startup."
        ),
    ] = None,
    threads: ThreadCounts = None,
    quick: Annotated[bool, typer.Option(help="Small cases, few samples: a look, not evidence.")] = False,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Time operators and a whole model against torch and transformers; exit with 1 if a floor is missed."""
    from tilewright.bench.cpu import Request, measure, parse_threads
    from tilewright.bench.plan import plan
    from tilewright.machines.machine import Machine

    _refuse_saving_a_look(save, quick)
    machine = Machine.detect()
    request = Request(parse_threads(threads, machine.cores), only, quick)
    _watch(plan(request), measure(request), machine, "cpu", save, as_json)


@app.command(name="design")
def bench_design(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: design_f32, design_bf16, "
            "design_amx, design_rows, design_model, design_race, design_agree."
        ),
    ] = None,
    threads: ThreadCounts = None,
    quick: Annotated[
        bool, typer.Option(help="Fewer shapes, short searches: about 25 minutes on two cores; a look, not evidence.")
    ] = False,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Search for kernels and time them against torch; judge the cost model, the search and the book."""
    from tilewright.bench.cpu import parse_threads
    from tilewright.bench.design import DesignRequest, design_jobs
    from tilewright.machines.machine import Machine

    _refuse_saving_a_look(save, quick)
    machine = Machine.detect()
    counts = parse_threads(threads, machine.cores)
    jobs = design_jobs(DesignRequest(counts, only, quick, machine.has("amx-bf16")))
    _run(jobs, machine, "design", save, as_json)


@app.command(name="gemm")
def bench_gemm(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain one of these, or fit it (*, ?); commas between them. "
            "The families: gemm_small, gemm_chain, gemm_large, gemm_fused, gemm_odd, gemm_search, gemm_launch, "
            "gemm_ladder."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each search.")] = 32,
    share: Annotated[str, typer.Option(help="Which share of the cases, as 1/2 and 2/2 on two machines.")] = "1/1",
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Search for matrix products on this host's GPU and time them against cuBLAS; exit with 1 if a floor is missed."""
    from tilewright.bench.cpu import source_root
    from tilewright.bench.gemm_jobs import GemmRequest, gemm_jobs, share_of
    from tilewright.machines import nvidia

    known = source_root(Path.cwd()) / "benchmarks" / "known_products.json"
    jobs = gemm_jobs(GemmRequest(only, trials, str(known), share_of(share)))
    _run(jobs, nvidia.detect(), "gpu", save, as_json)


@app.command(name="decode")
def bench_decode(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: attention_decode, "
            "attention_paged, attention_ragged, attention_fp8."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each search; 1: the default design alone.")] = 16,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Search for attention of one query a request on this host's GPU and time it against torch's backends."""
    from tilewright.bench.attention_decode import DecodeRequest, decode_jobs
    from tilewright.machines import nvidia

    jobs = decode_jobs(DecodeRequest(only, trials))
    _run(jobs, nvidia.detect(), "decode-gpu", save, as_json)


@app.command(name="rows")
def bench_rows(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: gpu_rows, gpu_rows_backward, "
            "gpu_rows_few, gpu_rows_long, gpu_rows_odd."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda; for row operators on this host's CPU see bench cpu.")] = "cuda",
    trials: Annotated[int, typer.Option(min=0, help="Trials of each search; 0 for the default design alone.")] = 16,
    profile: Annotated[
        bool,
        typer.Option(help="Time nothing; print torch.profiler's tables, and Nsight Compute's counters if it is here."),
    ] = False,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Time row operators on this host's GPU against torch.compile, eager torch and the copy of a tensor."""
    from tilewright.bench.rows_jobs import RowsRequest, rows_jobs
    from tilewright.machines import nvidia

    _on_a_gpu(device, "cpu --only rows")
    jobs = rows_jobs(RowsRequest(only, trials))
    if profile:
        from tilewright.bench.rows_cases import row_cases
        from tilewright.bench.rows_profile import profiled

        wanted = {(step.family, step.name) for job in jobs for step in job.steps}
        for case in (c for c in row_cases() if (c.family, c.name) in wanted):
            typer.echo(profiled(case))
        return
    _run(jobs, nvidia.detect(), "rows-gpu", save, as_json)


@app.command(name="llm")
def bench_llm(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: llm_prefill, llm_decode, "
            "llm_start."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cuda; on the cpu whole models are a part of `bench cpu`.")] = "cuda",
    compiled: Annotated[bool, typer.Option(help="Beside torch.compile too, which takes half a minute a batch.")] = True,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for each comparison, at least.")] = 3.0,
    profile: Annotated[
        bool, typer.Option(help="Compare nothing; print what each kernel of a step of decode takes, as JSON if asked.")
    ] = False,
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Run whole models on this host's GPU beside transformers, eager and compiled; exit with 1 if a floor is missed."""
    from tilewright.bench.llm_cases import LlmRequest, llm_jobs
    from tilewright.machines import nvidia

    _on_a_gpu(device, "cpu --only decoder")
    jobs = llm_jobs(LlmRequest(only, compiled, seconds))
    if profile:
        _print_profiles(jobs, as_json)
        return
    _run(jobs, nvidia.detect(), "llm", save, as_json)


@app.command(name="attention")
def bench_attention(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: attention_prefill, "
            "attention_prompts, attention_packed."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each search; 1: the default design alone.")] = 16,
    device: Annotated[str, typer.Option(help="Where it runs: cuda.")] = "cuda",
    save: Save = False,
    as_json: AsJson = False,
) -> None:
    """Search for attention on this host's GPU and time it against torch's; exit with 1 if a floor is missed."""
    from tilewright.bench.attention_jobs import AttentionRequest, attention_jobs
    from tilewright.machines import nvidia

    _on_a_gpu(device, "cpu")
    jobs = attention_jobs(AttentionRequest(only, trials))
    _run(jobs, nvidia.detect(), "gpu", save, as_json)


@app.command(name="serve")
def bench_serve(
    only: Annotated[
        str | None,
        typer.Option(
            help="Cases or families that contain this, or fit it (*, ?). The families: serve_padding, serve_dynamic, "
            "serve_learn, serve_dispatch."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda: larger models there, and no serve_dispatch.")] = "cpu",
    quick: Annotated[bool, typer.Option(help="A part of the trace, once: a look, not evidence.")] = False,
    save: Annotated[
        bool, typer.Option(help="Write the results to benchmarks/results/, beside others of this machine and day.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Serve a trace of lengths with a heavy tail: beside padding, torch.compile, and what was not learned."""
    from tilewright.bench.serve import ServeRequest, serve_jobs
    from tilewright.machines import nvidia
    from tilewright.machines.machine import Machine

    _refuse_saving_a_look(save, quick)
    if device not in ("cpu", "cuda"):
        raise ArgumentError(f"--device {device}: a trace is served on cpu or on cuda")
    jobs = serve_jobs(ServeRequest(Machine.detect().cores, only, quick, device))
    machine = Machine.detect() if device == "cpu" else nvidia.detect()
    _run(jobs, machine, "serve", save, as_json)


@app.command()
def served() -> None:
    """Draw the newest served trace of each machine, with each swap marked, into docs/figures/."""
    from tilewright.bench.cpu import source_root
    from tilewright.bench.serve_figure import write_served

    for figure in write_served(source_root(Path.cwd())):
        typer.echo(f"wrote {figure}", err=True)


@app.command()
def ladder() -> None:
    """Write the reports of measured ladders to docs/reports/, from the newest results of each GPU."""
    from tilewright.bench.cpu import source_root
    from tilewright.bench.gemm_report import write_ladders

    for page in write_ladders(source_root(Path.cwd())):
        typer.echo(f"wrote {page}", err=True)


def _run(jobs: list[Job], machine: Machine, kind: str, save: bool, as_json: bool) -> None:
    """Run jobs, and what `_watch` does with their results."""
    from tilewright.bench.cpu import run_jobs

    _watch(jobs, run_jobs(jobs), machine, kind, save, as_json)


def _watch(jobs: list[Job], measured: Iterator[Result], machine: Machine, kind: str, save: bool, as_json: bool) -> None:
    """Print what jobs measure as it comes, keep it if asked, and hold it against the floors."""
    from tilewright.bench import console

    kept = _kept(measured, machine, kind) if save else measured
    _judge(console.watch(jobs, kept, quiet=as_json), machine, kind, save, as_json)


def _print_profiles(jobs: list[Job], as_json: bool) -> None:
    """Where a step of decode goes, of each model and batch that is asked for."""
    from tilewright.bench.llm_profile import profiled, table

    for job in (j for j in jobs if "llm_decode" in j.options.get("parts", ())):
        found = profiled(job.options["model"], job.options["batch"])
        typer.echo(json.dumps(found.to_dict()) if as_json else table(found))


def _on_a_gpu(device: str, instead: str) -> None:
    """Refuse any device but the GPU, and say what to run `instead`."""
    if device != "cuda":
        raise ArgumentError(f"--device {device}: this is timed on cuda; for the cpu run `tilewright bench {instead}`")


def _kept(measured: Iterator[Result], machine: Machine, kind: str) -> Iterator[Result]:
    """The results as they come, each saved at once: a run that is cut off has what it measured."""
    from tilewright.bench.cpu import source_root
    from tilewright.bench.record import describe, this_command
    from tilewright.bench.record import save as save_record

    root, results = source_root(Path.cwd()), list[Any]()
    for result in measured:
        results.append(result)
        save_record(describe(machine, results, this_command(), root), root / "benchmarks" / "results", kind)
        yield result


def _refuse_saving_a_look(save: bool, quick: bool) -> None:
    if save and quick:
        raise ArgumentError("--quick is a look, not evidence: leave it out to --save the results")


def _judge(results: list[Result], machine: Machine, kind: str, save: bool, as_json: bool) -> None:
    """Print, save and hold results against their floors, which a checkout has; exit with 1 if one is missed."""
    from tilewright.bench.console import publish
    from tilewright.bench.cpu import checkout
    from tilewright.bench.floors import missed, read_floors

    publish(results, machine, kind, save, as_json)
    if loud := sum(r.metrics.get("noise", 0.0) > 0.10 for r in results):
        typer.secho(f"{loud} of {len(results)} results have noise above 10%: a busy machine is no evidence", err=True)
    root = checkout(Path.cwd())
    if root is None:  # what was measured stands nevertheless
        typer.secho("no floors were checked: they lie in a checkout of Tilewright (benchmarks/floors.toml)", err=True)
        return
    misses = missed(results, read_floors(root / "benchmarks" / "floors.toml"))
    for line in misses:
        typer.secho(line, err=True, fg="red")
    if misses:
        raise typer.Exit(1)


@app.command()
def table(
    check: Annotated[bool, typer.Option(help="Write nothing; exit with 1 if one is out of date.")] = False,
) -> None:
    """Make the README's tables, and docs/benchmarks, from the newest committed results of each machine."""
    from tilewright.bench.cpu import source_root
    from tilewright.bench.table import regenerate

    fresh = regenerate(source_root(Path.cwd()), check)
    if check and not fresh:
        typer.echo("README.md or docs/benchmarks holds older results; run `tilewright bench table`", err=True)
        raise typer.Exit(1)
    typer.echo("the tables are up to date" if fresh else "wrote the tables of README.md and docs/benchmarks", err=True)
