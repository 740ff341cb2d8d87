import json

import pytest

from tilewright.design.design import Design

DESIGN = Design.of({"tile.m": 8, "lanes": ("n",), "block.m": 64, "pack.b": "panel", "nontemporal.c": True})


def test_order_of_decisions_does_not_matter():
    again = Design.of(dict(reversed(DESIGN.decisions)))
    assert again == DESIGN
    assert hash(again) == hash(DESIGN)
    assert again.hash == DESIGN.hash


def test_reading_decisions():
    assert DESIGN.number("tile.m") == 8
    assert DESIGN.number("tile.k", 1) == 1
    assert DESIGN.names("lanes") == ("n",)
    assert DESIGN.names("order") == ()
    assert DESIGN.get("pack.a") is None
    assert dict(DESIGN.prefixed("tile")) == {"m": 8}


def test_changing_one_decision_gives_another_design():
    other = DESIGN.with_(tile__m=4)
    assert other.number("tile.m") == 4
    assert DESIGN.number("tile.m") == 8
    assert other.hash != DESIGN.hash


def test_json_and_back():
    assert Design.from_json(DESIGN.to_json()) == DESIGN
    assert json.loads(DESIGN.to_json())["lanes"] == ["n"]
    assert list(json.loads(DESIGN.to_json())) == sorted(dict(DESIGN.decisions))


@pytest.mark.parametrize("text", ["[1]", '{"tile.m": 1.5}', '{"tile.m": null}', '{"lanes": {"n": 1}}', "nothing"])
def test_text_that_is_no_design(text):
    with pytest.raises(ValueError, match=r"a design is a JSON object|Expecting value"):
        Design.from_json(text)
