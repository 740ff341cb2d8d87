"""States handed from block to block (`tw/handed.cuh`), run here by threads that come when they like."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tilewright.build.nvrtc import header

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no g++")

_BEFORE = """
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>
#define __device__
typedef unsigned u32; typedef long long i64;
inline float __uint_as_float(u32 x) { float y; memcpy(&y, &x, 4); return y; }
inline u32 __float_as_uint(float x) { u32 y; memcpy(&y, &x, 4); return y; }
namespace tw {
template <int N> struct Row { typedef float type; float v[N]; };
template <class X> struct Element { typedef typename X::type type; };
template <int N> constexpr int count(const Row<N>*) { return N; }
template <int N> float& nth(Row<N>& x, int f) { return x.v[f]; }
inline void load(u32* to, const u32* from, int n) {
  for (int i = 0; i < n; ++i) to[i] = ((const std::atomic<u32>*)from)[i].load(std::memory_order_relaxed);
}
inline void store(u32* to, const u32* from, int n) {
  for (int i = 0; i < n; ++i) ((std::atomic<u32>*)to)[i].store(from[i], std::memory_order_relaxed);
}
}
"""
_AFTER = """
// `parts` blocks of THREADS threads: all but the last hand on three states, which that joins in order; again and again.
constexpr int THREADS = 5, N = 4 + WIDE;
float state(int launch, int part, int thread, int word) {
  const int n = launch * 7 + part * 3 + thread + word;
  if (n % 5 == 0) return n % 2 ? 0.0f : -0.0f;
  return n % 11 == 0 ? NAN : n * 0.5f;
}
int main() {
  for (int parts : {1, 2, 7, 16, 20}) {
    std::vector<u32> memory(parts * N * THREADS, 0);
    for (int launch = 0; launch < 20; ++launch) {
      std::vector<std::thread> all;
      std::atomic<int> wrong{0};
      for (int part = 0; part < parts; ++part) {
        for (int thread = 0; thread < THREADS; ++thread) {
          all.emplace_back([=, &memory, &wrong] {
            std::mt19937 random(launch * 1000 + part * 10 + thread);
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
            tw::Row<1> top; tw::Row<3> low; tw::Row<WIDE> sums;
            for (int f = 0; f < N; ++f) {
              (f < 1 ? top.v[f] : f < 4 ? low.v[f - 1] : sums.v[f - 4]) = state(launch, part, thread, f);
            }
            if (part + 1 < parts) {
              u32 w[N];
              tw::put<0>(w, top), tw::put<1>(w, low), tw::put<4>(w, sums);
              tw::hand(memory.data() + part * N * THREADS, w, thread, THREADS);
              return;
            }
            int next = 0;
            tw::take_handed<ROUND, N>(memory.data(), parts - 1, thread, THREADS, [&](const u32 (&w)[N]) {
              const auto a = tw::got<tw::Row<1>, 0>(w); const auto b = tw::got<tw::Row<3>, 1>(w);
              const auto c = tw::got<tw::Row<WIDE>, 4>(w);
              for (int f = 0; f < N; ++f) {
                const float got = f < 1 ? a.v[f] : f < 4 ? b.v[f - 1] : c.v[f - 4], x = state(launch, next, thread, f);
                if (!(got == x || (got != got && x != x))) ++wrong;
              }
              ++next;
            });
            if (next != parts - 1) ++wrong;
          });
        }
      }
      for (auto& one : all) one.join();
      for (u32 word : memory) if (word) ++wrong;
      if (wrong) return printf("%d parts, launch %d: %d wrong\\n", parts, launch, wrong.load()), 1;
    }
  }
  return 0;
}
"""


def on_a_cpu(text: str) -> str:
    """The header with memory accesses of C++ in place of its instructions."""
    text = re.sub(r"#pragma once|#include.*", "", text).replace("#pragma unroll", "// unroll")
    text, loads = re.subn(
        r'asm volatile\("ld\.relaxed\.gpu\.global(\.v\d)?\.u32[^:]*: "=r"\(([^)]*)\).*?"l"\((.*?)\) : "memory"\);',
        lambda m: f"load(&{m[2]}, {m[3]}, {(m[1] or '.v1')[2:]});", text,
    )  # fmt: skip
    text, stores = re.subn(
        r'asm volatile\("st\.relaxed\.gpu\.global(\.v\d)?\.u32[^:]*::"r"\((w\[[^)]*)\).*?"l"\((.*?)\) : "memory"\);',
        lambda m: f"store({m[3]}, &{m[2]}, {(m[1] or '.v1')[2:]});", text,
    )  # fmt: skip
    assert loads == stores == 3 and "asm" not in text
    return text


@pytest.mark.parametrize(("wide", "round_"), [(1, 8), (2, 4), (3, 16), (4, 1)])
def test_every_word_comes_once_in_order_and_memory_is_zero_again(wide, round_, tmp_path):
    chosen = f"constexpr int WIDE = {wide}, ROUND = {round_};\n"
    program = f"{_BEFORE}{on_a_cpu(header('tw/handed.cuh'))}{chosen}{_AFTER}"
    source = tmp_path / "handed.cpp"
    source.write_text(program, "utf-8")
    command = [str(COMPILER), "-std=c++17", "-O1", "-w", "-pthread", "-include", "cmath", "-o", str(tmp_path / "run")]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ran = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout
