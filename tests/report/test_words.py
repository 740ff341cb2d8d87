"""Mutations and decisions as a report writes them."""

from __future__ import annotations

import pytest

from tilewright.report.words import change_words, mutation_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SetTile(n, 48)", "SetTile n 48"),
        ("SetTile(axis='n', points=48)", "SetTile n 48"),
        ("Block(k, 256, False)", "Block k 256"),
        ("PackLocally(b, False)", "PackLocally b off"),
        ("PackLocally(b, True)", "PackLocally b"),
        ("Pack(a, None)", "Pack a none"),
        ("UseAtom((dot0), fma, (), (), None)", "UseAtom dot0 fma"),
        ("Reorder(order, (m, n))", "Reorder order (m, n)"),
        ("Together((SetTile(m, 8), SetTile(n, 16)))", "SetTile m 8 + SetTile n 16"),
        ("Together((SetTile(m, 8)))", "SetTile m 8"),
        ("crossed with 3f9a", "crossed with 3f9a"),
        ("start", "start"),
    ],
)
def test_mutations(text: str, words: str):
    assert mutation_words(text) == words


def test_changes_are_named_by_the_mutations_that_make_them():
    changes = (("lanes", ("n",)), ("tile.n", 48), ("local.b", True), ("block.m", None), ("stages.k", 3))
    assert change_words(changes) == "Vectorise n + SetTile n 48 + PackLocally b + Block m none + stages.k=3"
