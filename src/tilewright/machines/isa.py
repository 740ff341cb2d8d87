"""x86 instruction-set features as LLVM names them, and what follows from a set of them."""

from __future__ import annotations

from collections.abc import Iterable

# Every feature that changes which instructions LLVM may emit for numerical code. A machine lists the
# ones it has; the others are switched off explicitly, whatever the CPU name given to LLVM implies.
BASE = ("64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
SSE = ("sse3", "ssse3", "sse4.1", "sse4.2", "cx16", "popcnt", "sahf", "movbe", "bmi", "bmi2", "lzcnt", "adx")
AVX = ("avx", "avx2", "fma", "f16c", "gfni", "vaes", "vpclmulqdq", "avxvnni", "avxvnniint8", "avxifma", "avxneconvert")
AVX512 = (
    "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512ifma", "avx512vbmi", "avx512vbmi2",
    "avx512vnni", "avx512bitalg", "avx512vpopcntdq", "avx512bf16", "avx512fp16", "avx512vp2intersect",
)  # fmt: skip
AMX = ("amx-tile", "amx-int8", "amx-bf16", "amx-fp16")
FEATURES: tuple[str, ...] = BASE + SSE + AVX + AVX512 + AMX

# Losing the key loses the values too: the families build on each other.
_FALLS_WITH = {
    "avx": (*AVX[1:], *AVX512),
    "avx2": (*AVX[2:], *AVX512),
    "fma": AVX512,
    "f16c": AVX512,
    "avx512f": AVX512[1:],
    "avx512bw": ("avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512bf16", "avx512fp16"),
    "avx512dq": ("avx512fp16",),
    "avx512vl": ("avx512fp16",),
    "amx-tile": AMX[1:],
}

# LLVM's CPU names, most specific first: (name, vendor or any, features that make the name true).
# An unknown name aborts the process, so only names that every supported LLVM (20 to 22) has stand here.
_CPUS: tuple[tuple[str, str | None, frozenset[str]], ...] = (
    ("znver5", "amd", frozenset({"avx512bf16", "avx512vnni", "avxvnni"})),
    ("znver4", "amd", frozenset({"avx512bf16", "avx512vnni"})),
    ("znver3", "amd", frozenset({"avx2", "fma", "f16c", "vaes", "vpclmulqdq"})),
    ("znver2", "amd", frozenset({"avx2", "fma", "f16c"})),
    ("graniterapids", None, frozenset({"amx-tile", "amx-fp16", "avx512bf16"})),
    ("sapphirerapids", None, frozenset({"amx-tile", "avx512bf16"})),
    ("sapphirerapids", None, frozenset({"avx512fp16", "avx512bf16"})),
    ("cooperlake", None, frozenset({"avx512bf16", "avx512vnni"})),
    ("icelake-server", None, frozenset({"avx512vbmi2", "avx512vnni"})),
    ("cascadelake", None, frozenset({"avx512vnni", "avx512vl"})),
    ("skylake-avx512", None, frozenset({"avx512bw", "avx512dq", "avx512vl"})),
    ("alderlake", None, frozenset({"avx2", "fma", "f16c", "avxvnni"})),
    ("haswell", None, frozenset({"avx2", "fma", "f16c"})),
    ("x86-64-v2", None, frozenset({"sse4.2", "popcnt"})),
)


def without(features: Iterable[str], failed: Iterable[str]) -> tuple[str, ...]:
    """`features` in canonical order less the `failed` ones and all that build on them."""
    lost = set(failed)
    for name, more in _FALLS_WITH.items():  # in the order of the table: avx before avx2 before avx512f
        if name in lost:
            lost.update(more)
    kept = set(features) - lost
    return tuple(f for f in FEATURES if f in kept)


def llvm_cpu(vendor: str, features: Iterable[str]) -> str:
    """The LLVM CPU name that schedules best for these features (the host's own name may be wrong in a VM)."""
    have = frozenset(features)
    for name, maker, needs in _CPUS:
        if needs <= have and maker in (None, vendor):
            return name
    return "x86-64"


def llvm_features(features: Iterable[str]) -> str:
    """LLVM's feature string: every feature of `FEATURES` on or off, so that the CPU name implies nothing."""
    have = set(features)
    flags = [("+" if f in have else "-") + f for f in FEATURES]
    if "avx512f" in have:
        flags.append("-prefer-256-bit")  # the design chooses the width, not the CPU's name
    return ",".join(flags)


def vector_bits(features: Iterable[str]) -> int:
    """Width in bits of the widest vector register that `features` use."""
    have = set(features)
    return 512 if "avx512f" in have else 256 if "avx2" in have else 128


_ATOM_FEATURES = {
    "scalar": "sse2",
    "fma": "fma",
    "vdpbf16ps": "avx512bf16",
    "vpdpbusd": "avxvnni",
    "tdpbf16ps": "amx-bf16",
    "tdpbssd": "amx-int8",
}


def has_atom(name: str, features: Iterable[str]) -> bool:
    """Whether `features` execute the compute instruction `name`, at full vector width if it is a vector one."""
    have = set(features)
    if name == "vpdpbusd" and vector_bits(have) == 512:
        return "avx512vnni" in have
    return _ATOM_FEATURES[name] in have
