"""Records and measurements: plain data that comes back as it was, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from entries import DATE, default, key, record, standing, trial

from tilewright.design.book.record import Measurement, Quarantined, Record, now, versions
from tilewright.design.trial import Result


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data))


def test_a_record_comes_back():
    kept = record(runner_up=standing(default(key()).with_(threads=1)))
    again = Record.from_dict(through_json(kept.to_dict()))
    assert again == kept
    assert again.speedup == pytest.approx(1.25)
    assert (again.sizes["M"], again.dtype) == (512, "f32")


def test_a_record_of_a_search():
    of = key()
    other = standing(default(of).with_(threads=1))
    made = Record.of(of, Result(default(of), 1e-3, 2e-3, (), other, "budget", (other,), 0.02), seed=5)
    assert (made.verified, made.origin, made.seed) == (True, "search", 5)
    assert (made.seconds, made.default_seconds, made.noise, made.runner_up) == (1e-3, 2e-3, 0.02, other)
    assert Record.from_dict(through_json(made.to_dict())) == made


@pytest.mark.parametrize(
    "field, value",
    [("seconds", -1.0), ("seconds", None), ("default_seconds", float("nan")), ("noise", "loud"), ("verified", "yes"),
     ("seed", None), ("created", "yesterday"), ("created", "2026-01-02"), ("origin", "heaven"), ("version", 3),
     ("design", {"tile.m": 1.5}), ("design", "rm -rf"), ("key", {}), ("runner_up", {"design": {}}), ("extra", 1)],
)  # fmt: skip
def test_data_that_is_no_record(field: str, value: Any):
    with pytest.raises(ValueError, match=r"\w"):
        Record.from_dict({**through_json(record().to_dict()), field: value})


def test_a_measurement_comes_back_and_names_itself_by_what_it_holds():
    kept = Measurement(key().hash, "run", trial(default(key()), parent="aa", mutation="tile.m"), 3, DATE, versions())
    assert Measurement.from_dict(through_json(kept.to_dict())) == kept
    assert replace(kept, origin="import").hash == kept.hash
    assert replace(kept, run="another").hash != kept.hash
    assert dict(kept.versions)["tilewright"]


@pytest.mark.parametrize("change", [{"trial": {}}, {"versions": 3}, {"date": "now"}, {"seed": "x"}])
def test_data_that_is_no_measurement(change: dict[str, Any]):
    kept = Measurement(key().hash, "run", trial(default(key())), 3, DATE, versions())
    with pytest.raises(ValueError, match=r"\w"):
        Measurement.from_dict({**kept.to_dict(), **change})


def test_what_is_in_quarantine_comes_back():
    kept = Quarantined(default(key()), "hang", "no answer after 5 s", now())
    assert Quarantined.from_dict(through_json(kept.to_dict())) == kept
    with pytest.raises(ValueError, match="has the fields"):
        Quarantined.from_dict({"design": {}})
