import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tilewright.design.default import Facts, default_design
from tilewright.errors import MachineError
from tilewright.machines import Machine, machine_names
from tilewright.operators import matmul

SHIPPED = [
    "a100", "arm-neon", "b200", "h100", "h200", "l40s", "plasticine", "rtx4090", "sapphire-rapids", "sn40l", "tpu_v1",
    "x86-avx2", "x86-avx512", "zen5",
]  # fmt: skip


def test_all_descriptions_ship() -> None:
    assert machine_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_json_round_trip(name: str) -> None:
    machine = Machine.named(name)
    assert machine.name == name
    again = Machine.from_json(machine.to_json())
    assert again == machine
    assert again.fingerprint == machine.fingerprint


def test_fingerprints_tell_machines_apart() -> None:
    assert len({Machine.named(n).fingerprint for n in SHIPPED}) == len(SHIPPED)


def test_fingerprint_holds_what_a_design_depends_on_and_nothing_else() -> None:
    m = Machine.named("zen5")
    same = [
        replace(m, name="x"),
        replace(m, clock_hz=1.0),
        replace(m, notes=()),
        replace(m, habits=(("x", 1.0),)),
        m.with_memory_rates(1e9, 2e9, 3e9),
    ]
    assert {s.fingerprint for s in same} == {m.fingerprint}
    smaller_l2 = tuple(replace(x, bytes=2**19) if x.name == "l2" else x for x in m.levels)
    other = [
        replace(m, cores=3),
        replace(m, levels=smaller_l2),
        replace(m, vector=replace(m.vector, bits=256)),  # type: ignore[type-var]
        replace(m, limits=(("threads", 1),)),
        replace(m, architecture="amd-25-17"),
    ]
    assert m.fingerprint not in {o.fingerprint for o in other}


def test_designs_go_by_habits_that_a_description_states_and_not_by_its_name() -> None:
    """Long streams of weights where prefetchers go on across pages; words to L2 where its policy was measured."""
    follows = Machine.named("zen5")
    assert follows.habit("prefetches_across_pages") and Machine.from_json(follows.to_json()).habits == follows.habits
    unknown = replace(follows, habits=())
    assert unknown.habit("prefetches_across_pages") is None and "habits" not in unknown.to_dict()
    product = matmul.kernel.trace("f32", options={"activation": None})
    tiles = {}
    for machine in (follows, unknown):
        unit = {p.name: (1,) for p in product.params}
        facts = Facts({"M": 1, "N": 4096, "K": 4096}, unit, machine)
        tiles[machine] = default_design(product, facts).number("tile.n", 1)
    assert tiles[follows] > tiles[unknown] == 1


def test_fingerprint_does_not_change_between_releases() -> None:
    """Books are keyed by it: a change here makes every stored design a miss, so it must be meant."""
    assert Machine.named("x86-avx2").fingerprint == "74ba47d23e394a9b"


# SMs x flops per cycle and SM x clock, against the data sheet. The slack of the last three is what
# the vendor's own figures leave: their peaks are stated at another clock than the boost clock.
@pytest.mark.parametrize(
    ("name", "dtype", "sms", "per_cycle", "clock", "slack"),
    [
        ("a100", "bf16", 108, 2048, 1.41e9, 0.0005),
        ("a100", "f32", 108, 128, 1.41e9, 0.0005),
        ("a100", "i8", 108, 4096, 1.41e9, 0.0005),
        ("h100", "bf16", 132, 4096, 1.83e9, 0.0005),
        ("h200", "bf16", 132, 4096, 1.83e9, 0.0005),
        ("h200", "f8e4m3", 132, 8192, 1.83e9, 0.0005),
        ("rtx4090", "bf16", 128, 512, 2.52e9, 0.001),
        ("rtx4090", "f32", 128, 256, 2.52e9, 0.001),
        ("l40s", "bf16", 142, 1024, 2.52e9, 0.013),
        ("h100", "f32", 132, 256, 1.98e9, 0.002),
        ("b200", "bf16", 148, 8192, 1.856e9, 0.001),
    ],
)
def test_peak_is_cores_times_rate_times_clock(
    name: str, dtype: str, sms: int, per_cycle: float, clock: float, slack: float
) -> None:
    machine = Machine.named(name)
    assert machine.cores == sms
    assert max(a.flops_per_cycle or 0 for a in machine.atoms if a.dtype == dtype) == per_cycle
    assert sms * per_cycle * clock == pytest.approx(machine.peak(dtype), rel=slack)


@pytest.mark.parametrize("name", ["a100", "h100", "h200", "rtx4090"])
def test_peak_without_a_stated_one_comes_from_the_atoms(name: str) -> None:
    machine = Machine.named(name)
    assert replace(machine, peaks=()).peak("bf16") == pytest.approx(machine.peak("bf16"), rel=0.001)
    assert machine.peak("f64") is None


@pytest.mark.parametrize(
    ("name", "cc", "warps", "blocks", "shared_kb"),
    [
        ("a100", 80, 64, 32, 164),
        ("l40s", 89, 48, 24, 100),
        ("rtx4090", 89, 48, 24, 100),
        ("h100", 90, 64, 32, 228),
        ("h200", 90, 64, 32, 228),
        ("b200", 100, 64, 32, 228),
    ],
)
def test_occupancy_limits(name: str, cc: int, warps: int, blocks: int, shared_kb: int) -> None:
    machine = Machine.named(name)
    assert machine.limit("compute_capability") == cc
    assert machine.limit("max_warps_per_sm") == warps
    assert machine.limit("max_blocks_per_sm") == blocks
    assert machine.limit("shared_bytes_per_sm") == shared_kb * 1024 == machine.level("shared").bytes
    assert machine.limit("shared_bytes_per_block") == (shared_kb - 1) * 1024
    assert machine.limit("registers_per_sm") * 4 == machine.level("register").bytes


@pytest.mark.parametrize(
    ("name", "tb_per_s"),
    [("a100", 2.04), ("h100", 3.35), ("h200", 4.8), ("l40s", 0.864), ("rtx4090", 1.008), ("b200", 8.0), ("sn40l", 1.6)],
)
def test_memory_bandwidths(name: str, tb_per_s: float) -> None:
    assert Machine.named(name).memory.bandwidth == tb_per_s * 1e12


def test_tpu_v1_figures_follow_from_its_description() -> None:
    tpu = Machine.named("tpu_v1")
    rows, columns = tpu.limit("rows"), tpu.limit("columns")
    assert tpu.atom("systolic").flops_per_cycle == 2 * rows * columns
    assert tpu.clock_hz == 700e6
    assert 2 * rows * columns * tpu.clock_hz == pytest.approx(tpu.peak("i8"), rel=0.003)
    assert tpu.memory.name == "weights" and tpu.memory.bandwidth is not None
    tile_cycles = tpu.limit("weight_tile_bytes") / tpu.memory.bandwidth * tpu.clock_hz
    assert tile_cycles == pytest.approx(1349.3, abs=0.05)


def test_sn40l_memory_units_add_up() -> None:
    chip = Machine.named("sn40l")
    pmu = chip.level("pmu").bytes
    assert pmu is not None and chip.limit("memory_units") * pmu == 520 * 2**20


def test_cpu_questions() -> None:
    m = Machine.named("sapphire-rapids")
    assert (m.vector_bits, m.vector_registers) == (512, 32)
    assert m.has("amx-bf16") and m.has("avx512f") and not m.has("avx512vp2intersect")
    assert (m.l1_bytes, m.l2_bytes, m.l3_bytes) == (48 * 2**10, 2 * 2**20, 105 * 2**20)
    assert m.llvm_cpu == "sapphirerapids"
    assert "+amx-bf16" in m.llvm_features and "-avx512vp2intersect" in m.llvm_features
    neon = Machine.named("arm-neon")
    assert (neon.vector_bits, neon.vector_registers, neon.llvm_features) == (128, 32, "+fp-armv8,+neon")


def test_cache_shared_by_cores_is_divided() -> None:
    m = Machine.named("zen5")
    shared = tuple(replace(x, shared_by=4) if x.name == "l2" else x for x in m.levels)
    assert replace(m, levels=shared).l2_bytes == m.l2_bytes // 4


def test_measured_rates_stay_on_the_main_memory() -> None:
    m = Machine.named("zen5").with_memory_rates(1e9, 2e9, 3e9)
    assert (m.memory.read, m.memory.copy, m.memory.copy_nontemporal) == (1e9, 2e9, 3e9)
    assert all(level.read is None for level in m.levels[:-1])


def test_unknown_names_list_the_known_ones() -> None:
    gpu = Machine.named("h200")
    with pytest.raises(MachineError, match=r"'h300'.*a100.*h200"):
        Machine.named("h300")
    with pytest.raises(MachineError, match=r"'h200' has no memory level 'l9'; it has register, shared"):
        gpu.level("l9")
    with pytest.raises(MachineError, match=r"no limit 'wings'; it has .*max_warps_per_sm"):
        gpu.limit("wings")
    with pytest.raises(MachineError, match=r"no atom 'fma'; it has .*wgmma"):
        gpu.atom("fma")
    with pytest.raises(MachineError, match="no vector registers"):
        _ = gpu.vector_bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "quantum"}, "unknown kind 'quantum'"),
        ({"cores": 0}, "cores is 0"),
        ({"vector": None}, "needs `vector`"),
        ({"wings": 2}, "wings"),
        ({"levels": [{"bytes": 1}]}, "name"),
        ({"levels": 3}, "does not fit"),
        ({"limits": 3}, "does not fit"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    data = {**Machine.named("zen5").to_dict(), **change}
    with pytest.raises(MachineError, match=message):
        Machine.from_dict(data)


def test_a_missing_field_is_named() -> None:
    data = Machine.named("zen5").to_dict()
    del data["levels"]
    with pytest.raises(MachineError, match="levels"):
        Machine.from_dict(data)


def test_a_description_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**Machine.named("h200").to_dict(), "name": "mine", "cores": 7}))
    assert Machine.named(str(path)).cores == 7
    path.write_text("{")
    with pytest.raises(MachineError, match=r"mine\.json.*not JSON"):
        Machine.named(str(path))
    with pytest.raises(MachineError, match=r"absent\.json cannot be read"):
        Machine.named(str(tmp_path / "absent.json"))


@pytest.mark.parametrize("name", SHIPPED)
def test_numbers_are_finite_and_positive(name: str) -> None:
    machine = Machine.named(name)
    numbers = [v for _, v in (*machine.limits, *machine.peaks)]
    numbers += [v for m in machine.levels for v in (m.bytes, m.bandwidth, m.read, m.copy) if v is not None]
    assert all(0 < v < math.inf for v in numbers)
