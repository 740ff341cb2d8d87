// Results on their way out: a warpgroup writes them to a slot of its own in shared memory, and the copy engine takes them from
// there while the next ones are computed.
#pragma once
#include "tw/shared.cuh"
#include "tw/tma.cuh"

namespace tw {

// SLOTS of BYTES each for every warpgroup; this is number `group`.
template <int SLOTS, int BYTES> struct Leaving {
  unsigned char* first;
  // The slot of a turn, counted without end, once the engine has read what lay there; and of a warpgroup's only slot.
  __device__ __forceinline__ unsigned char* slot(int group, unsigned turn) const {
    unsigned char* const at = first + (group * SLOTS + turn % SLOTS) * BYTES;
    if (threadIdx.x % 128 == 0) wait_stores<SLOTS - 1>();
    meet(2 + group, 128);
    return at;
  }
  __device__ __forceinline__ unsigned char* slot(int group) const {
    static_assert(SLOTS == 1, "a warpgroup with several slots takes them in turn");
    unsigned char* const at = first + group * BYTES;
    if (threadIdx.x % 128 == 0) wait_stores<0>();
    meet(2 + group, 128);
    return at;
  }
  // What all threads have written to it goes to its place in a tensor: boxes side by side, BOX bytes and WIDE elements apart.
  template <int BOXES, int WIDE, int BOX, class... AT> __device__ __forceinline__ void send(int group, const unsigned char* from, const CUtensorMap& map, bool wanted, AT... at) const {
    fence_shared();
    meet(2 + group, 128);
    if (threadIdx.x % 128 == 0 && wanted) {
      if constexpr (BOXES == 1) store_box(map, from, at...);
      else store_boxes<BOXES, WIDE, BOX>(map, from, at...);
      commit_stores();
    }
  }
  // Rows of a warpgroup's accumulators, COLUMNS each, as elements of type T.
  template <class T, int COLUMNS, class TILE, class... AT> __device__ __forceinline__ void rows(int group, unsigned char* there, const CUtensorMap& map, const TILE& x, AT... at) const {
    store_rows<T, COLUMNS>(there, x.v, threadIdx.x % 128);
    send<1, COLUMNS, BYTES>(group, there, map, true, at...);
  }
  // The same turned over: columns of the accumulators become ROWS rows of memory.
  template <class T, int ROWS, class TILE, class... AT> __device__ __forceinline__ void columns(int group, unsigned char* there, const CUtensorMap& map, const TILE& x, AT... at) const {
    store_columns<T, ROWS>(there, x.v, threadIdx.x % 128);
    send<1, 64, BYTES>(group, there, map, true, at...);
  }
  // PANELS panels of accumulators, COLUMNS each, if this warp's are wanted.
  template <class T, int COLUMNS, int PANELS, class TILE, class... AT> __device__ __forceinline__ void panels(int group, unsigned char* there, const CUtensorMap& map, const TILE& x, bool wanted, AT... at) const {
    store_panels<T, COLUMNS, PANELS>(there, x.v, threadIdx.x % 128);
    send<PANELS, COLUMNS, BYTES / PANELS>(group, there, map, wanted, at...);
  }
  // The engine has read all there was.
  __device__ __forceinline__ void end() const {
    if (threadIdx.x % 128 == 0) wait_stores<0>();
  }
};

}  // namespace tw
