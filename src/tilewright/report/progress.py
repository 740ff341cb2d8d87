"""A search as a user watches it: the best time so far, how many trials, and the time left, under a bar on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tilewright.design import trial
from tilewright.report.canvas import duration


@contextmanager
def search_bar(title: str) -> Iterator[Callable[[trial.Progress], None]]:
    """Shows a bar while the block runs; the callable that it gives is told of each batch of trials."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[said]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(title, total=None, said="compiling the first design")

        def tell(seen: trial.Progress) -> None:
            done = share_done(seen, shown.tasks[task].elapsed or 0.0)
            total = None if done is None else 1.0
            shown.update(task, total=total, completed=done or 0.0, said=line(seen))

        yield tell


def share_done(seen: trial.Progress, elapsed: float) -> float | None:
    """How much of the budget is used, by seconds or by trials, whichever is nearer its end; None without either."""
    shares = []
    if seen.seconds_left is not None:
        shares.append(elapsed / max(elapsed + seen.seconds_left, 1e-9))
    if seen.trials_left is not None:
        shares.append(len(seen.trials) / max(len(seen.trials) + seen.trials_left, 1))
    return max(shares, default=None)


def line(seen: trial.Progress) -> str:
    """`best 123 us, 48 trials, 31 s left`."""
    best = seen.best.outcome.seconds if seen.best is not None else None
    parts = ["no design works yet" if best is None else f"best {duration(best)}", f"{len(seen.trials)} trials"]
    if seen.seconds_left is not None:
        parts.append(f"{seen.seconds_left:.0f} s left")
    elif seen.trials_left is not None:
        parts.append(f"{seen.trials_left} left")
    return ", ".join(parts)
