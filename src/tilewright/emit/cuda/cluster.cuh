// Clusters: blocks that run together and see one another's shared memory.
#pragma once
#include "tw/mbarrier.cuh"

namespace tw {

__device__ inline unsigned cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of a cluster meet. Nothing but barriers changes hands, and those have a fence of their own: see fence_barriers.
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait;" ::: "memory"); }
__device__ inline void cluster_meet() { cluster_arrive(), cluster_wait(); }

// Where `mine` lies in the shared memory of another block.
__device__ inline unsigned peer_address(const void* mine, unsigned rank) {
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(mine)), "r"(rank));
  return there;
}

// One arrival at a barrier of another block. What was read before it needs no fence: the matrix unit is done with it.
__device__ inline void arrive_there(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// ---------------------------------------------------------------------------------------- parts of a sum
// A part lies register by register, four at a time (two at the end), threads side by side.

// This thread's registers `v`, one share of neighbouring ones to each of the first SHARES blocks of the cluster, where it
// lies at `part`; each one's `barrier` counts the bytes. What this block, number `mine`, keeps is written as it stands: the
// thread that reads it there is the one that wrote it.
template <int SHARES, int N>
__device__ inline void give(float* part, Barrier* barrier, const float (&v)[N], unsigned mine, int thread, int threads) {
  constexpr int EACH = N / SHARES / 4;
#pragma unroll
  for (unsigned rank = 0; rank < SHARES; ++rank) {
    const unsigned there = peer_address(part, rank), counted = peer_address(barrier, rank);
    if (rank == mine) {
#pragma unroll
      for (int i = 0; i < EACH; ++i) {
        const int r = 4 * (rank * EACH + i);
        ((float4*)part)[i * threads + thread] = make_float4(v[r], v[r + 1], v[r + 2], v[r + 3]);
      }
      continue;
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
      const int r = 4 * (rank * EACH + i);
      asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                       there + 16 * (i * threads + thread)),
                   "f"(v[r]), "f"(v[r + 1]), "f"(v[r + 2]), "f"(v[r + 3]), "r"(counted)
                   : "memory");
    }
  }
}
// The same to memory that all blocks see.
template <int N>
__device__ inline void give(float* part, const float (&v)[N], int thread, int threads) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    __stcg((float4*)part + i * threads + thread, make_float4(v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]));
  }
}
// The same added to what lies there, whoever comes first.
template <int N>
__device__ inline void add_to(float* sum, const float (&v)[N], int thread, int threads) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"((float4*)sum + i * threads + thread), "f"(v[4 * i]),
                 "f"(v[4 * i + 1]), "f"(v[4 * i + 2]), "f"(v[4 * i + 3])
                 : "memory");
  }
}
// Registers from such a sum, which is 0 again afterwards.
template <int N>
__device__ inline void take_out(float (&v)[N], float* sum, int thread, int threads) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    float4* from = (float4*)sum + i * threads + thread;
    const float4 x = __ldcg(from);
    __stcg(from, make_float4(0.0f, 0.0f, 0.0f, 0.0f));
    v[4 * i] = x.x, v[4 * i + 1] = x.y, v[4 * i + 2] = x.z, v[4 * i + 3] = x.w;
  }
}
// Registers from a part: in this block's shared memory, or in memory that all blocks see.
template <bool SHARED, int N>
__device__ inline void take(float (&v)[N], const float* part, int thread, int threads) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    const float4* from = (const float4*)part + i * threads + thread;
    const float4 x = SHARED ? *from : __ldcg(from);
    v[4 * i] = x.x, v[4 * i + 1] = x.y, v[4 * i + 2] = x.z, v[4 * i + 3] = x.w;
  }
}

// Whether this block is the last of `parts` to come here; what the others wrote before they came can be read then. All
// `threads` meet twice at barrier `id`; `flag` is a word of shared memory. The ticket is left at 0.
__device__ inline bool last_to_come(unsigned* ticket, unsigned parts, unsigned* flag, int id, int threads) {
  meet(id, threads);
  if (threadIdx.x == 0) {
    unsigned before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(ticket) : "memory");
    if (before == parts - 1) *ticket = 0;
    *flag = before;
  }
  meet(id, threads);
  return *flag == parts - 1;
}

}  // namespace tw
