"""The `tilewright` command. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright import __version__, cli_bench, cli_book, cli_design, cli_runtime, cli_simulate
from tilewright.errors import ArgumentError, KnobError, TilewrightError

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM, Stream
    from tilewright.engine.request import Completion
    from tilewright.engine.sampling import SamplingParams
    from tilewright.operators import Operator

MAX_TOKENS = 128

app = typer.Typer(
    help="An LLM inference engine that designs its own kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_book.app, name="book")
app.command()(cli_design.design)
app.command()(cli_simulate.simulate)
app.add_typer(cli_runtime.trace, name="trace")
app.command()(cli_runtime.top)
app.command()(cli_runtime.why)

Model = Annotated[str | None, typer.Option(help="Folder of a Hugging Face model. Default: the model that ships.")]
Temperature = Annotated[
    float | None, typer.Option(help="0 always takes the likeliest token. Default: the model's own.")
]
TopK = Annotated[int | None, typer.Option(help="Choose among the k likeliest tokens; 0 for all.")]
TopP = Annotated[float | None, typer.Option(help="Choose among the likeliest tokens that together reach this chance.")]
MinP = Annotated[float | None, typer.Option(help="Leave out tokens less likely than this share of the likeliest.")]
MaxTokens = Annotated[int, typer.Option(help="The most new tokens.")]
Seed = Annotated[int | None, typer.Option(help="Makes the random choices repeatable.")]
Stop = Annotated[list[str] | None, typer.Option(help="End at this text; may be given several times.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads to use. Default: every core this process may use.")]
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, or cuda:N for GPU number N.")]
KVCache = Annotated[
    str, typer.Option("--kv-cache", help="How keys and values are kept: auto, as the model is; fp8, in 8 bits.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


class Mode(StrEnum):
    """What may happen beside the program; see TILEWRIGHT_MODE."""

    LEARN = "learn"
    FROZEN = "frozen"
    GENERIC = "generic"


KernelMode = Annotated[
    Mode | None,
    typer.Option(
        help="learn: better kernels are designed meanwhile and swapped in; frozen: what was learned, and no compile, "
        "search or write; generic: generic kernels only. Default: TILEWRIGHT_MODE, and nothing is learned."
    ),
]


class Stage(StrEnum):
    """What `show` can show, in the order in which a program passes the stages."""

    TILE = "tile"
    SCHED = "sched"
    THREAD = "thread"
    LL = "ll"
    ASM = "asm"
    CU = "cu"
    PTX = "ptx"
    SASS = "sass"
    USAGE = "usage"


def main() -> None:
    """Entry point: what a user can mend is one line on stderr and exit code 2; DEBUG=1 adds the traceback."""
    try:
        app()
    except TilewrightError as error:
        if _debugging():
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


def _debugging() -> bool:
    from tilewright.knobs import knobs

    try:
        return knobs().debug >= 1
    except KnobError:
        return False


# --------------------------------------------------------------------------------------------- generate, chat
@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="Text to continue. Default: standard input.")] = None,
    *,
    model: Model = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = "cpu",
    threads: Threads = None,
    mode: KernelMode = None,
    kv_cache: KVCache = "auto",
    as_json: AsJson = False,
) -> None:
    """Continue a prompt, printing text as it comes; what ran and how fast goes to stderr."""
    text = _prompt(prompt)
    with _shown_to_top(mode), _kernels_counted(threads, device) as kernels:
        llm = _load(model, device, mode, kv_cache)
        params = _params(
            llm,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=stop,
        )
        with llm.stream(text, params) as stream:
            if as_json:
                completion = _exhaust(stream)
                told = {"prompt": text, "kernels": dict(kernels), "phases": llm.phases().to_dict()}
                typer.echo(json.dumps({**asdict(completion), **told}))
                return
            if sys.stdout.isatty():
                typer.secho(text, nl=False, bold=True)
            completion = _print_pieces(stream)
    _report(completion, kernels)


@app.command()
def chat(
    *,
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = "cpu",
    threads: Threads = None,
    mode: KernelMode = None,
    kv_cache: KVCache = "auto",
) -> None:
    """Talk with a chat-tuned model; an empty line or end of input ends it, Ctrl-C cuts a reply short."""
    with _shown_to_top(mode), _kernels_counted(threads, device) as kernels:
        llm = _load(model, device, mode, kv_cache)
        params = _params(
            llm,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            seed=seed,
            stop=stop,
        )
        messages = [{"role": "system", "content": system}] if system else []
        llm.tokenizer.render_chat([*messages, {"role": "user", "content": "?"}])  # refuse before the user has typed
        for line in _lines():
            kernels.clear()
            messages.append({"role": "user", "content": line})
            with llm.stream_chat(messages, params) as stream:
                completion = _print_pieces(stream)
            messages.append({"role": "assistant", "content": completion.text})
            _report(completion, kernels)


def _prompt(given: str | None) -> str:
    """The prompt from the command line, or all of standard input."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        raise ArgumentError('there is no prompt; write one, as in: tilewright generate "def fibonacci(n):"')
    return sys.stdin.read()


def _lines() -> Iterator[str]:
    """What the user types, until an empty line or the end of input."""
    while True:
        if sys.stdin.isatty():
            typer.secho("> ", nl=False, bold=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


@contextmanager
def _shown_to_top(mode: Mode | None) -> Iterator[None]:
    """A program that is told to learn shows its table to `tilewright top`; no other writes anything for that."""
    if mode is not Mode.LEARN:
        yield
        return
    from tilewright.observe import live

    end = live.publish()
    try:
        yield
    finally:
        end()


def _load(model: str | None, device: str = "cpu", mode: Mode | None = None, kv_cache: str = "auto") -> LLM:
    from tilewright.engine.llm import LLM

    return LLM(model, max_batch=1, device=device, mode=mode and mode.value, kv_cache=kv_cache)


def _params(llm: LLM, **options: Any) -> SamplingParams:
    """The model's own generation options, changed where the command line says so."""
    return replace(llm.default_params, **{name: value for name, value in options.items() if value is not None})


def _exhaust(stream: Stream) -> Completion:
    for _ in stream:
        pass
    return stream.completion


def _print_pieces(stream: Stream) -> Completion:
    """Print the text as it is settled; an interrupt ends the text, not the program."""
    try:
        for piece in stream:
            typer.echo(piece, nl=False)
            sys.stdout.flush()
    except KeyboardInterrupt:
        stream.close()
    typer.echo()
    return stream.completion


@contextmanager
def _kernels_counted(threads: int | None, device: str = "cpu") -> Iterator[Counter[str]]:
    """Launches by operator while the block runs, with at most `threads` threads; replayed ones count each time."""
    if threads is not None:
        os.environ["TILEWRIGHT_THREADS"] = str(threads)
    from tilewright.ops import Launch, using

    launches: Counter[str] = Counter()
    if device != "cpu":
        from tilewright.runtime.cuda.watch import watched

        with watched(lambda passed: launches.update(launch.operator.name for launch in passed)):
            yield launches
        return

    def bind(operator: Operator, *operands: Any) -> Launch:
        from tilewright.runtime import dispatch

        launch = dispatch.bind(operator, *operands)

        def counted() -> None:
            launches[operator.name] += 1
            launch()

        return counted

    with using(bind):
        yield launches


def _report(completion: Completion, kernels: Counter[str]) -> None:
    """One line about speed and one about what ran, on stderr."""
    timings, new = completion.timings, len(completion.token_ids)
    pace = f"{timings.tokens_per_second:.1f} tokens/s" if timings.tokens_per_second else "1 token"
    ran = ", ".join(f"{name} {count}x" for name, count in kernels.most_common())
    typer.secho(f"{new} tokens, {pace}, first token after {timings.first_token * 1e3:.0f} ms", err=True, dim=True)
    if ran:
        typer.secho(f"kernels: {ran}", err=True, dim=True)


# ------------------------------------------------------------------------------------------------ show, doctor
@app.command()
def show(
    operator: Annotated[str, typer.Argument(help="Name of an operator, such as matmul or softmax.")],
    sizes: Annotated[str, typer.Option(help="1,4096,4096 (dims of the result first) or M=1,N=4096,K=4096.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="Element type of the tensors: f32, bf16, f16. Default: bf16 for a GPU, else f32."),
    ] = None,
    stage: Annotated[Stage, typer.Option(help="Which stage of the way to machine code.")] = Stage.SCHED,
    machine: Annotated[
        str | None, typer.Option(help="Another machine to design for, such as h200. Default: this one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what an operator becomes at fixed sizes on this machine or another, at any stage."""
    from tilewright.machines.machine import Machine
    from tilewright.show import stage_text

    known = Machine.detect() if machine is None else Machine.named(machine)
    dtype = dtype or known.usual_dtype
    named = parse_sizes(sizes, operator_dims(operator, dtype), operator)
    text = stage_text(operator, named, dtype, stage.value, known)
    if as_json:
        text = json.dumps({"operator": operator, "sizes": named, "dtype": dtype, "stage": stage.value, "text": text})
    typer.echo(text)


def operator_dims(operator: str, dtype: str) -> list[str]:
    """Names of the sizes of an operator: those of its results first, then the others, in order of use."""
    from tilewright.operators import OPERATORS

    if operator not in OPERATORS:
        raise ArgumentError(f"no operator is called {operator!r}; there are {', '.join(OPERATORS)}")
    found = OPERATORS[operator]
    program = found.kernel.trace(dtype)
    results = [d for p in program.params if p.name in found.outputs for d in p.dims or () if isinstance(d, str)]
    return list(dict.fromkeys([*results, *program.dims]))


def parse_sizes(text: str, dims: list[str], operator: str) -> dict[str, int]:
    """`1,4096,4096` in the order of `dims`, or `M=1,K=...` in any; ArgumentError unless all are given, at least 0."""
    parts = [part.strip() for part in text.split(",")]
    pairs = [part.split("=", 1) for part in parts] if "=" in text else list(zip(dims, parts, strict=False))
    usage = (
        f"--sizes {text}: {operator} needs {','.join(f'{d}=..' for d in dims)}, or {len(dims)} numbers in that order"
    )
    if len(parts) != len(dims) or any(len(pair) != 2 or not pair[1].strip().isdigit() for pair in pairs):
        raise ArgumentError(usage)
    named = {name.strip(): int(size) for name, size in pairs}
    if set(named) != set(dims):
        raise ArgumentError(usage)
    return {d: named[d] for d in dims}


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine and installation can do, and what is wrong with them."""
    from tilewright.doctor import diagnose, render

    diagnosis = diagnose()
    typer.echo(json.dumps(diagnosis, indent=1) if as_json else render(diagnosis))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options that stand before a command."""


if __name__ == "__main__":
    main()
