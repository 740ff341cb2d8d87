// The copy engine (TMA): boxes of a tensor to shared memory and back, described by tensor maps.
#pragma once
#include "tw/mbarrier.cuh"

#ifndef TW_TENSOR_MAP
#define TW_TENSOR_MAP
struct alignas(128) CUtensorMap {
  unsigned long long opaque[16];
};
#endif

namespace tw {

// Hints to L2 about a copy (the encodings that createpolicy gives for whole fractions).
enum : unsigned long long { EVICT_NORMAL = 0x1000000000000000, EVICT_FIRST = 0x12F0000000000000, EVICT_LAST = 0x14F0000000000000 };

__device__ inline void prefetch(const CUtensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// A box of a tensor of 2 dimensions, the one with stride one first; `full` counts its bytes as they arrive.
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5}], [%2], %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1)
      : "memory");
}
// The same to every block of the cluster in `blocks`, at the same place, counted by each one's own barrier.
__device__ inline void load_box_to_all(unsigned short blocks, void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%4, %5}], [%2], %6, %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "h"(blocks)
      : "memory");
}
__device__ inline void store_box(const CUtensorMap& map, const void* from, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map), "r"(shared_address(from)), "r"(c0), "r"(c1)
               : "memory");
}

// A box of a tensor of 3 dimensions, the one with stride one first; `full` counts its bytes as they arrive.
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, %6}], [%2], %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}
// The same to every block of the cluster in `blocks`, at the same place, counted by each one's own barrier.
__device__ inline void load_box_to_all(unsigned short blocks, void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%4, %5, %6}], [%2], %7, %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2), "h"(blocks)
      : "memory");
}
__device__ inline void store_box(const CUtensorMap& map, const void* from, int c0, int c1, int c2) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2)
               : "memory");
}

// A box of a tensor of 4 dimensions, the one with stride one first; `full` counts its bytes as they arrive.
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
// The same to every block of the cluster in `blocks`, at the same place, counted by each one's own barrier.
__device__ inline void load_box_to_all(unsigned short blocks, void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%4, %5, %6, %7}], [%2], %8, %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "h"(blocks)
      : "memory");
}
__device__ inline void store_box(const CUtensorMap& map, const void* from, int c0, int c1, int c2, int c3) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(&map), "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
               : "memory");
}

// A box of a tensor of 5 dimensions, the one with stride one first; `full` counts its bytes as they arrive.
__device__ inline void load_box(void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%4, %5, %6, %7, %8}], [%2], %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
      : "memory");
}
// The same to every block of the cluster in `blocks`, at the same place, counted by each one's own barrier.
__device__ inline void load_box_to_all(unsigned short blocks, void* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, int c1, int c2, int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], [%1, {%4, %5, %6, %7, %8}], [%2], %9, %3;" ::
          "r"(shared_address(to)), "l"(&map), "r"(shared_address(&full)), "l"(hint), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "h"(blocks)
      : "memory");
}
__device__ inline void store_box(const CUtensorMap& map, const void* from, int c0, int c1, int c2, int c3, int c4) {
  asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(&map), "r"(shared_address(from)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4)
               : "memory");
}

// Several boxes side by side along the innermost dimension: each WIDE elements further on, and BYTES in shared memory.
template <int BOXES, int WIDE, int BYTES, class... At>
__device__ inline void load_boxes(unsigned char* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, At... at) {
#pragma unroll
  for (int n = 0; n < BOXES; ++n) load_box(to + n * BYTES, map, full, hint, c0 + n * WIDE, at...);
}
template <int BOXES, int WIDE, int BYTES, class... At>
__device__ inline void load_boxes_to_all(unsigned short blocks, unsigned char* to, const CUtensorMap& map, Barrier& full, unsigned long long hint, int c0, At... at) {
#pragma unroll
  for (int n = 0; n < BOXES; ++n) load_box_to_all(blocks, to + n * BYTES, map, full, hint, c0 + n * WIDE, at...);
}
template <int BOXES, int WIDE, int BYTES, class... At>
__device__ inline void store_boxes(const CUtensorMap& map, const unsigned char* from, int c0, At... at) {
#pragma unroll
  for (int n = 0; n < BOXES; ++n) store_box(map, from + n * BYTES, c0 + n * WIDE, at...);
}

__device__ inline void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until all but GROUPS of this thread's stores have read their source.
template <int GROUPS>
__device__ inline void wait_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(GROUPS) : "memory");
}

}  // namespace tw
