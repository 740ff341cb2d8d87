"""Text of a running request: settled pieces, and stop strings that span tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_folders import make_tokenizer

from tilewright.engine.text import TextStream
from tilewright.models.tokenizer import Tokenizer


class Letters:
    """A tokenizer whose tokens are characters."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def run(text, stops):
    """What is settled after each character, and after the end."""
    stream = TextStream(Letters(), [], stops)
    seen = []
    for c in text:
        stream.push(ord(c))
        seen.append(stream.text)
        if stream.stopped:
            break
    stream.finish()
    return [*seen, stream.text], stream.stopped


def test_no_stops_hold_nothing_back():
    assert run("abc", []) == (["a", "ab", "abc", "abc"], False)


def test_possible_beginnings_are_held_back():
    assert run("xaby", ["abc"]) == (["x", "x", "x", "xaby", "xaby"], False)


def test_stop_string_is_cut():
    assert run("xabcz", ["abc"]) == (["x", "x", "x", "x", "x"], True)


def test_what_was_held_back_is_given_at_the_end():
    assert run("xab", ["abc"]) == (["x", "x", "x", "xab"], False)


def test_the_first_stop_string_wins():
    assert run("hello END or STOP", ["STOP", "END"])[0][-1] == "hello "


def test_several_in_one_piece():
    class Whole(Letters):
        def decode(self, ids):
            return "xx END yy STOP" if ids else ""

    stream = TextStream(Whole(), [], ["STOP", "END"])
    stream.push(0)
    assert (stream.text, stream.stopped) == ("xx ", True)


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_equals_a_search_in_the_whole_text(text, stops):
    seen, stopped = run(text, stops)
    # Characters come one by one: the stop string that is complete first ends the text where it begins.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    first = min(e for e, _ in ends) if ends else None
    wanted = min(b for e, b in ends if e == first) if ends else len(text)
    assert seen[-1] == text[:wanted]
    assert stopped == bool(ends)
    assert all(seen[-1].startswith(s) for s in seen)  # what was given out is never taken back


def test_without_a_tokenizer():
    stream = TextStream(None, [1], ["a"])
    stream.push(5)
    stream.finish()
    assert (stream.text, stream.stopped) == ("", False)


@pytest.mark.parametrize("stop", ["€", "a€"])
def test_stop_strings_of_several_bytes(tmp_path, stop):
    make_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    stream = TextStream(tokenizer, [], [stop])
    for token in tokenizer.encode("xa€y"):
        stream.push(token)
        if stream.stopped:
            break
    assert stream.text == "xa€"[: "xa€".index(stop)]
