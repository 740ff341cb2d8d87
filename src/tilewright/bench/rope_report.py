"""What `tilewright bench rope` writes: CSV for programs, PNG and HTML for people, and the profiler's tables."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.bench.result import Result
from tilewright.bench.rope import OURS, WAYS
from tilewright.report.canvas import INK, canvas, png, titled
from tilewright.report.evidence import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("name", "way", "length", "head_dim", "contestant", "us", "ratio", "noise", "error")
_COLOURS = ("#0b6e4f", "#c44536", "#28536b", "#e09f3e", "#7d5ba6", "#5c6b73", "#b5179e", "#6a994e")
Row = dict[str, str | float]


def rows(results: Sequence[Result]) -> list[Row]:
    """A row for each contestant of each case; `ratio` is its time over that of Tilewright in the same rounds."""
    found: list[Row] = []
    for result in results:
        if result.error:
            continue
        known = result.metrics
        for who in result.raw["order"]:
            found.append(
                {
                    "name": result.name.rpartition(" ")[0],
                    "way": result.name.rpartition(" ")[2],
                    "length": int(known["length"]),
                    "head_dim": int(known["head_dim"]),
                    "contestant": who,
                    "us": known["us"] if who == OURS else known[f"us {who}"],
                    "ratio": 1.0 if who == OURS else known[f"ratio {who}"],
                    "noise": known["noise"],
                    "error": result.raw["errors"][who],
                }
            )
    return found


def as_csv(found: Sequence[Row]) -> str:
    """Comma-separated values with a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def figure(found: Sequence[Row], way: str, head_dim: int) -> Figure:
    """Microseconds over sequence length of every contestant; both axes logarithmic."""
    drawn, axes = canvas()
    mine = [r for r in found if r["way"] == way and r["head_dim"] == head_dim]
    for who, colour in zip(dict.fromkeys(r["contestant"] for r in mine), _COLOURS, strict=False):
        points = sorted((r["length"], r["us"]) for r in mine if r["contestant"] == who)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=str(who), linewidth=1.6)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    titled(axes, f"RoPE {way}, heads of {head_dim}", "sequence length", "microseconds")
    return drawn


def page(found: Sequence[Row], pictures: dict[str, bytes], profile: str, about: str) -> str:
    """All of it as one HTML page that needs no network."""
    body = [f"<h1>Rotary position embedding</h1><p>{html.escape(about)}</p>"]
    for name, data in pictures.items():
        body.append(f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">')
    head = "".join(f"<th>{c}</th>" for c in COLUMNS)
    lines = ("".join(f"<td>{html.escape(str(row[c]))}</td>" for c in COLUMNS) for row in found)
    body.append(f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")
    body.append(f"<h2>Profiler</h2><pre>{html.escape(profile)}</pre>")
    style = "body{font:14px sans-serif;margin:2em}td,th{padding:2px 8px;text-align:right}img{max-width:46%}"
    return f"<!doctype html><meta charset=utf-8><title>RoPE</title><style>{style}</style>{''.join(body)}\n"


def write(results: Sequence[Result], profile: str, about: str, folder: Path) -> list[Path]:
    """Everything into `folder`, each file at once or not at all."""
    found = rows(results)
    folder.mkdir(parents=True, exist_ok=True)
    dims = sorted({int(r["head_dim"]) for r in found})
    pictures = {f"rope-{way}-{dim}.png": png(figure(found, way, dim)) for dim in dims for way in WAYS}
    files = {
        "rope.csv": as_csv(found).encode(),
        "rope.html": page(found, pictures, profile, about).encode(),
        "rope-profile.txt": profile.encode(),
        **pictures,
    }
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]
