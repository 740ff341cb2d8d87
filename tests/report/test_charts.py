"""Charts of simulations: every kind is drawn small, and a page holds them all in one file."""

from __future__ import annotations

import pytest

from tilewright.report.charts import drawn, write_page
from tilewright.simulate.simulation import Chart, Part, Series, Simulation, Span

BARS = (Series("one", ("a", "b"), (1.0, 2.0)), Series("two", ("a", "b"), (2.0, 0.5)))
CHARTS = (
    Chart("lines", "x", "y", (Series("one", (1.0, 2.0, 4.0), (1.0, 3.0, 2.0)),), log_x=True),
    Chart("bars", "", "y", BARS, kind="bar"),
    Chart("stacked", "", "y", BARS, kind="stacked"),
    Chart("timeline", "cycles", "", spans=(Span("load", 0, 3, "i=0"), Span("use", 3, 2, "i=1")), kind="timeline"),
)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda c: c.title)
def test_every_kind_of_chart_is_a_small_picture(chart):
    picture = drawn(chart)
    assert picture.startswith(b"\x89PNG") and 2_000 < len(picture) < 60_000


def test_a_page_holds_everything_and_fetches_nothing(tmp_path):
    told = Simulation("p<q", "m", (("M", 2),), 2.0, parts=(Part("wait & see", 2.0),), charts=CHARTS)
    write_page(told, tmp_path / "deep" / "out.html")
    page = (tmp_path / "deep" / "out.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(CHARTS) and "http" not in page
    assert "p&lt;q" in page and "wait &amp; see" in page and "100.0%" in page
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["out.html"]
