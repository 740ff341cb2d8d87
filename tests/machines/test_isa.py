import subprocess
import sys

import pytest

from tilewright.machines import isa

_V3 = {*isa.BASE, *isa.SSE, "avx", "avx2", "fma", "f16c"}
_V4 = {*_V3, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


@pytest.mark.parametrize(
    ("vendor", "features", "cpu"),
    [
        ("amd", {*_V4, "avx512vnni", "avx512bf16", "avxvnni"}, "znver5"),
        ("amd", {*_V4, "avx512vnni", "avx512bf16"}, "znver4"),
        ("amd", {*_V3, "vaes", "vpclmulqdq"}, "znver3"),
        ("amd", _V3, "znver2"),
        ("intel", {*_V4, "avx512vnni", "avx512bf16", "amx-tile", "amx-bf16"}, "sapphirerapids"),
        ("intel", {*_V4, "avx512vnni", "avx512bf16", "avx512fp16"}, "sapphirerapids"),
        ("intel", {*_V4, "avx512bf16", "amx-tile", "amx-fp16"}, "graniterapids"),
        ("intel", {*_V4, "avx512vnni", "avx512bf16"}, "cooperlake"),
        ("intel", {*_V4, "avx512vnni", "avx512vbmi2"}, "icelake-server"),
        ("intel", {*_V4, "avx512vnni"}, "cascadelake"),
        ("intel", _V4, "skylake-avx512"),
        ("intel", {*_V3, "avxvnni"}, "alderlake"),
        ("generic", _V3, "haswell"),
        ("intel", {"sse2", "sse4.2", "popcnt"}, "x86-64-v2"),
        ("intel", set(isa.BASE), "x86-64"),
    ],
)
def test_cpu_name_follows_from_features(vendor: str, features: set[str], cpu: str) -> None:
    assert isa.llvm_cpu(vendor, features) == cpu


def test_losing_a_family_loses_what_builds_on_it() -> None:
    assert isa.without(isa.FEATURES, ["avx"]) == (*isa.BASE, *isa.SSE, *isa.AMX)
    assert "avx2" in isa.without(isa.FEATURES, ["avx512f"])
    assert not any(f.startswith("avx512") for f in isa.without(isa.FEATURES, ["avx512f"]))
    assert not any(f.startswith("amx") for f in isa.without(isa.FEATURES, ["amx-tile"]))
    assert isa.without(isa.FEATURES, ["avx512vnni"]) == tuple(f for f in isa.FEATURES if f != "avx512vnni")
    assert isa.without(["unheard-of", "sse2"], []) == ("sse2",)


def test_feature_string_switches_each_feature() -> None:
    flags = isa.llvm_features(_V3).split(",")
    assert "+avx2" in flags and "-avx512f" in flags and "-amx-tile" in flags
    assert len(flags) == len(isa.FEATURES)
    assert isa.llvm_features(_V4).endswith("-prefer-256-bit")


def test_width_and_atoms() -> None:
    assert [isa.vector_bits(f) for f in (isa.BASE, _V3, _V4)] == [128, 256, 512]
    assert isa.has_atom("vpdpbusd", {*_V3, "avxvnni"}) and not isa.has_atom("vpdpbusd", {*_V4, "avxvnni"})
    assert isa.has_atom("fma", _V3) and not isa.has_atom("tdpbf16ps", _V4)


def test_llvm_knows_every_name() -> None:
    """LLVM only warns of an unknown feature, and an unknown CPU name ends the process: so ask in another one."""
    code = (
        "import llvmlite.binding as llvm\n"
        "from tilewright.machines import isa\n"
        "llvm.initialize_all_targets(); llvm.initialize_all_asmprinters()\n"
        "target = llvm.Target.from_triple('x86_64-unknown-linux-gnu')\n"
        "for cpu in sorted({name for name, _, _ in isa._CPUS} | {'x86-64'}):\n"
        "    for on in (isa.FEATURES, isa.BASE):\n"
        "        machine = target.create_target_machine(cpu=cpu, features=isa.llvm_features(on))\n"
        "        machine.emit_assembly(llvm.parse_assembly('define void @f() { ret void }'))\n"
        "print('all known')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("all known\n", "", 0)
