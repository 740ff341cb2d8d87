"""Loads of the CUDA tile library, run on this machine thread by thread: what they read lies in the tensor, to the byte.

The headers are compiled by g++ with every read recorded; inline PTX (conversions, copies by the engine) is taken out.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tilewright.build.nvrtc import header

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

SHIMS = r"""
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>
#define __device__
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline unsigned __funnelshift_r(unsigned low, unsigned high, int by) {
  return unsigned((uint64_t(high) << 32 | low) >> (by & 31));
}
template <class A, class B> A bits_of(B b) { A a; memcpy(&a, &b, sizeof a); return a; }
inline float __uint_as_float(unsigned x) { return bits_of<float>(x); }
inline unsigned __float_as_uint(float x) { return bits_of<unsigned>(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline unsigned __cvta_generic_to_shared(const void*) { return 0; }
inline void __syncwarp() {}
static uintptr_t low, high;
static long reads, outside;
template <class W> W __ldg(const W* p) {
  const uintptr_t at = uintptr_t(p);
  ++reads;
  outside += at < low || at + sizeof(W) > high || at % sizeof(W);
  return *p;
}
template <class W> W __ldcs(const W* p) { return __ldg(p); }
template <class W> W __ldcg(const W* p) { return __ldg(p); }
template <class W> void __stcs(W* p, W w) { *p = w; }
template <class W> void __stcg(W* p, W w) { *p = w; }
"""

HARNESS = r"""
using namespace tw;
typedef unsigned short T2;
struct axis_r : Spread<2, 1, 5, 1> {};   // 4 rows: two to each of two warps
struct axis_c : Spread<2, 8, 0, 5> {};   // 512 columns: 16 to each of 32 lanes
typedef Tile<bf16, axis_r, axis_c> TILE;
static long wrong;

static unsigned short value(int row, int col) { return (unsigned short)(1 + row * 1009 + col); }

// A tensor of rows x cols elements, `stride` apart, `off` elements behind a multiple of 16 bytes.
struct Tensor {
  std::vector<uint4> memory;
  int rows, cols, stride;
  bf16* at;
  Tensor(int rows, int cols, int stride, int off)
      : memory(rows * stride / 8 + 96), rows(rows), cols(cols), stride(stride) {
    memset(memory.data(), 0xee, memory.size() * 16);
    at = (bf16*)&memory[32] + off;
    for (int r = 0; r < rows; ++r) for (int c = 0; c < cols; ++c) at[r * stride + c].bits = value(r, c);
    low = uintptr_t(at), high = uintptr_t(at + (rows - 1) * stride + cols);
  }
  unsigned short want(int r, int c) const { return r < rows && c < cols ? value(r, c) : 0; }
};

template <int EDGE, Cache C, bool KNOWN> void loads(const Tensor& x) {
  const Extent extent = Extent().along(x.rows, x.stride).along(x.cols, 1);
  for (int r0 = 0; r0 < x.rows; r0 += 4) for (int c0 = 0; c0 < x.cols; c0 += 512) for (int t = 0; t < 64; ++t) {
    const Team<64> team{t};
    const Part<axis_r, 1> r(r0, x.rows, team);
    const Part<axis_c, EDGE> c(c0, x.cols, team);
    TILE y;
    const bf16* from = x.at;
    if constexpr (KNOWN) y = load<TILE, 8, C>(ends(from, extent), from, by(r, (i64)x.stride), by(c, unit));
    else y = load<TILE, 8, C>(Unknown{}, from, by(r, (i64)x.stride), by(c, unit));
    for (int f = 0; f < TILE::N; ++f)
      wrong += y.v[f].bits != x.want(r.at(along<TILE, axis_r>(f)), c.at(along<TILE, axis_c>(f)));
  }
}

template <int ALIGN> void fetches(const Tensor& x) {
  typedef Panel<bf16, 16, 64> P;
  const bf16* from = x.at;
  const Ends<bf16> e = ends(from, Extent().along(x.rows, x.stride).along(x.cols, 1));
  for (int r0 = 0; r0 < x.rows; r0 += 16) for (int c0 = 0; c0 < x.cols + 64; c0 += 64) {
    P panel;
    for (int t = 0; t < 64; ++t) {
      const Team<64> team{t};
      const Source<bf16> source{from + r0 * x.stride + c0, x.stride, x.rows - r0, x.cols - c0};
      put(panel, fetch<P, ALIGN>(e, source, team), team);
    }
    for (int r = 0; r < 16; ++r) for (int c = 0; c < 64; ++c) wrong += panel.at(r, c)->bits != x.want(r0 + r, c0 + c);
  }
}

int main() {
  for (int rows : {1, 2, 3, 5, 21}) for (int cols : {1, 2, 7, 8, 9, 63, 64, 65, 430, 511, 513, 1001})
    for (int pad : {0, 1, 3, 8}) for (int off = 0; off < 8; ++off) {
      const Tensor odd(rows, cols, cols + pad, off);
      loads<1, UNALIGNED, true>(odd);
      fetches<2>(odd);
      const Tensor even(rows, cols, (cols + 7) / 8 * 8 + pad / 8 * 8, 0);
      fetches<16>(even);
      loads<1, READ_ONLY, true>(even);
      loads<1, STREAM, true>(even);
      loads<1, L2_ONLY, false>(even);
      loads<1, READ_ONLY, false>(even);
    }
  printf("%ld %ld %ld\n", reads, outside, wrong);
}
"""


def host(name: str) -> str:
    """A header of the tile library without inline PTX and without includes."""
    text = re.sub(r"\basm(?: volatile)?\(.*?\);", ";", header(f"tw/{name}.cuh"), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith(("#pragma once", "#include")))


def run(folder, old: str = "", new: str = "") -> tuple[int, ...]:
    """(reads, those outside of the tensor, elements that are not the tensor's), with `old` in the library as `new`."""
    library = "".join(host(name) for name in ("layout", "types", "tile", "global", "copy"))
    plain = "else w = *(const W*)p;"
    assert plain in library and old in library
    library = library.replace(plain, "else w = __ldg((const W*)p);").replace(old or plain, new or plain)
    (folder / "reach.cpp").write_text(SHIMS + library + HARNESS)
    command = ["g++", "-std=c++17", "-O1", "-w", "-fno-strict-aliasing", "reach.cpp", "-o", "reach"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    told = subprocess.run([folder / "reach"], check=True, capture_output=True, text=True).stdout
    return tuple(map(int, told.split()))


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    return run(tmp_path_factory.mktemp("reach"))


def test_every_read_lies_in_the_tensor_and_is_aligned_to_its_width(counted):
    reads, outside, _ = counted
    assert reads > 10_000
    assert outside == 0


def test_every_element_is_what_the_tensor_holds_and_0_past_its_edges(counted):
    assert counted[2] == 0


SLIPS = {
    "chunks that stick out are read whole": ("return !(below(chunk) | above(chunk));", "return true;"),
    "chunks that the end of a row cuts are read whole": ("s.cols - deal.col >= P::CHUNK ||", "true ||"),
    "words that an edge cuts are read whole": ("if (in(CUT ? W - 1 : 0))", "if (in(0))"),
}


@pytest.mark.parametrize(("old", "new"), SLIPS.values(), ids=SLIPS)
def test_a_read_past_the_tensor_is_seen(tmp_path, old, new):
    assert run(tmp_path, old, new)[1] > 0
