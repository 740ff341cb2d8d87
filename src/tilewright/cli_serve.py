"""`tilewright serve` and `load`: a model behind OpenAI's protocol for many clients, and what it does under load."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli_options import AsJson, Device, KernelMode, KVCache, Mode, Threads, shown_to_top, use_threads

if TYPE_CHECKING:
    from tilewright.engine.llm import LLM
    from tilewright.serve.server import Server

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Annotated[
        str | None, typer.Argument(help="Folder of a Hugging Face model. Default: the model that ships.")
    ] = None,
    *,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one, and says which.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(help="What clients must send. Default: TILEWRIGHT_API_KEY, which `ps` does not show; else none."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model. Default: its folder's name.")] = None,
    device: Device = "cpu",
    threads: Threads = None,
    mode: KernelMode = None,
    dtype: Annotated[str, typer.Option(help="auto, as the weights are stored; bf16, f16 or f32.")] = "auto",
    kv_cache: KVCache = "auto",
    max_batch: Annotated[int, typer.Option(help="Completions that run at once; more wait.")] = 16,
    max_context: Annotated[
        int | None, typer.Option(help="Most tokens of a prompt and its completion. Default: the model's own.")
    ] = None,
    max_queue: Annotated[int, typer.Option(help="Completions that may wait; more are refused with 503.")] = 256,
    max_body: Annotated[int, typer.Option(help="Most bytes of a request.")] = 4 * 2**20,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may ask, * for all; may be given several times.")
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds that running requests have to end after Ctrl-C.")] = 60.0,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line on stderr for each request.")] = False,
) -> None:
    """Serve a model by OpenAI's protocol: /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics."""
    from tilewright.serve.server import Server, check_packages, listen, log_requests

    check_packages()
    use_threads(threads)
    with shown_to_top(mode), listen(host, port) as held:  # before the model is read: that may take long
        llm = _load(model, device, dtype, mode, kv_cache, max_batch, max_context)
        given = {"name": name} if name is not None else {}
        server = Server(
            llm,
            held=held,
            host=host,
            port=port,
            api_key=api_key if api_key is not None else _key_of_environment(),
            max_queue=max_queue,
            max_body=max_body,
            allow_origins=allow_origin or (),
            grace=grace,
            access_log=access_log,
            **given,
        )
        if access_log:
            log_requests()
        _warm_up(llm)
        server.run(ready=lambda: _say_ready(server, llm, device), ending=lambda: _say_ending(server))


def load(
    url: Annotated[str, typer.Argument(help="Base URL of a running server.")] = "http://127.0.0.1:8000/v1",
    *,
    clients: Annotated[int, typer.Option(help="How many ask at once.")] = 8,
    requests: Annotated[int, typer.Option(help="How many requests in all.")] = 32,
    max_tokens: Annotated[int, typer.Option(help="New tokens of each.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Ask a running server the same by one client after the other and by many at once, and tell how fast both were."""
    from tilewright.serve.load import measure

    key = _key_of_environment()
    found = []
    for n in dict.fromkeys((1, clients)):
        measure(url, n, n, max_tokens, key)  # what first requests have compiled is nobody's time
        found.append(measure(url, n, requests, max_tokens, key))
    if as_json:
        typer.echo(json.dumps([x.to_dict() for x in found]))
        return
    for x in found:
        first, p99, whole = (f"{seconds * 1e3:.0f} ms" for seconds in (x.first_median, x.first_p99, x.whole_median))
        typer.echo(
            f"{x.clients:3} at once: {x.tokens_per_second:8.1f} tokens/s; "
            f"first piece after {first} (p99 {p99}), whole answer after {whole}"
        )


def _load(
    model: str | None,
    device: str,
    dtype: str,
    mode: Mode | None,
    kv_cache: str,
    max_batch: int,
    max_context: int | None,
) -> LLM:
    from tilewright.engine.llm import LLM

    return LLM(
        model,
        device=device,
        dtype=dtype,
        mode=mode and mode.value,
        kv_cache=kv_cache,
        max_batch=max_batch,
        max_context=max_context,
    )


def _key_of_environment() -> str | None:
    from tilewright.knobs import knobs

    return knobs().api_key


def _warm_up(llm: LLM) -> None:
    """Compile what requests need, so that no client waits for it."""
    params = replace(llm.default_params, max_tokens=3, ignore_eos=True)
    for size in batches(llm.engine.scheduler.max_batch, llm.decoder.memory.remote):
        llm.generate([[0]] * size, params)
    gc.collect()
    gc.freeze()  # passes and weights stay: the collector need not go through them again


def batches(most: int, remote: bool) -> list[int]:
    """Sizes of batches that meet every kernel of decoding: each power of two on a GPU, one and several on a CPU."""
    powers = [1 << n for n in range(most.bit_length())] if remote else [1, 2]
    return sorted({min(size, most) for size in [*powers, *([most] if remote else [])]})


def _say_ready(server: Server, llm: LLM, device: str) -> None:
    settings, at_once = server.settings, llm.engine.scheduler.max_batch
    typer.echo(
        f"{settings.name} ({llm.folder}) on {device}: context {llm.context}, {at_once} completions at once",
        err=True,
    )
    if settings.host not in _LOOPBACK and settings.api_key is None:
        typer.echo("warning: whoever reaches this port may use it; set a key with TILEWRIGHT_API_KEY", err=True)
    typer.echo(f"serving at {server.url} (Ctrl-C to end)", err=True)


def _say_ending(server: Server) -> None:
    if held := server.runner.held:
        typer.echo(f"ending once {held} completions have ended; Ctrl-C again to end now", err=True)


__all__ = ["batches", "load", "serve"]
