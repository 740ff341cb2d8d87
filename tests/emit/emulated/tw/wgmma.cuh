// The matrix unit, emulated: products are computed when they are waited for, from what then lies in their operands.
#pragma once
#include "tw/tma.cuh"
#include "tw/types.cuh"

namespace tw {

struct Issued {
  std::vector<std::function<void()>> open;
  std::deque<std::vector<std::function<void()>>> groups;
};
inline Issued issued[1024];
inline const unsigned* operands[1024][4096];  // in registers: by thread, and number of the product
inline int numbers[1024];

inline void wgmma_fence() {}
inline void wgmma_commit() {
  issued[threadIdx.x].groups.push_back(issued[threadIdx.x].open);
  issued[threadIdx.x].open.clear();
}
template <int GROUPS> void wgmma_wait() {
  auto& groups = issued[threadIdx.x].groups;
  emulated::meet_warp();
  for (; (int)groups.size() > GROUPS; groups.pop_front()) {
    for (auto& product : groups.front()) product();
  }
  emulated::meet_warp();
}
template <class TILE, class D, int N> TILE piece(const D (&d)[N], int n) {
  TILE y;
  for (int f = 0; f < TILE::N; ++f) y.v[f] = d[n * TILE::N + f];
  return y;
}
template <int N> void hold(float (&)[N]) {}
template <int N> void hold(u32 (&)[N]) {}

inline const unsigned short& element(const unsigned char* tile, int rows, int row, int along) {
  return *place(tile + along / 64 * rows * 128, row, along % 64, 128);
}
template <int ROWS> struct SumInRows {
  const unsigned char* tile;
  SumInRows(const void* p) : tile((const unsigned char*)p) {
    if (shared_address(p) % 1024) emulated::fail("an operand is not aligned");
  }
  unsigned short at(int row, int k) const { return element(tile, ROWS, row, k); }
};
template <int ROWS> struct SumDownRows {
  const unsigned char* tile;
  SumDownRows(const void* p) : tile((const unsigned char*)p) {
    if (shared_address(p) % 1024) emulated::fail("an operand is not aligned");
  }
  unsigned short at(int column, int k) const { return element(tile, ROWS, k, column); }
};
template <class T> float value(unsigned short bits) {
  T x;
  x.bits = bits;
  return widen(x);
}

// d = a b + (keep ? d : 0) of this thread's elements; `a(row, k)` gives bits.
template <class T, int N, class A, class B> void sum(float* d, const A& a, const B& b, int depth, bool keep) {
  const int thread = threadIdx.x % 128, lane = thread % 32;
  for (int f = 0; f < N / 2; ++f) {
    const int half = f / 2 % 2, row = thread / 32 * 16 + lane / 4 + 8 * half, column = f / 4 * 8 + lane % 4 * 2 + f % 2;
    float total = keep ? d[f] : 0.0f;
    for (int k = 0; k < depth; ++k) total += value<T>(a(row, k)) * value<T>(b.at(column, k));
    d[f] = total;
  }
}
template <class T, int N, int STEPS, int ROWS, class B>
void multiply(float (&d)[N / 2], const SumInRows<ROWS>& a, const B& b, bool keep) {
  float* const into = d;
  issued[threadIdx.x].open.push_back(
      [=] { sum<T, N>(into, [=](int row, int k) { return a.at(row, k); }, b, 16 * STEPS, keep); });
}
// The first operand lies in the registers of a quad: 16 columns in pairs, c and c + 4 in the place c of the quad.
template <class T, int N, int STEPS, class A, class B>
void multiply_registers(float (&d)[N / 2], const A& a, const B& b, bool keep) {
  const int quad = threadIdx.x / 4 * 4, number = numbers[threadIdx.x]++ % 4096;
  operands[threadIdx.x][number] = a.v;
  float* const into = d;
  const auto bits = [=](int row, int k) {
    const unsigned pair = operands[quad + k % 8 / 2][number][k / 16 * 4 + k % 16 / 8 * 2 + row % 16 / 8];
    return (unsigned short)(k % 2 ? pair >> 16 : pair);
  };
  issued[threadIdx.x].open.push_back([=] { sum<T, N>(into, bits, b, 16 * STEPS, keep); });
}

}  // namespace tw
