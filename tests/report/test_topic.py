"""What a report is about: the roof of main memory is told only of what comes from there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilewright.report import topic
from tilewright.report.topic import topic_of
from tilewright.runtime.subject import Subject


def test_operands_that_caches_hold_have_no_roof_of_main_memory(monkeypatch: pytest.MonkeyPatch):
    subject = Subject.of("softmax", {"M": 64, "D": 1024}, "f32", threads=1)
    moved = 2 * 64 * 1024 * 4
    rate = 1e9
    known = replace(subject.machine.memory, bandwidth=rate, read=rate)
    subject = replace(subject, machine=replace(subject.machine, levels=(*subject.machine.levels[:-1], known)))
    monkeypatch.setattr(topic.bandwidth, "remembered", lambda *_: None)
    monkeypatch.setattr(topic, "last_level_cache_bytes", lambda: moved - 1)
    assert topic_of(subject).roof_seconds == pytest.approx(moved / rate)
    monkeypatch.setattr(topic, "last_level_cache_bytes", lambda: moved)
    assert topic_of(subject).roof_seconds is None
    assert topic_of(subject).unit == "GB/s"
