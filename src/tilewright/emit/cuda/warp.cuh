// Products of tiles in registers by mma.sync: nothing passes through shared memory.
//
// Rows of the result are told apart by bits 2 to 4 of the lane (and by a register: 16 of them), its columns by bits 0 and 1
// and pairs of registers; the first operand has its rows so and the sum along bits 0 and 1, four registers a step. Columns
// of the second operand lie along bits 2 to 4: they are dealt otherwise than those of the result, as another axis.
//
// `multiply_across` has operands change places: the result's first axes (8 points) lie along the columns of mma, and its last
// along the rows.
#pragma once
#include "tw/mma.cuh"
#include "tw/reduce.cuh"

namespace tw {

// Number of register f of a tile among the points of its axes other than X.
template <class X, class T, class... A> __device__ constexpr int beside(const Tile<T, A...>*, int f) {
  typedef Tile<T, A...> TILE;
  int n = 0;
  ((n = same<A, X> ? n : n * A::N + index_of<A, A...>(f / TILE::INNER, f % TILE::INNER)), ...);
  return n;
}

template <class T> __device__ inline u32 paired(T low, T high) { return (u32)low.bits | (u32)high.bits << 16; }

// y += a b over the axis of `part`; C: columns of y, M: the same columns as b has them.
template <class C, class M, class Y, class A, class B, class K, int EDGE>
__device__ void multiply(Y& y, const A& a, const B& b, const Part<K, EDGE>& part) {
  typedef typename A::type T;
  constexpr int ROWS = Y::N / C::N, HALF = C::RUN / 2, STEPS = K::N / 4;
  u32 x[(ROWS + 1) / 2][STEPS][4], z[M::N][STEPS][2];
  float d[(ROWS + 1) / 2][M::N][4];
#pragma unroll
  for (int f = 0; f < A::N; ++f) {
    const int k = along<A, K>(f), row = beside<K>((const A*)nullptr, f);
    if (k % 2) continue;
    T pair[2] = {a.v[f], a.v[f + pitch_in<K>((const A*)nullptr)]};
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      if (EDGE != 0 && !part.in(k + n)) pair[n].bits = 0;
    }
    x[row / 2][k / 4][k / 2 % 2 * 2 + row % 2] = paired(pair[0], pair[1]);
    if (ROWS == 1) x[0][k / 4][k / 2 % 2 * 2 + 1] = 0;
  }
#pragma unroll
  for (int f = 0; f < B::N; ++f) {
    const int k = along<B, K>(f);
    if (k % 2 == 0) z[along<B, M>(f)][k / 4][k / 2 % 2] = paired(b.v[f], b.v[f + pitch_in<K>((const B*)nullptr)]);
  }
#pragma unroll
  for (int f = 0; f < Y::N; ++f) {
    const int c = along<Y, C>(f), row = beside<C>((const Y*)nullptr, f);
    d[row / 2][c / C::RUN * HALF + c % HALF][row % 2 * 2 + c / HALF % 2] = y.v[f];
    if (ROWS == 1) d[0][c / C::RUN * HALF + c % HALF][2 + c / HALF % 2] = 0;
  }
#pragma unroll
  for (int k = 0; k < STEPS; ++k) {
#pragma unroll
    for (int r = 0; r < (ROWS + 1) / 2; ++r) {
#pragma unroll
      for (int n = 0; n < M::N; ++n) mma<T, float>(d[r][n], x[r][k], z[n][k][0], z[n][k][1]);
    }
  }
#pragma unroll
  for (int f = 0; f < Y::N; ++f) {
    const int c = along<Y, C>(f), row = beside<C>((const Y*)nullptr, f);
    y.v[f] = d[row / 2][c / C::RUN * HALF + c % HALF][row % 2 * 2 + c / HALF % 2];
  }
}

// A matrix of 8 x 8 elements of 16 bits, two neighbours of a row in each lane, turned over (PTX ISA, movmatrix).
__device__ inline u32 turned(u32 x) {
  u32 y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// y += a b over the axis of `part`; C: the axis of y that b has too; D: the axis of the sum as b has it. LOADED: a has one
// point of its other axes in each lane (bits 2 to 4), the sum along bits 0 and 1; else a is dealt as y is, and turned over.
template <class C, class D, bool LOADED, class Y, class A, class B, class K, int EDGE>
__device__ void multiply_across(Y& y, const A& a, const B& b, const Part<K, EDGE>& part) {
  typedef typename A::type T;
  constexpr int STEPS = D::N / 4, ROWS = C::N / 2;
  static_assert(C::N % 2 == 0 && D::N % 4 == 0 && Y::N == 2 * C::N, "whole fragments of 16 x 8, 16 of the sum");
  u32 x[ROWS][STEPS][4], z[STEPS][2];
  float d[ROWS][4];
#pragma unroll
  for (int f = 0; f < B::N; ++f) {
    const int k = along<B, D>(f), row = along<B, C>(f);
    if (k % 2 == 0) x[row / 2][k / 4][k / 2 % 2 * 2 + row % 2] = paired(b.v[f], b.v[f + pitch_in<D>((const B*)nullptr)]);
  }
  if constexpr (LOADED) {
#pragma unroll
    for (int f = 0; f < A::N; ++f) {
      const int k = along<A, K>(f);
      if (k % 2) continue;
      T pair[2] = {a.v[f], a.v[f + pitch_in<K>((const A*)nullptr)]};
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        if (EDGE != 0 && !part.in(k + n)) pair[n].bits = 0;
      }
      z[k / 4][k / 2 % 2] = paired(pair[0], pair[1]);
    }
  } else {
    T rows[K::N][2];
#pragma unroll
    for (int f = 0; f < A::N; ++f) {
      const int k = along<A, K>(f);
      rows[k][beside<K>((const A*)nullptr, f)] = a.v[f];
      if (EDGE != 0 && !part.in(k)) rows[k][beside<K>((const A*)nullptr, f)].bits = 0;
    }
#pragma unroll
    for (int k = 0; k < K::N; ++k) z[k / 2][k % 2] = turned(paired(rows[k][0], rows[k][1]));
  }
#pragma unroll
  for (int f = 0; f < Y::N; ++f) {
    const int c = along<Y, C>(f);
    d[c / 2][c % 2 * 2 + beside<C>((const Y*)nullptr, f)] = y.v[f];
  }
#pragma unroll
  for (int k = 0; k < STEPS; ++k) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) mma<T, float>(d[r], x[r][k], z[k][0], z[k][1]);
  }
#pragma unroll
  for (int f = 0; f < Y::N; ++f) {
    const int c = along<Y, C>(f);
    y.v[f] = d[c / 2][c % 2 * 2 + beside<C>((const Y*)nullptr, f)];
  }
}

}  // namespace tw
