"""Questions about a program's shape: asked once of each program, answered anew for each who asks."""

from __future__ import annotations

from dataclasses import replace

from tilewright.language import structure
from tilewright.operators import matmul, rmsnorm

MATMUL = matmul.kernel.trace("f32", options={"activation": None})
RMSNORM = rmsnorm.kernel.trace("f32")


def test_a_program_is_looked_at_once_and_nobody_spoils_the_answer():
    asked = []

    @structure.asked_once
    def names(kernel):
        asked.append(kernel.name)
        return list(structure.axes(kernel))

    first = names(MATMUL)
    first.clear()
    assert names(MATMUL) == ["m", "n", "k"] and asked == ["matmul"]
    assert names(RMSNORM)[0] == "m" and asked == ["matmul", "rmsnorm"]


def test_a_changed_program_is_another_one():
    structure.lets(MATMUL), structure.loads(MATMUL)
    without = replace(MATMUL, body=())
    assert structure.lets(without) == {} and structure.nests(without) == [] and len(structure.loads(MATMUL)) == 2
    assert without != MATMUL and hash(MATMUL) == hash(replace(without, body=MATMUL.body))


def test_answers_are_no_part_of_a_program():
    fresh = matmul.kernel.trace("f32", options={"activation": None})
    same = replace(fresh)
    structure.axes(fresh)
    assert fresh == same and hash(fresh) == hash(same) and repr(fresh) == repr(same)
