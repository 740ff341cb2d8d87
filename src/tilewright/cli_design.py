"""`tilewright design`: find the best kernel of an operator, of a user's program, or of every shape a model meets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tilewright import cli_report
from tilewright.cli_options import AsJson, use_threads
from tilewright.cli_report import How
from tilewright.errors import ArgumentError, MissingPackage

if TYPE_CHECKING:
    from tilewright.machines.machine import Machine
    from tilewright.models.shapes import Met
    from tilewright.runtime.designer import Designed
    from tilewright.runtime.trial import Crew

LISTS = ("model",)
INTERRUPTED = 130
"""Exit code of a search that Ctrl-C ended, as shells expect it."""


def design(
    operator: Annotated[
        str, typer.Argument(help="Name of an operator, file.py:name of your own, or the PATH of --operator-list.")
    ],
    sizes: Annotated[list[str] | None, typer.Argument(help="Its sizes: M=16 N=4096 K=4096.")] = None,
    *,
    dtype: Annotated[
        str | None,
        typer.Option(help="Element type of the tensors. Default: f32; bf16 of a GPU; of a simulated machine its own."),
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="Design for a simulated one: tpu-v1, sn40l, h100 by model. Default: this one.")
    ] = None,
    budget: Annotated[str, typer.Option(help='How long: 60s, 2m, "16 trials", "60s, 100 trials".')] = How.budget,
    target: Annotated[str | None, typer.Option(help="Stop at the first design this fast, such as 50us.")] = None,
    objective: Annotated[str, typer.Option(help="latency or throughput.")] = How.objective,
    numerics: Annotated[str, typer.Option(help="free, or pinned: the bits of the default design.")] = How.numerics,
    strategy: Annotated[str, typer.Option(help="evolve, beam or random.")] = How.strategy,
    seed: Annotated[int, typer.Option(help="Makes the search repeatable.")] = How.seed,
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: every core.")] = None,
    device: Annotated[str, typer.Option(help="What to design for: cpu, cuda, or cuda:N for GPU number N.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="With --operator-list: sequences that decode together.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Search although the book knows the answer.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Folder of the search's HTML report with pictures. Default: one in the cache folder."),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="No report: it takes about as long again.")] = False,
    operator_list: Annotated[
        str | None, typer.Option(help="model: every shape that the model in the folder PATH will meet.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search for the best kernel and keep it in the book; Ctrl-C keeps what was measured, and a second run goes on."""
    again = again or report is not None
    how = How(budget, target, objective, numerics, strategy, seed, threads, again, _gpu(device, machine, report))
    if machine is not None:
        _refuse_with_machine(report=report, operator_list=operator_list, threads=threads, numerics=numerics)
        _design_simulated(operator, sizes or [], machine, dtype, how, as_json)
        return
    drawn = Drawn.of(report, no_report, how.machine)
    use_threads(threads)
    dtype = dtype or (how.machine.usual_dtype if how.machine else "f32")
    if operator_list is not None:
        _design_list(operator, sizes or [], operator_list, batch, report, how, as_json)
        return
    wanted = {"operator": operator, "dtype": dtype, **parse_pairs(sizes or [], operator, dtype)}
    _design_one(wanted, how, drawn, as_json)


@dataclass(frozen=True)
class Drawn:
    """Whether a report is drawn, and the folder that somebody named for it."""

    wanted: bool
    folder: Path | None

    @classmethod
    def of(cls, folder: Path | None, none: bool, machine: Machine | None) -> Drawn:
        """As the options say; ArgumentError for both of them, MissingPackage where it cannot be drawn."""
        if folder is not None:
            if none:
                raise ArgumentError(f"--report {folder} and --no-report: leave one of them out")
            cli_report.need_pictures()
        return cls(not none and machine is None, folder)


def _design_one(wanted: dict[str, Any], how: How, drawn: Drawn, as_json: bool) -> None:
    """Search for one kernel, say what was found, and draw it."""
    from tilewright.report.told import interrupted, summary, told

    found = _designed(wanted, how, wanted["operator"])
    if not as_json:
        typer.echo(told(found, tuple(d for d in wanted if d not in cli_report.NO_SIZES)))
    page, said = None, ""
    if drawn.wanted and not interrupted(found):
        page, said = _page(found, wanted, how, drawn.folder)
    if as_json:
        typer.echo(json.dumps({**summary(found), "report": None if page is None else str(page)}))
    elif said:
        typer.echo(f"  {said}")
    _exit_if_interrupted(found)


def _page(found: Designed, wanted: dict[str, Any], how: How, folder: Path | None) -> tuple[Path | None, str]:
    """The page of the report and where it is, in words; why there is none, where nobody asked for one."""
    try:
        page = cli_report.page_of(found, wanted, how, folder)
    except KeyboardInterrupt:
        typer.secho("interrupted: no report; the design is kept in the book", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (MissingPackage, ArgumentError) as error:
        if folder is not None:
            raise
        return None, f"no report: {error}"
    return page, "" if page is None else f"report: {page}"


def _gpu(device: str, simulated: str | None, report: Path | None) -> Machine | None:
    """The GPU that `--device` names; None for the cpu. ArgumentError beside options that are for the cpu alone."""
    kind, _, number = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or (device != "cuda" and not number.isdecimal()):
        raise ArgumentError(f"--device {device}: choose cpu, cuda, or cuda:N for GPU number N")
    if simulated is not None:
        raise ArgumentError(f"--device {device} and --machine {simulated}: leave one of them out")
    if report is not None:
        raise ArgumentError(f"--report is made for the cpu; leave it out, or --device {device}")
    from tilewright.machines import nvidia

    return nvidia.detect(int(number or 0))


def parse_pairs(pairs: list[str], operator: str, dtype: str) -> dict[str, int]:
    """`M=16 N=4096` as sizes; ArgumentError that names the sizes which the operator takes."""
    named = dict(pair.partition("=")[::2] for pair in pairs)
    wrong = [pair for pair in pairs if not (pair.partition("=")[0] and pair.partition("=")[2].isdigit())]
    if named and len(named) == len(pairs) and not wrong:
        return {name: int(size) for name, size in named.items()}
    from tilewright.runtime.compiled import dtypes_of
    from tilewright.runtime.subject import program_named

    tile = program_named(operator)
    dims = " ".join(f"{d}=.." for d in tile.trace(dtypes_of(tile, dtype)).dims)
    fault = f"{wrong[0]!r} is no size; " if wrong else "a size is given twice; " if pairs else ""
    raise ArgumentError(f"{fault}{operator} needs its sizes after its name: tilewright design {operator} {dims}")


def _designed(wanted: dict[str, Any], how: How, title: str, crew: Crew | None = None) -> Designed:
    """The design, under a bar on stderr; a search that was cut off says how to go on."""
    from tilewright.report.progress import search_bar
    from tilewright.report.told import interrupted
    from tilewright.runtime.designer import search

    with search_bar(title) as progress:
        found = search(**wanted, **how.options(), progress=progress, crew=crew)
    if interrupted(found):
        count = len(found.result.trials) if found.result is not None else 0
        more = "" if how.again else "; to go on from there, give the same command again"
        typer.secho(f"interrupted: {count} trials are kept in the book{more}", err=True)
    return found


def _exit_if_interrupted(found: Designed) -> None:
    from tilewright.report.told import interrupted

    if interrupted(found):
        raise typer.Exit(INTERRUPTED)


# --------------------------------------------------------------------------------- simulated machines
def _refuse_with_machine(**given: object) -> None:
    """ArgumentError for what a search by a model cannot heed."""
    for name, value in given.items():
        if value not in (None, How.numerics):
            raise ArgumentError(
                f"--{name.replace('_', '-')} {value} with --machine: a model of a machine measures nothing, draws no "
                "report and has no threads or bits to keep; leave one of the two out"
            )


def _design_simulated(operator: str, sizes: list[str], name: str, dtype: str | None, how: How, as_json: bool) -> None:
    """Search with a simulated machine as the judge, and print what was found beside the default design."""
    from tilewright.machines.machine import Machine
    from tilewright.report.progress import search_bar
    from tilewright.report.told import summary, told
    from tilewright.simulate.designed import search_simulated

    machine, numbers = Machine.named(name), parse_pairs(sizes, operator, "f32")
    with search_bar(f"{operator} on {machine.name}") as progress:
        found = search_simulated(
            operator, machine, numbers, dtype, budget=how.budget, target=how.target, objective=how.objective,
            strategy=how.strategy, seed=how.seed, again=how.again, progress=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({**summary(found), "machine": machine.name, "simulated": True}))
    else:
        typer.echo(told(found, tuple(numbers)))
        typer.echo(f"  by a model of {machine.name}: nothing was measured")
    _exit_if_interrupted(found)


# ------------------------------------------------------------------------------------- lists of operators
def _design_list(
    path: str, sizes: list[str], kind: str, batch: int, report: Path | None, how: How, as_json: bool
) -> None:
    """Design every operator of a list, one after the other; those that the book knows cost nothing."""
    if kind not in LISTS or sizes:
        raise ArgumentError(f"--operator-list {kind}: write --operator-list model PATH, without sizes")
    from tilewright.models.shapes import shapes_of

    met = shapes_of(Path(path), batch=batch, chosen_there=how.machine is not None)
    with _crew(how) as crew:
        _design_all(met, crew, report, how, as_json)


@contextmanager
def _crew(how: How) -> Iterator[Crew | None]:
    """Processes for all searches on a GPU, which take seconds to start; on a CPU each search has its own."""
    if how.machine is None:
        yield None
        return
    from tilewright.runtime.trial import Crew

    with closing(Crew()) as crew:
        yield crew


def _design_all(met: list[Met], crew: Crew | None, report: Path | None, how: How, as_json: bool) -> None:
    from tilewright.report.told import interrupted, summary, told

    for count, each in enumerate(met, start=1):
        wanted = _wanted(each)
        try:
            found = _designed(wanted, how, f"{count}/{len(met)} {each.name}", crew)
        except ArgumentError as error:
            typer.secho(f"{each.name}: {error}", err=True, fg="yellow")
            continue
        if report is not None and found.result is not None and not interrupted(found):
            cli_report.write(found, wanted, how, report / f"{count:02}-{each.operator.name}")
        typer.echo(json.dumps(summary(found)) if as_json else told(found, tuple(d for d, _ in each.sizes)))
        _exit_if_interrupted(found)


def _wanted(met: Met) -> dict[str, Any]:
    """A met operator as arguments of `tw.search`."""
    kernel = met.operator.kernel
    required = {p.name for p in kernel.signature.params if not p.optional}
    present = tuple(name for name, _ in met.dtypes if name not in required)
    return {
        "operator": met.operator, "dtype": dict(met.dtypes), "options": dict(met.options), "present": present,
        **dict(met.sizes),
    }  # fmt: skip
