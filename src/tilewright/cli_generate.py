"""`tilewright generate` and `chat`: a model continues text, printed as it comes; what ran is told on stderr."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright.cli_options import AsJson, Device, KernelMode, KVCache, Mode, Threads, shown_to_top, use_threads
from tilewright.errors import ArgumentError

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM, Stream
    from tilewright.engine.request import Completion
    from tilewright.engine.sampling import SamplingParams
    from tilewright.operators import Operator

MAX_TOKENS = 128

Model = Annotated[str | None, typer.Option(help="Folder of a Hugging Face model. Default: the model that ships.")]
Temperature = Annotated[
    float | None, typer.Option(help="0 always takes the likeliest token. Default: the model's own.")
]
TopK = Annotated[int | None, typer.Option(help="Choose among the k likeliest tokens; 0 for all.")]
TopP = Annotated[float | None, typer.Option(help="Choose among the likeliest tokens that together reach this chance.")]
MinP = Annotated[float | None, typer.Option(help="Leave out tokens less likely than this share of the likeliest.")]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1: tokens that the prompt or the output has become less likely.")
]
PresencePenalty = Annotated[
    float | None, typer.Option(help="Taken off the logits of tokens that the output has, once: -2 to 2.")
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Taken off the logits of tokens that the output has, each time: -2 to 2.")
]
MaxTokens = Annotated[int, typer.Option(help="The most new tokens.")]
Seed = Annotated[int | None, typer.Option(help="Makes the random choices repeatable.")]
Stop = Annotated[list[str] | None, typer.Option(help="End at this text; may be given several times.")]


def generate(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="Text to continue. Default: standard input.")] = None,
    *,
    model: Model = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
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
    with shown_to_top(mode), _kernels_counted(threads, device) as kernels:
        llm = _load(model, device, mode, kv_cache)
        params = _params(llm, context.params)
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


def chat(
    context: typer.Context,
    *,
    model: Model = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    presence_penalty: PresencePenalty = None,
    frequency_penalty: FrequencyPenalty = None,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = "cpu",
    threads: Threads = None,
    mode: KernelMode = None,
    kv_cache: KVCache = "auto",
) -> None:
    """Talk with a chat-tuned model; an empty line or end of input ends it, Ctrl-C cuts a reply short."""
    with shown_to_top(mode), _kernels_counted(threads, device) as kernels:
        llm = _load(model, device, mode, kv_cache)
        params = _params(llm, context.params)
        messages = [{"role": "system", "content": system}] if system else []
        llm.tokenizer.render_chat([*messages, {"role": "user", "content": "?"}])  # refuse before the user has typed
        _greet(model)
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
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"the text is not UTF-8 at byte {error.start}; convert it, with iconv for instance"
        ) from None


def _greet(model: str | None) -> None:
    """How to leave, for people; and what not to expect of the model that ships."""
    if model is None:
        typer.secho("note: the model that ships is not tuned for chat, it writes Python; --model FOLDER", err=True)
    if sys.stdin.isatty():
        typer.secho("an empty line ends the conversation", err=True)


def _lines() -> Iterator[str]:
    """What the user types, until an empty line or the end of input."""
    while True:
        if sys.stdin.isatty():
            typer.secho("> ", nl=False, bold=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _load(model: str | None, device: str = "cpu", mode: Mode | None = None, kv_cache: str = "auto") -> LLM:
    from tilewright.engine.llm import LLM

    return LLM(model, max_batch=1, device=device, mode=mode and mode.value, kv_cache=kv_cache)


def _params(llm: LLM, given: Mapping[str, Any]) -> SamplingParams:
    """The model's own generation options, changed where those of the command are set."""
    own = {field.name for field in fields(llm.default_params)}
    return replace(llm.default_params, **{n: value for n, value in given.items() if n in own and value is not None})


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
    use_threads(threads)
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
    pace = f", {timings.tokens_per_second:.1f} tokens/s" if timings.tokens_per_second else ""
    first = f"first token after {timings.first_token * 1e3:.0f} ms"
    ran = ", ".join(f"{name} {count}x" for name, count in kernels.most_common())
    typer.secho(f"{new} token{'s' * (new != 1)}{pace}, {first}", err=True, dim=True)
    if ran:
        typer.secho(f"kernels: {ran}", err=True, dim=True)
