"""Keys: canonical, made of semantic fields, and blind to everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from entries import MATMUL, key
from hypothesis import given
from hypothesis import strategies as st
from programs import facts, traced

import tilewright
from tilewright.design.book import key as key_module
from tilewright.design.book import record
from tilewright.design.book.key import SEMANTIC, Key, differences, distance, objective_text
from tilewright.design.trial import Objective
from tilewright.errors import ArgumentError
from tilewright.machines.machine import Machine

words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
hashes = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)


def by_name(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    return st.dictionaries(words, values, max_size=4).map(lambda d: tuple(d.items()))


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "operator": words,
    "semantics": hashes,
    "sizes": by_name(st.integers(0, 2**40)),
    "dtypes": by_name(st.sampled_from(["f32", "bf16", "i32"])),
    "layouts": by_name(st.lists(st.integers(0, 3), max_size=2, unique=True).map(tuple)),
    "numerics": st.sampled_from(["free", "pinned"]),
    "objective": st.sampled_from(["latency", "throughput", "target:5e-05"]),
    "machine": hashes,
    "threads": st.integers(1, 512),
    "aligned": st.lists(words, max_size=3, unique=True).map(tuple),
}
keys = st.builds(Key, **FIELDS)


def test_every_semantic_field_is_drawn():
    assert [f.name for f in SEMANTIC] == list(FIELDS)


@given(keys, st.data())
def test_changing_any_semantic_field_changes_the_key(one: Key, data: st.DataObject):
    name = data.draw(st.sampled_from(list(FIELDS)))
    other = replace(one, **{name: data.draw(FIELDS[name])})
    same = getattr(other, name) == getattr(one, name)
    assert (one.hash == other.hash) == (one.text == other.text) == (one == other) == same
    assert bool(differences(one, other)) == (not same)
    assert (distance(one, other) > 0) == (not same)
    assert {d.partition(".")[0] for d in differences(one, other)} <= {name}


@given(keys)
def test_a_key_comes_back_from_its_text(one: Key):
    again = Key.from_dict(json.loads(one.text))
    assert again == one
    assert (again.hash, again.text) == (one.hash, one.text)


@given(keys, st.randoms(use_true_random=False))
def test_the_order_in_which_fields_are_given_does_not_count(one: Key, rng: Any):
    parts = ("sizes", "dtypes", "layouts", "aligned")
    shuffled = {name: tuple(rng.sample(list(getattr(one, name)), len(getattr(one, name)))) for name in parts}
    assert replace(one, **shuffled).hash == one.hash


# ------------------------------------------------------------------------------ what must not be in a key
def test_versions_dates_and_measured_rates_are_no_part_of_a_key(monkeypatch):
    before = key().hash
    monkeypatch.setattr(tilewright, "__version__", "99.0")
    monkeypatch.setattr(record, "__version__", "99.0")
    monkeypatch.setattr(record, "now", lambda: "1999-01-01T00:00:00+00:00")
    assert key().hash == before
    machine = Machine.named("zen5")
    faster = replace(machine.with_memory_rates(1e12, 1e12, 1e12), name="another name", notes=("elsewhere",))
    assert Key.of(MATMUL, facts(MATMUL, faster), threads=2).hash == before


def test_a_new_meaning_of_keys_makes_new_hashes(monkeypatch):
    before = key().hash
    monkeypatch.setattr(key_module, "SCHEMA", key_module.SCHEMA + 1)
    assert key().hash != before


USERS_KERNEL = """
from tilewright import Tensor, f32, parallel, kernel
@kernel
def scaled(x: Tensor["M", "D"], y: Tensor["M", "D"]):
    for {i}, {d} in parallel("M", "D"):
        {v} = x[{i}, {d}].to(f32)
        y[{i}, {d}] = {v} * 3.0
"""
PRINTER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from users import scaled
from tilewright.design.book.key import Key
from tilewright.design.default import Facts
from tilewright.machines.machine import Machine
program = scaled.trace("bf16")
facts = Facts({"D": 64, "M": 8}, {"x": (1,), "y": (1,)}, Machine.named("zen5"))
print(Key.of(program, facts, threads=2).text)
print(os.getpid())
"""


def test_home_path_pid_and_environment_are_no_part_of_a_key(tmp_path: Path):
    found = []
    for n, names in enumerate([("i", "d", "v"), ("row", "column", "value")]):
        folder = tmp_path / f"user{n}" / "kernels"
        folder.mkdir(parents=True)
        (folder / "users.py").write_text(USERS_KERNEL.format(i=names[0], d=names[1], v=names[2]))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "HOME": str(folder)}
        environment |= {"PYTHONHASHSEED": str(n), "USER": f"user{n}", "TILEWRIGHT_CACHE_DIR": str(folder / "cache")}
        command = [sys.executable, "-c", PRINTER, str(folder)]
        ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        found.append(ended.stdout.splitlines())
    (one, pid), (other, other_pid) = found
    assert one == other
    assert pid != other_pid
    for word in (str(tmp_path), "user0", f'"{pid}"', os.path.expanduser("~")):
        assert word not in one


# ---------------------------------------------------------------------------------------------- from programs
def test_a_key_holds_what_decides_about_a_design():
    one = key(M=16)
    assert dict(one.sizes) == {"M": 16, "N": 1024, "K": 2048}
    assert one.label == "matmul K=2048 M=16 N=1024 dtype=f32"
    assert one.machine == Machine.named("zen5").fingerprint
    others = [
        key(M=17), key(threads=1, M=16), key("x86-avx2", M=16),
        Key.of(MATMUL, facts(MATMUL, M=16, unit=0), threads=2),
        Key.of(MATMUL, replace(facts(MATMUL, M=16), aligned=frozenset("c")), threads=2),
        Key.of(MATMUL, facts(MATMUL, M=16), threads=2, numerics="pinned"),
        Key.of(MATMUL, facts(MATMUL, M=16), threads=2, objective=Objective("target", 5e-5)),
        Key.of(traced("matmul", "bf16"), facts(MATMUL, M=16), threads=2),
        Key.of(traced("matmul", activation="silu"), facts(MATMUL, M=16), threads=2),
    ]  # fmt: skip
    assert len({k.hash for k in [one, *others]}) == 10


def test_a_design_for_unaligned_rows_may_be_looked_up_for_aligned_ones():
    aligned = Key.of(MATMUL, replace(facts(MATMUL), aligned=frozenset("abc")), threads=2)
    assert aligned.unaligned == key()
    assert aligned.unaligned.facts is not None
    assert aligned.unaligned.facts.aligned == frozenset()


def test_objectives_as_text():
    assert objective_text(Objective("latency")) == "latency"
    assert objective_text(Objective("target", 5e-5)) == "target:5e-05"


@pytest.mark.parametrize(
    "field, value",
    [("threads", 0), ("threads", True), ("numerics", "loose"), ("operator", ""), ("sizes", (("M", -1),)),
     ("sizes", (("M", 1.5),)), ("dtypes", (("a", 3),)), ("layouts", (("a", (-1,)),)), ("machine", None)],
)  # fmt: skip
def test_a_key_of_anything_else_is_refused(field: str, value: Any):
    with pytest.raises(ArgumentError, match=f"a key of the book: {field}"):
        replace(key(), **{field: value})


@pytest.mark.parametrize("change", [{"threads": "two"}, {"home": "/root"}, {"sizes": [1]}, {"aligned": 3}])
def test_text_that_is_no_key(change: dict[str, Any]):
    with pytest.raises(ValueError, match=r"a key has the fields|a key of the book|not iterable|has no attribute"):
        Key.from_dict({**key().to_dict(), **change})
    with pytest.raises(ValueError, match="a key has the fields operator"):
        Key.from_dict(["a", "key"])
