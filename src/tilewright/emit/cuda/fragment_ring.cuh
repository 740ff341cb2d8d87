// Operands of products of few rows on their way some steps ahead: each lane copies the chunks that it will multiply itself to
// shared memory and reads them back from there, so that no warp waits for another. Lanes lie side by side: no bank conflicts.
#pragma once
#include "tw/copy.cuh"
#include "tw/fragments.cuh"
#include "tw/mbarrier.cuh"

namespace tw {

template <class TEAM, class T, class R, int EDGE, class S, class K, int DEPTH>
__device__ void send_fragments(unsigned char* slot, TEAM team, const T* from, const Along<R, EDGE, S>& rows, const Along<K, DEPTH, Unit>& sum) {
  static_assert(DEPTH % K::RUN == 0, "an edge cuts 16 bytes in two");
  const T* base = from + (rows.base() + sum.base());
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) {
      const bool there = rows.part.in(r) && sum.part.in(c * K::RUN);
      const T* p = base + ((i64)R::at(r) * rows.stride + K::at(c * K::RUN));
      copy_piece<16>(slot + ((c * R::N + r) * 32 + team.lane()) * 16, there ? p : from, there ? 16 : 0);
    }
  }
}

// The operand as `fragments` gives it. Reads keep their places: before the copies of a later step to the same slot.
template <class T, class R, class K, class TEAM> __device__ Chunked<T, R, K> sent_fragments(const unsigned char* slot, TEAM team) {
  Chunked<T, R, K> y;
  const unsigned at = (unsigned)__cvta_generic_to_shared(slot) + team.lane() * 16;
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) {
      uint4& x = y.chunk[c][r];
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w) : "r"(at + (c * R::N + r) * 512) : "memory");
    }
  }
  return y;
}

}  // namespace tw
