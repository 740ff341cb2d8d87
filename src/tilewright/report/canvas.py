"""The look of a report's pictures, and their way to small PNG files. matplotlib is imported here, when first drawn."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from tilewright.errors import MissingPackage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2430", "#7a8194", "#e3e6ec"
MAIN, OTHER, GOOD, BAD = "#2563c9", "#e07b1f", "#2b8a5b", "#c23b3b"
COLOURS = 256
"""Colours of a PNG: enough for smooth text and a scale, a third of the bytes."""


def canvas(width: float = 7.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty figure, in inches, with one pair of axes. MissingPackage without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackage(
            'reports are drawn with matplotlib, which is not installed; run: pip install "tilewright[report]"'
        ) from None
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, which="both")
    axes.grid(True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def titled(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """A title at the left and the names of both axes."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)


def note(axes: Axes, text: str, x: float, y: float, **how: Any) -> None:
    """Small text in the coordinates of the data, or of `transform`."""
    axes.text(x, y, text, **{"fontsize": 8.5, "color": INK, **how})


def png(figure: Figure) -> bytes:
    """The figure as a PNG of few colours."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="white")
    small = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def time_scale(seconds: float) -> tuple[float, str]:
    """(what to divide by, unit) so that a time of about `seconds` is a number people read."""
    return next(((f, w) for f, w in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")) if seconds >= f), (1e-9, "ns"))


def percent(share: float) -> str:
    """`82%`, and one digit more below ten."""
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def figure_of(rate: float) -> str:
    """`0.82`, `93.1`, `803,000`: three digits, and never a power of ten."""
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 1000 else f"{rate:.3g}"


def duration(seconds: float) -> str:
    """`1.25 ms`."""
    scale, unit = time_scale(seconds)
    return f"{seconds / scale:.3g} {unit}"
