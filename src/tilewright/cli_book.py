"""`tilewright book`: what the book of designs holds, why, and how it is kept, moved and mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli_options import AsJson, use_threads
from tilewright.errors import BookError

if TYPE_CHECKING:
    from tilewright.design.book.exchange import Taken
    from tilewright.design.book.key import Key
    from tilewright.design.book.query import Query
    from tilewright.design.book.record import Record
    from tilewright.design.book.store import Book
    from tilewright.runtime.adopt import Adopted

app = typer.Typer(help="The book of designs: look into it, explain it, move it, mend it.", no_args_is_help=True)

At = Annotated[Path | None, typer.Option("--book", help="File of the book. Default: the one in the cache folder.")]
WantedKey = Annotated[
    list[str],
    typer.Argument(metavar="KEY", help="First digits of a key, or: matmul M=16 N=4096 K=4096 dtype=bf16"),
]


# ------------------------------------------------------------------------------------------------ looking
@app.command("list")
def list_(
    operator: Annotated[str | None, typer.Argument(help="Only this operator.")] = None,
    *,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Every design in the book: what it is for, how fast it is, and whether it was verified on this host."""
    from tilewright.operators.names import operator_name

    records = [r for r in _book(at).list() if operator is None or r.key.operator == operator_name(operator)]
    if as_json:
        typer.echo(json.dumps([{"hash": r.key.hash, **r.to_dict()} for r in records]))
        return
    for line in _columns([_row(r) for r in records]):
        typer.echo(line)
    if not records:
        typer.echo("the book holds no design; `tilewright design` finds some", err=True)


@app.command()
def show(key: WantedKey, *, at: At = None, as_json: AsJson = False) -> None:
    """The designs for a key, with every decision, and what is in quarantine."""
    book = _book(at)
    wanted = _key(book, key)
    best = book.get(wanted)
    own = [] if best is None else [best]
    records = [*own, *(r for r in book.untrusted(wanted) if best is None or r.design != best.design)]
    failed = book.quarantine_of(wanted)
    if as_json:
        data = {"key": wanted.to_dict(), "hash": wanted.hash, "records": [r.to_dict() for r in records]}
        typer.echo(json.dumps({**data, "quarantine": {h: q.to_dict() for h, q in failed.items()}}))
        return
    typer.echo(f"{wanted.label}, key {wanted.hash}")
    for line in (line for r in records for line in _shown(r, wanted)):
        typer.echo(line)
    for hash_, q in failed.items():
        typer.echo(f"in quarantine: {hash_} {q.status}: {q.reason}")
    if not records:
        typer.echo("no design that may be used; `tilewright book explain` says what is near")


@app.command()
def explain(key: WantedKey, *, at: At = None, as_json: AsJson = False) -> None:
    """Why this design: the candidates, predicted against measured, the runner-up, the evidence; or what is nearest."""
    from tilewright.design.book.explain import explanation

    book = _book(at)
    wanted = _key(book, key)
    typer.echo(json.dumps(explanation(book, wanted)) if as_json else book.explain(wanted))


# ------------------------------------------------------------------------------------------------- moving
@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="File to write.")],
    *,
    starter: Annotated[
        bool, typer.Option("--starter", help="Only designs verified here, as hints for other hosts.")
    ] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write the book as readable JSON."""
    count = _book(at).export(path, starter=starter)
    typer.echo(json.dumps({"records": count, "path": str(path)}) if as_json else f"wrote {count} designs to {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A file that `tilewright book export` wrote.")],
    *,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Take in an exported book; its designs are verified and measured here before they are used."""
    _told(_writable(at).import_(path), as_json)


@app.command()
def merge(
    path: Annotated[Path, typer.Argument(help="Another book: its SQLite file, or an exported one.")],
    *,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Take in another book; its designs are verified and measured here before they are used."""
    _told(_writable(at).merge(path), as_json)


@app.command()
def adopt(
    *,
    threads: Annotated[int | None, typer.Option(help="For kernels of so many threads. Default: every core.")] = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Verify and measure here the shipped designs for this machine, so that they are used; seconds for each."""
    use_threads(threads)
    from tilewright.runtime.adopt import adopt as take

    found = take(_writable(at), None if as_json else lambda a: typer.echo(f"{a.key.label}: {_adopted(a)}"))
    if as_json:
        typer.echo(json.dumps([{"key": a.key.hash, "found": a.found, "speedup": a.speedup} for a in found]))
    elif not found:
        typer.echo("the starter book holds nothing for this machine and thread count")


def _adopted(one: Adopted) -> str:
    """What came of a shipped design, in words."""
    words = {
        "book": "known already",
        "hint": f"confirmed here, {one.speedup:.2f}x the default design",
        "search": "not confirmed here, the default design stays",
    }
    return words.get(one.found, one.found)


# ------------------------------------------------------------------------------------------------ mending
@app.command()
def verify(
    *,
    drop: Annotated[bool, typer.Option("--drop", help="Remove what is bad; a damaged file is begun anew.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Check the file and every entry, designs for legality too; exit with 1 if anything is wrong and stays."""
    findings = (_writable(at) if drop else _book(at)).verify(drop=drop)
    if as_json:
        typer.echo(json.dumps(asdict(findings)))
    else:
        for problem in findings.problems:
            typer.echo(problem)
        typer.echo(f"{findings.sound} entries are sound, {len(findings.problems)} problems, {findings.dropped} dropped")
    if findings.problems and not drop:
        raise typer.Exit(1)


@app.command()
def prune(
    *,
    days: Annotated[float | None, typer.Option(min=0, help="Drop what is older than this.")] = None,
    keep: Annotated[int | None, typer.Option(min=0, help="Drop all designs but this many of the newest.")] = None,
    machine: Annotated[list[str] | None, typer.Option(help="Drop all of the machine with this fingerprint.")] = None,
    others: Annotated[bool, typer.Option("--others", help="Drop all of every machine but this one.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Drop designs and measurements by age, by count, or by machine."""
    if days is None and keep is None and not machine and not others:
        raise BookError("nothing says what to drop; give --days, --keep, --machine or --others")
    book = _writable(at)
    machines = {*(machine or ()), *(_others(book) if others else ())}
    pruned = book.prune(days=days, keep=keep, machines=machines)
    text = f"dropped {pruned.records} designs, {pruned.measurements} measurements, {pruned.quarantined} in quarantine"
    typer.echo(json.dumps(asdict(pruned)) if as_json else text)


@app.command()
def release(
    design: Annotated[str, typer.Argument(help="The design's hash, as `show` prints it.")],
    key: WantedKey,
    *,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Let a design that failed for a key be tried again."""
    book = _writable(at)
    wanted = _key(book, key)
    if not book.release(wanted, design):
        known = ", ".join(book.quarantined(wanted)) or "none"
        raise BookError(f"design {design} is not in quarantine for {wanted.label}; there: {known}")
    typer.echo(json.dumps({"released": design, "key": wanted.hash}) if as_json else f"{design} may be tried again")


# ------------------------------------------------------------------------------------------------- helpers
def _book(at: Path | None) -> Book:
    from tilewright.design.book.healing import may_be_book
    from tilewright.design.book.store import Book

    if at is not None:
        if not at.exists():
            raise BookError(f"there is no book at {at}; `tilewright design` makes one in the cache folder")
        if not may_be_book(at):
            raise BookError(f"{at} is no book, and was left as it is; give the file of one, such as book.sqlite")
        return Book.open(at)
    from tilewright.runtime.chosen import open_book

    return open_book()


def _writable(at: Path | None) -> Book:
    book = _book(at)
    if book.database.readonly:
        raise BookError("nothing is written in frozen mode; unset TILEWRIGHT_MODE")
    return book


def _key(book: Book, words: list[str]) -> Key:
    """The key of the book that is meant; else, for an operator that is known, the key it would have here."""
    from tilewright.design.book.query import found, query_of
    from tilewright.machines.machine import Machine

    wanted = query_of(words)
    key = found(book, wanted, Machine.detect().fingerprint)
    if key is not None:
        return key
    assert not isinstance(wanted, str)
    return _key_here(book, wanted)


def _key_here(book: Book, query: Query) -> Key:
    from tilewright.design.book.query import unknown
    from tilewright.operators import OPERATORS

    if query.operator not in OPERATORS:
        raise unknown(book, query)
    from tilewright.runtime.subject import Subject

    if not query.fields.get("threads", "1").isdigit():
        raise BookError(f"threads={query.fields['threads']} is no number of threads")
    threads = int(query.fields["threads"]) if "threads" in query.fields else None
    subject = Subject.of(query.operator, query.sizes, query.fields.get("dtype"), threads=threads)
    return subject.key(query.fields.get("objective", "latency"), query.fields.get("numerics", "free"))


def _others(book: Book) -> set[str]:
    from tilewright.machines.machine import Machine

    return {k.machine for k in book.known_keys()} - {Machine.detect().fingerprint}


def _told(taken: Taken, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(taken)))
        return
    typer.echo(
        f"{taken.records} designs are new (to be verified here before use), {taken.known} were known; "
        f"{taken.measurements} measurements, {taken.quarantined} in quarantine"
    )
    for reason in taken.refused:
        typer.echo(f"refused: {reason}", err=True)


def _row(record: Record) -> tuple[str, ...]:
    from tilewright.design.book.explain import span

    state = "verified" if record.verified else record.origin
    key = record.key
    details = (_alignment(key), f"{key.threads}t", key.objective, key.numerics, key.machine[:8])
    times = (span(record.seconds), f"{record.speedup:.2f}x")
    return (key.hash[:12], key.label, *details, record.design.hash, *times, state, record.created[:10])


def _alignment(key: Key) -> str:
    """Of which tensors every row starts at a cache line: what tells the two keys of most designs apart."""
    return (
        "anywhere" if not key.aligned else "aligned" if len(key.aligned) == len(key.layouts) else ",".join(key.aligned)
    )


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        head = (
            "key",
            "for",
            "rows",
            "",
            "objective",
            "numerics",
            "machine",
            "design",
            "time",
            "default",
            "state",
            "date",
        )
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(record: Record, wanted: Key) -> Iterator[str]:
    """A record in lines; one of another key, which is a hint for the wanted one, says so."""
    from tilewright.design.book.explain import shown_decisions, span
    from tilewright.design.book.key import differences

    state = "verified here" if record.verified else f"not verified here, from {record.origin}"
    if record.key.hash != wanted.hash:
        state += f"; a hint from key {record.key.hash[:12]}, of other {', '.join(differences(wanted, record.key))}"
    yield f"design {record.design.hash}: {span(record.seconds)}, {record.speedup:.2f}x the default design, {state}"
    yield from (f"  {name} = {value}" for name, value in shown_decisions(record.design))
