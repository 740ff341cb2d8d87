"""The `tilewright` command. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from tilewright import (
    __version__,
    cli_bench,
    cli_book,
    cli_design,
    cli_generate,
    cli_runtime,
    cli_serve,
    cli_show,
    cli_simulate,
)
from tilewright.cli_options import AsJson
from tilewright.errors import BookWarning, CacheWarning, KnobError, TilewrightError

app = typer.Typer(
    help="An LLM inference engine that designs its own kernels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(cli_generate.generate)
app.command()(cli_generate.chat)
app.command()(cli_serve.serve)
app.command()(cli_serve.load)
app.command()(cli_show.show)
app.command()(cli_design.design)
app.command()(cli_simulate.simulate)
app.command()(cli_runtime.why)
app.command()(cli_runtime.top)
app.add_typer(cli_book.app, name="book")
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_runtime.trace, name="trace")


def main() -> None:
    """Entry point: what a user can mend is one line on stderr and exit code 2; DEBUG=1 adds the traceback."""
    try:
        with _warnings_for_users():
            app()
    except TilewrightError as error:
        if _debugging():
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


@contextmanager
def _warnings_for_users() -> Iterator[None]:
    """What Tilewright warns of is one line too, without the place in its source that nobody asked for."""
    usual: Callable[..., str] = warnings.formatwarning

    def told(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> str:
        if issubclass(category, (BookWarning, CacheWarning)):
            return f"warning: {message}\n"
        return usual(message, category, *place, **more)

    warnings.formatwarning = told
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _debugging() -> bool:
    from tilewright.knobs import knobs

    try:
        return knobs().debug >= 1
    except KnobError:
        return False


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
