// Sums, maxima and minima joined over the blocks of a cluster: each block sends its part to all, and joins them itself.
#pragma once
#include "tw/cluster.cuh"
#include "tw/reduce.cuh"

namespace tw {

// The bits of a thread's number that tell its elements from others'; threads that differ in other bits hold copies.
template <class T> __device__ constexpr int holders(const T*) { return 0; }
template <class T, class... A> __device__ constexpr int holders(const Tile<T, A...>*) {
  return (0 | ... | (((1 << A::BITS) - 1) << A::LO | (A::WARPS - 1) * A::WARP_STRIDE << 5));
}

template <class T> __device__ inline void send(T* mine, unsigned rank, T value) {
  const unsigned there = peer_address(mine, rank);
  if constexpr (sizeof(T) == 8) asm volatile("st.shared::cluster.b64 [%0], %1;" ::"r"(there), "l"(*(i64*)&value) : "memory");
  else asm volatile("st.shared::cluster.b32 [%0], %1;" ::"r"(there), "r"(*(u32*)&value) : "memory");
}

// x = op over the blocks of a cluster, in their order: all get the same bits. `turn` counts such joins. Two sets of slots
// take turns: nobody is more than one join ahead, since each waits for all. The kernel arrives once before the first,
// so that nothing is sent to a block that has not begun.
template <int BLOCKS, class OP, class X, class TEAM> __device__ void join_blocks(OP op, X& x, TEAM team, int& turn) {
  typedef typename Element<X>::type T;
  constexpr int N = count((X*)nullptr), MASK = holders((X*)nullptr), ROUND = N < 8 ? N : 8;
  __shared__ T slots[2][ROUND][BLOCKS][MASK + 1];
  const unsigned mine = cluster_rank();
  const int holder = team.thread & MASK;
#pragma unroll
  for (int from = 0; from < N; from += ROUND) {
    auto& round = slots[turn & 1];
    if (turn++ == 0) cluster_wait();
    if (team.thread == holder) {
#pragma unroll
      for (int f = 0; f < ROUND; ++f) {
#pragma unroll
        for (int b = 0; b < BLOCKS; ++b) {
          if (from + f < N) send(&round[f][mine][holder], b, nth(x, from + f));
        }
      }
    }
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#pragma unroll
    for (int f = 0; f < ROUND; ++f) {
      if (from + f >= N) continue;
      T sum = round[f][0][holder];
#pragma unroll
      for (int b = 1; b < BLOCKS; ++b) sum = op(sum, round[f][b][holder]);
      nth(x, from + f) = sum;
    }
  }
}

}  // namespace tw
