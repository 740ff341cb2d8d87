"""The `tilewright` command. Everything heavy is imported by the command that needs it, so that help is instant."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

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
from tilewright.cli_usage import UsageError, usage_line
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
            ended = app(prog_name="tilewright", standalone_mode=False)
    except UsageError as error:
        _end(usage_line(error))
    except typer.Abort:  # the input ended where an answer was wanted
        sys.exit(1)
    except TilewrightError as error:
        if _debugging():
            raise
        _end(str(error))
    sys.exit(ended if isinstance(ended, int) else 0)


def _end(problem: str) -> NoReturn:
    if problem:
        typer.echo(f"error: {problem}", err=True)
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
def doctor(
    settings: Annotated[
        bool, typer.Option("--settings", help="Print every setting of the environment, what it is and does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what this machine and installation can do, and what is wrong with them."""
    from tilewright.doctor import diagnose, render, settings_text

    if settings:
        typer.echo(settings_text())
        return
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
