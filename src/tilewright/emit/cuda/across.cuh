// What the blocks of a cluster tell one another: that slots of rings which they share are free, and that parts of a sum came.
#pragma once
#include "tw/cluster.cuh"
#include "tw/ring.cuh"
#include "tw/tile.cuh"

namespace tw {

// Threads of a block meet, or come by; and the cluster is told that this block has begun, for which nobody waits yet.
__device__ __forceinline__ void meet_apart(int id, int threads) { cluster_arrive(), meet(id, threads); }
__device__ __forceinline__ void pass_apart(int id, int threads) { cluster_arrive(), pass(id, threads); }

// The barriers of a ring in all BLOCKS of a cluster: each of the first lanes of a warp arrives at those of one block.
template <int BLOCKS> struct Everywhere {
  unsigned there;
  template <int SLOTS, int ARRIVALS> __device__ __forceinline__ Everywhere(const Barriers<SLOTS, ARRIVALS>& mine, int lane) {
    there = peer_address(mine.first, lane % BLOCKS);
  }
  template <int SLOTS> __device__ __forceinline__ void arrive(const Slot<SLOTS>& slot, int lane) const {
    if (lane < BLOCKS) arrive_there(there + 8 * slot.index);
  }
  template <int SLOTS> __device__ __forceinline__ void arrive_before(const Slot<SLOTS>& slot, int lane) const {
    if (lane < BLOCKS) arrive_there(there + 8 * slot.previous());
  }
};

// The barrier at which BYTES of parts arrive from other blocks, in each of the first SHARES blocks; this is number `rank`.
template <int SHARES, int BYTES> struct Arrivals {
  Barrier* barrier;
  unsigned rank;
  __device__ __forceinline__ Arrivals(unsigned char* at, unsigned mine) : barrier((Barrier*)at), rank(mine) {}
  __device__ __forceinline__ void begin() const {
    barrier->init(1);
    if (rank < SHARES) barrier->expect(BYTES);
  }
  __device__ __forceinline__ void wait() const { barrier->wait(0); }
  // A tile to `part`, a share of its columns to each block that ends one.
  template <class TILE> __device__ __forceinline__ void give(float* part, const TILE& x) const {
    tw::give<SHARES>(part, barrier, x.v, rank, threadIdx.x % 128, 128);
  }
};

// A tile to a part in memory that all blocks see; from a part there, or in this block's shared memory; and, where parts are
// added up in memory, to their sum, and from it.
template <class TILE> __device__ __forceinline__ void give_part(float* part, const TILE& x) { give(part, x.v, threadIdx.x % 128, 128); }
template <class TILE, bool SHARED> __device__ __forceinline__ TILE take_part(const float* part) {
  TILE x;
  take<SHARED>(x.v, part, threadIdx.x % 128, 128);
  return x;
}
template <class TILE> __device__ __forceinline__ void add_part(float* sum, const TILE& x) { add_to(sum, x.v, threadIdx.x % 128, 128); }
template <class TILE> __device__ __forceinline__ TILE take_sum(float* sum) {
  TILE x;
  take_out(x.v, sum, threadIdx.x % 128, 128);
  return x;
}

}  // namespace tw
