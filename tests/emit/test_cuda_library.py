"""The tile library, as far as constants tell: NVRTC evaluates the assertions, no GPU is needed."""

import re
from pathlib import Path

import pytest

import tilewright.emit
from tilewright.build.nvrtc import compile_cuda, header, library, missing
from tilewright.language.ir import MAPS
from tilewright.language.notes import NOTE_KEYS

pytestmark = pytest.mark.skipif(missing() is not None, reason="NVRTC is not installed")

LAYOUTS = [
    ("Spread<3, 4, 0, 5>", 32),
    ("Spread<1, 8, 2, 6>", 256),
    ("Spread<4, 1, 5, 2>", 128),
    ("AccRows<2, 4, 4>", 256),
    ("AccRows<8, 1, 1>", 256),
    ("AccCols<2, 4, 4>", 256),
    ("AccCols<4, 1, 32>", 128),
]


def holds(assertions: str, *headers: str, arch: str = "sm_80") -> None:
    """Compile `assertions` (namespace-scope C++) beside the headers."""
    includes = "".join(f'#include "tw/{h}.cuh"\n' for h in headers)
    source = f'{includes}using namespace tw;\n{assertions}\nextern "C" __global__ void k(int* p) {{ *p = 1; }}\n'
    compile_cuda(source, "k", arch)


@pytest.mark.parametrize(("layout", "threads"), LAYOUTS)
def test_every_position_is_held_and_by_as_many_threads_as_any_other(layout, threads):
    holds(
        f"""
        typedef {layout} L;
        constexpr int extent = L::N * (L::WARPS << L::BITS), copies = {threads} / (L::WARPS << L::BITS);
        constexpr bool even() {{
          int times[extent] = {{}};
          for (int t = 0; t < {threads}; ++t)
            for (int r = 0; r < L::N; ++r) ++times[L::base(t) + L::at(r)];
          for (int p = 0; p < extent; ++p) if (times[p] != copies) return false;
          return true;
        }}
        static_assert(even(), "a position is missing, or held too often");
        """,
        "layout",
    )


@pytest.mark.parametrize(("layout", "threads"), LAYOUTS)
def test_lanes_and_warps_that_hold_other_positions_differ_in_the_bits_that_the_layout_names(layout, threads):
    holds(
        f"""
        typedef {layout} L;
        constexpr bool same_digits(int t, int u) {{
          const int lane = ((t ^ u) & 31) >> L::LO & ((1 << L::BITS) - 1);
          return lane == 0 && t / 32 / L::WARP_STRIDE % L::WARPS == u / 32 / L::WARP_STRIDE % L::WARPS;
        }}
        constexpr bool agree() {{
          for (int t = 0; t < {threads}; ++t)
            for (int u = 0; u < {threads}; u += 37) if (same_digits(t, u) != (L::base(t) == L::base(u))) return false;
          return true;
        }}
        static_assert(agree(), "threads are told apart by other bits");
        """,
        "layout",
    )


def test_registers_of_accumulators_lie_as_the_matrix_units_want_them():
    holds(
        """
        struct m : AccRows<4, 1, 2> {}; struct n : AccCols<4, 1, 8> {};
        typedef Tile<float, m, n> D;
        constexpr bool ordered() {
          for (int f = 0; f < D::N; ++f) {
            const int e = f % 2, h = f / 2 % 2, nt = f / 4 % 8, mt = f / 32;
            if (along<D, m>(f) != 2 * mt + h || along<D, n>(f) != 2 * nt + e) return false;
          }
          return true;
        }
        static_assert(ordered(), "");
        """,
        "tile",
    )


def test_a_value_shows_the_same_element_whatever_tile_it_is_read_for():
    holds(
        """
        struct g : Spread<2, 1, 0, 0> {}; struct s : Spread<3, 2, 0, 2> {}; struct d : Spread<2, 4, 2, 3> {};
        typedef Tile<float, g, s, d> All; typedef Tile<float, s, d> Some;
        constexpr bool agrees() {
          for (int f = 0; f < All::N; ++f) {
            const int p = shown<All, s, d>(f);
            if (along<Some, s>(p) != along<All, s>(f) || along<Some, d>(p) != along<All, d>(f)) return false;
          }
          return true;
        }
        static_assert(agrees() && All::N == 2 * 6 * 8, "");
        """,
        "tile",
    )


PANELS = ["Panel<bf16, 128, 64>", "Panel<bf16, 64, 32>", "Panel<bf16, 64, 128>", "Panel<bf16, 64, 256>",
          "Panel<float, 128, 32>", "Panel<float, 32, 128>", "Panel<i8, 128, 128>", "Panel<bf16, 16, 16>"]  # fmt: skip

_PHASES = """
typedef %s P;
// Banks come in eight groups of 16 bytes. Eight lanes read at once, one chunk each.
constexpr bool free_of_conflicts(const int (&chunk)[8]) {
  int seen = 0;
  for (int n = 0; n < 8; ++n) seen |= 1 << chunk[n] %% 8;
  return seen == 255;
}
"""


@pytest.mark.parametrize("panel", PANELS)
def test_every_phase_of_ldmatrix_reads_eight_different_groups_of_banks(panel):
    """A phase: the same chunk of eight neighbouring rows that begin at a multiple of 8."""
    holds(
        _PHASES % panel
        + """
        constexpr bool all() {
          for (int row = 0; row < P::ROWS; row += 8) for (int c = 0; c < P::WIDTH; ++c) {
            int chunk[8] = {};
            for (int n = 0; n < 8; ++n) chunk[n] = P::place(row + n, c);
            if (!free_of_conflicts(chunk)) return false;
          }
          return true;
        }
        static_assert(all(), "two rows of a matrix lie in the same banks");
        """,
        "copy",
    )


@pytest.mark.parametrize("panel", PANELS)
def test_every_phase_of_the_copies_writes_eight_different_groups_of_banks(panel):
    """A phase: eight neighbouring threads, which copy neighbouring chunks."""
    holds(
        _PHASES % panel
        + """
        constexpr bool all() {
          for (int first = 0; first < P::ROWS * P::WIDTH; first += 8) {
            int chunk[8] = {};
            for (int n = 0; n < 8; ++n) chunk[n] = P::place((first + n) / P::WIDTH, (first + n) % P::WIDTH);
            if (!free_of_conflicts(chunk)) return false;
          }
          return true;
        }
        static_assert(all(), "two chunks lie in the same banks");
        """,
        "copy",
    )


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_keeps_every_chunk_once(panel):
    holds(
        _PHASES % panel
        + """
        constexpr bool all() {
          bool taken[P::ROWS * P::WIDTH] = {};
          for (int row = 0; row < P::ROWS; ++row) for (int c = 0; c < P::WIDTH; ++c) {
            const int at = P::place(row, c);
            if (at / P::WIDTH != row || taken[at]) return false;
            taken[at] = true;
          }
          return true;
        }
        static_assert(all(), "");
        """,
        "copy",
    )


# ------------------------------------------------------------------------------------------------ what is there
FUNCTION = re.compile(r"^(?:template <[^\n]*>\n)?__device__ [^;{}()\n]*?\b(\w+)\(", re.MULTILINE)
STRUCT = re.compile(r"^struct (?:alignas\(\d+\) )?(\w+)", re.MULTILINE)


def put_together():
    """Names that the emitter makes out of words of the IR."""
    words = {op.capitalize() for op in MAPS}
    words |= {f"Approx{word}" for word in words} | {f"{word}By" for word in words}
    orders = NOTE_KEYS["order"].values
    boxes = {f"{verb}_boxes{whom}" for verb in ("load", "store") for whom in ("", "_to_all")}
    boxes |= {f"{word}_apart" for word in ("meet", "pass")}
    return words | boxes | {f"{order}_order" for order in orders} | {"multiply_rows", "multiply_fragments"}


def test_every_primitive_is_used():
    """By the emitter, or by another primitive: nothing is kept for a time that may come."""
    texts = {name: header(f"tw/{name}.cuh") for name in library()}
    emitter = "\n".join(p.read_text("utf-8") for p in Path(tilewright.emit.__file__).parent.glob("cuda*.py"))
    defined = {n for text in texts.values() for n in (*FUNCTION.findall(text), *STRUCT.findall(text))}
    assert len(defined) > 100
    code = "\n".join(re.sub(r"//[^\n]*", "", text) for text in texts.values())
    times = {n: len(re.findall(rf"\b{n}\b", code)) for n in defined}
    called = {n for n in defined if re.search(rf"\b{n}\b", emitter)} | put_together()
    overloads = {n: len(re.findall(rf"^__device__ [^;{{}}()\n]*?\b{n}\(", code, re.MULTILINE)) for n in defined}
    assert {n for n in defined - called if times[n] <= max(1, overloads[n])} == set()


def test_every_header_says_what_it_is_for():
    for name in library():
        first = header(f"tw/{name}.cuh").splitlines()[0]
        assert first.startswith("// ") and len(first.split()) > 5, name
