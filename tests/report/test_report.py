"""A report: whole files, small pictures, nothing fetched, and its evidence read back equal."""

from __future__ import annotations

import builtins
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.errors import ArgumentError, MissingPackage
from tilewright.report.evidence import Evidence, read
from tilewright.report.figures import FIGURES
from tilewright.report.page import headline, page
from tilewright.report.report import DATA, write_report

from .fakes import TOPIC, evidence

EVIDENCE = evidence()


def test_a_report_is_one_page_its_pictures_and_its_evidence(tmp_path: Path):
    path = write_report(EVIDENCE, tmp_path / "new")
    assert path.name == "report.html"
    assert {p.name for p in path.parent.iterdir()} == {"report.html", DATA, *(f"{name}.png" for name in FIGURES)}
    assert all((path.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in FIGURES)
    assert sum(p.stat().st_size for p in path.parent.glob("*.png")) < 300_000


def test_the_page_asks_for_nothing_else(tmp_path: Path):
    text = write_report(EVIDENCE, tmp_path).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert len(sources) == len(FIGURES)
    assert all(s.startswith("data:image/png") for s in sources)


def test_the_page_holds_the_ladder():
    text = page(EVIDENCE, {})
    for rung in EVIDENCE.ladder:
        assert f"<td>{rung.mutation}</td>" in text
        assert rung.reason.replace(">", "&gt;") in text
    assert "of torch" in text
    assert "GFLOP/s" in text


def test_markup_in_names_is_text():
    text = page(replace(EVIDENCE, command="<script>alert(1)</script>"), {})
    assert "<script>" not in text


def test_evidence_reads_back_to_six_digits(tmp_path: Path):
    write_report(EVIDENCE, tmp_path)
    found = read(tmp_path / DATA)
    assert [t.design for t in found.trials] == [t.design for t in EVIDENCE.trials]
    assert found.seconds == pytest.approx(EVIDENCE.seconds, rel=1e-5)
    write_report(found, tmp_path)
    assert read(tmp_path / DATA) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"topic": {}}', '{"topic": 3}'])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ArgumentError, match=re.escape(str(tmp_path / "x.json"))):
        read(tmp_path / "x.json")


def test_little_evidence_gives_fewer_pictures(tmp_path: Path):
    bare = replace(EVIDENCE, random=(), ladder=(), trials=EVIDENCE.trials[:1], topic=replace(TOPIC, peak=None))
    path = write_report(bare, tmp_path)
    assert {p.stem for p in path.parent.glob("*.png")} == {"best", "graph"}


def test_failed_trials_alone_give_a_page(tmp_path: Path):
    lost = tuple(replace(t, outcome=replace(t.outcome, status="crash", seconds=None)) for t in EVIDENCE.trials[:5])
    write_report(replace(EVIDENCE, trials=lost, random=(), ladder=()), tmp_path)
    assert "5 crash" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_memory_bound_subject_is_told_in_bytes():
    slow = replace(TOPIC, flops=float(TOPIC.bytes))
    assert (slow.unit, slow.rate(1e-3)) == ("GB/s", pytest.approx(TOPIC.bytes / 1e6))
    assert "GB/s" in headline(replace(EVIDENCE, topic=slow))


def test_without_matplotlib_the_error_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def absent(name: str, *rest: object):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingPackage, match=r'pip install "tilewright\[report\]"'):
        write_report(EVIDENCE, tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="name another folder"):
        write_report(EVIDENCE, tmp_path / "file")


def test_evidence_is_data():
    assert Evidence.from_dict(EVIDENCE.to_dict()) == EVIDENCE
    assert "matplotlib.pyplot" not in sys.modules  # pictures are drawn without a window or global state
