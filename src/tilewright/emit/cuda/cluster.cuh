// Clusters: blocks that run together and see one another's shared memory.
#pragma once
#include "tw/mbarrier.cuh"

namespace tw {

__device__ inline unsigned cluster_rank() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
__device__ inline void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
__device__ inline void cluster_meet() { cluster_arrive(), cluster_wait(); }

// Four floats at the same place in the shared memory of another block.
__device__ inline float4 peer4(const float4* mine, unsigned rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %4, %5;\nld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there];\n}"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(shared_address(mine)), "r"(rank)
      : "memory");
  return v;
}

}  // namespace tw
