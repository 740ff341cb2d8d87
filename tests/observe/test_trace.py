"""The file of a shape trace: written, read, and refused where it is anything else."""

from __future__ import annotations

import json

import pytest

from tilewright.errors import TraceError
from tilewright.observe.trace import Call, Request, Trace

CALL = Call(
    "matmul", (("M", 3), ("K", 4), ("N", 5)), (("a", "f32"), ("b", "bf16")), (("activation", "silu"),), "cpu", 7
)
TRACE = Trace((CALL, Call("softmax", (("M", 1),), (("x", "f16"),), (("wide", True), ("none", None)))), (Request(5, 2),))


def test_what_is_written_is_read(tmp_path):
    TRACE.save(tmp_path / "t.json")
    assert Trace.load(tmp_path / "t.json") == TRACE
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert Trace.from_json(Trace().to_json()) == Trace()


def changed(**fields):
    data = json.loads(TRACE.to_json())
    data["calls"][0] |= fields
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "no JSON"),
        ("{}", "exactly the fields calls, format, requests, version"),
        (TRACE.to_json().replace("shape trace", "book"), "its format is 'tilewright book'"),
        (TRACE.to_json().replace('"version": 1', '"version": 2'), "version 2; this Tilewright reads 1"),
        (changed(operator="rm -rf"), r"calls\[0\].operator='rm -rf' is no name"),
        (changed(count=0), r"calls\[0\].count=0 is no whole number from 1"),
        (changed(count=True), "count=True"),
        (changed(sizes={"M": -1}), r"sizes.M=-1"),
        (changed(sizes={"M": 2**60}), "whole number"),
        (changed(sizes=[1]), "must be an object"),
        (changed(options={"activation": "a user's words"}), "is no name of at most 64"),
        (changed(options={"scale": 0.5}), "whole number"),
        (changed(prompt="secret"), "exactly the fields"),
        (TRACE.to_json().replace('"prompt": 5', '"prompt": "hello"'), r"requests\[0\].prompt='hello'"),
    ],
)
def test_anything_else_is_refused_with_its_place(text, reason):
    with pytest.raises(TraceError, match=reason):
        Trace.from_json(text)


def test_files_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(TraceError, match=r"none\.json: cannot be read"):
        Trace.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TraceError, match=r"bad\.json"):
        Trace.load(tmp_path / "bad.json")
    with pytest.raises(TraceError, match="cannot be written"):
        TRACE.save(tmp_path / "no" / "folder.json")
