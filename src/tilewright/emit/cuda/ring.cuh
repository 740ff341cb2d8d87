// Rings in shared memory: buffers of which several copies rotate, and the barriers by which those who fill a slot and those
// who read it wait for one another.
#pragma once
#include "tw/mbarrier.cuh"
#include "tw/tma.cuh"

namespace tw {

// SLOTS copies of a buffer, BYTES each.
template <int SLOTS, int BYTES> struct Ring {
  unsigned char* first;
  __device__ __forceinline__ unsigned char* operator[](const Slot<SLOTS>& slot) const { return first + slot.index * BYTES; }
};

// A barrier for each slot of a ring, completed by ARRIVALS.
template <int SLOTS, int ARRIVALS> struct Barriers {
  Barrier* first;
  __device__ __forceinline__ explicit Barriers(unsigned char* at) : first((Barrier*)at) {}
  __device__ __forceinline__ Barrier& operator[](const Slot<SLOTS>& slot) const { return first[slot.index]; }
  __device__ __forceinline__ void begin() const {
    for (int i = 0; i < SLOTS; ++i) first[i].init(ARRIVALS);
  }
  // Until a slot is full; and, for who fills it, until it is free: a fresh ring is free, so that its first turn passes at once.
  __device__ __forceinline__ void wait_full(const Slot<SLOTS>& slot) const { first[slot.index].wait(slot.phase); }
  __device__ __forceinline__ void wait_free(const Slot<SLOTS>& slot) const { first[slot.index].wait(slot.phase ^ 1); }
  // One arrival of a warp: it has read what lies in this slot, or lay in the one before it.
  __device__ __forceinline__ void arrive(const Slot<SLOTS>& slot, int lane) const {
    if (lane == 0) first[slot.index].arrive();
  }
  __device__ __forceinline__ void arrive_before(const Slot<SLOTS>& slot, int lane) const {
    if (lane == 0) first[slot.previous()].arrive();
  }
  // Whoever fills the ring stays until every slot is free: nobody leaves while others may still signal here.
  __device__ __forceinline__ void drain(Slot<SLOTS> slot) const {
    for (int i = 0; i < SLOTS; ++i, slot.next()) wait_free(slot);
  }
};

// What one thread of a warp does before anybody uses a barrier: the copy engine will ask for `maps`, and barriers begin.
template <int MAPS, class... BARRIERS> __device__ __forceinline__ void set_up(const CUtensorMap (&maps)[MAPS], const BARRIERS&... barriers) {
  if (elected()) {
#pragma unroll
    for (int n = 0; n < MAPS; ++n) prefetch(maps[n]);
    (barriers.begin(), ...);
    fence_barriers();
  }
  __syncwarp();
}

}  // namespace tw
