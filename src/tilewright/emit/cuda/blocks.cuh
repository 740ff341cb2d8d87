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
__device__ constexpr int subsets(int bits) { return bits == 0 ? 1 : (1 + (bits & 1)) * subsets(bits >> 1); }

// Where the blocks of a cluster meet, in shared memory. Two barriers and two sets of slots take turns: nobody is more than
// one join ahead of another, since each waits for the parts of all. Barriers count the bytes of parts as they come, which
// needs no fence: a release by the barrier of the cluster would flush to all of the GPU.
struct Meeting {
  Barrier full[2];
  __device__ void begin() {
    if (threadIdx.x == 0) {
      full[0].init(1), full[1].init(1);
      asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    cluster_arrive();
  }
};

template <class T> __device__ inline void send(T* mine, Barrier* counted, unsigned rank, T value) {
  const unsigned there = peer_address(mine, rank), barrier = peer_address(counted, rank);
  if constexpr (sizeof(T) == 8) asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b64 [%0], %1, [%2];" ::"r"(there), "l"(*(i64*)&value), "r"(barrier) : "memory");
  else asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(there), "r"(*(u32*)&value), "r"(barrier) : "memory");
}

// x = op over the blocks of a cluster, in their order: all get the same bits. `turn` counts such joins; before the first
// a block waits until all have begun.
template <int BLOCKS, class OP, class X, class TEAM>
__device__ void join_blocks(OP op, X& x, TEAM team, Meeting& meeting, int& turn) {
  typedef typename Element<X>::type T;
  constexpr int N = count((X*)nullptr), MASK = holders((X*)nullptr), ROUND = N < 8 ? N : 8;
  __shared__ T slots[2][ROUND][BLOCKS][MASK + 1];
  const unsigned mine = cluster_rank();
  const int holder = team.thread & MASK;
#pragma unroll
  for (int from = 0; from < N; from += ROUND) {
    auto& round = slots[turn & 1];
    Barrier& full = meeting.full[turn & 1];
    if (turn == 0) cluster_wait();
    else team.sync();  // all have read the parts of the join before, so that others may go on to the one after
    const int parts = N - from < ROUND ? N - from : ROUND;
    if (team.thread == 0) full.expect(parts * BLOCKS * subsets(MASK) * (int)sizeof(T));
    if (team.thread == holder) {
#pragma unroll
      for (int f = 0; f < ROUND; ++f) {
#pragma unroll
        for (int b = 0; b < BLOCKS; ++b) {
          if (from + f < N) send(&round[f][mine][holder], &full, b, nth(x, from + f));
        }
      }
    }
    full.wait(turn >> 1 & 1);
    ++turn;
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
