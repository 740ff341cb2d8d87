// States of blocks that share a tile, handed to the last of these blocks through memory. Words tell by themselves whether
// they are there: memory is 0 before, and a state of 0 is handed as -0. So nobody counts arrivals, and one trip is enough.
// Blocks start in the order of their numbers, and the last one of a tile waits for those before it only.
#pragma once
#include "tw/reduce.cuh"

namespace tw {

template <class X> constexpr int words = count((X*)nullptr);

// This thread's words of a state, from word AT on.
template <int AT, int N, class X> __device__ inline void put(u32 (&w)[N], X& x) {
  static_assert(sizeof(typename Element<X>::type) == 4, "states of 32 bits are handed on");
#pragma unroll
  for (int f = 0; f < words<X>; ++f) w[AT + f] = __float_as_uint(nth(x, f));
}
template <class X, int AT, int N> __device__ inline X got(const u32 (&w)[N]) {
  X x;
#pragma unroll
  for (int f = 0; f < words<X>; ++f) nth(x, f) = __uint_as_float(w[AT + f]);
  return x;
}

// A slot has the words of all threads: fours of them, then a pair, then one, threads side by side.
template <int N> __device__ inline void look(u32 (&w)[N], const u32* slot, int thread, int threads) {
#pragma unroll
  for (int i = 0; i + 4 <= N; i += 4) {
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(w[i]), "=r"(w[i + 1]), "=r"(w[i + 2]), "=r"(w[i + 3]) : "l"(slot + i * threads + 4 * thread) : "memory");
  }
  if constexpr (N % 4 >= 2) {
    constexpr int I = N / 4 * 4;
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(w[I]), "=r"(w[I + 1]) : "l"(slot + I * threads + 2 * thread) : "memory");
  }
  if constexpr (N % 2) asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(w[N - 1]) : "l"(slot + (N - 1) * threads + thread) : "memory");
}
template <int N> __device__ inline void leave(u32* slot, const u32 (&w)[N], int thread, int threads) {
#pragma unroll
  for (int i = 0; i + 4 <= N; i += 4) {
    asm volatile("st.relaxed.gpu.global.v4.u32 [%4], {%0, %1, %2, %3};" ::"r"(w[i]), "r"(w[i + 1]), "r"(w[i + 2]), "r"(w[i + 3]), "l"(slot + i * threads + 4 * thread) : "memory");
  }
  if constexpr (N % 4 >= 2) {
    constexpr int I = N / 4 * 4;
    asm volatile("st.relaxed.gpu.global.v2.u32 [%2], {%0, %1};" ::"r"(w[I]), "r"(w[I + 1]), "l"(slot + I * threads + 2 * thread) : "memory");
  }
  if constexpr (N % 2) asm volatile("st.relaxed.gpu.global.u32 [%1], %0;" ::"r"(w[N - 1]), "l"(slot + (N - 1) * threads + thread) : "memory");
}

template <int N> __device__ inline void hand(u32* slot, u32 (&w)[N], int thread, int threads) {
#pragma unroll
  for (int i = 0; i < N; ++i) w[i] = w[i] == 0 ? 0x80000000u : w[i];
  leave(slot, w, thread, threads);
}

// `join` takes the words of each of the parts, in their order, ROUND of which are asked for at once. They are 0 again
// afterwards.
template <int ROUND, int N, class JOIN>
__device__ inline void take_handed(u32* slots, int parts, int thread, int threads, JOIN join) {
#pragma unroll 1
  for (int from = 0; from < parts; from += ROUND) {
    u32 w[ROUND][N];
#pragma unroll
    for (int r = 0; r < ROUND; ++r) {
      if (from + r < parts) look(w[r], slots + (i64)(from + r) * (N * threads), thread, threads);
    }
#pragma unroll
    for (int r = 0; r < ROUND; ++r) {
      if (from + r >= parts) break;
      u32* slot = slots + (i64)(from + r) * (N * threads);
      for (;;) {
        bool there = true;
#pragma unroll
        for (int i = 0; i < N; ++i) there = there && w[r][i] != 0;
        if (there) break;
        look(w[r], slot, thread, threads);
      }
      const u32 nothing[N] = {};
      leave(slot, nothing, thread, threads);
      join(w[r]);
    }
  }
}

}  // namespace tw
