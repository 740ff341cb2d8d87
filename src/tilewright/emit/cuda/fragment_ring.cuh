// Operands of products of few rows on their way some steps ahead, in shared memory of each warp: no warp waits for another.
//
// Copies run along rows, as memory likes it: where lanes of mma take 64 bytes each of eight rows, their warp copies whole rows
// of the step, and its lanes read back what they multiply.
#pragma once
#include "tw/copy.cuh"
#include "tw/fragments.cuh"
#include "tw/mbarrier.cuh"

namespace tw {

// Rows of an operand in a slot: BESIDE of them for each fragment, PIECES of 16 bytes a row, and a pitch at which the lanes of a
// quad and of the next one meet all banks.
template <class R, class K> struct SlotRows {
  static constexpr int LANES = 1 << K::BITS, BESIDE = 32 / LANES, PIECES = K::N / K::RUN * LANES;
  static constexpr int PITCH = PIECES * 16 + (BESIDE > 1 && PIECES % 8 == 0 ? 64 : 0), BYTES = R::N * BESIDE * PITCH;
};

template <class TEAM, class T, class R, int EDGE, class S, class K, int DEPTH>
__device__ void send_fragments(unsigned char* slot, TEAM team, const T* from, const Along<R, EDGE, S>& rows, const Along<K, DEPTH, Unit>& sum) {
  static_assert(DEPTH % K::RUN == 0, "an edge cuts 16 bytes in two");
  typedef SlotRows<R, K> L;
  const int lane = team.lane(), mine = L::BESIDE > 1 ? lane / L::LANES : 0, first = rows.part.first - mine, start = sum.part.start;
#pragma unroll
  for (int r = 0; r < R::N; ++r) {
#pragma unroll
    for (int i = 0; i < L::BESIDE * L::PIECES / 32; ++i) {
      const int piece = i * 32 + lane, row = piece / L::PIECES, column = piece % L::PIECES;
      const int position = start + column * K::RUN, at = first + R::at(r) + row;
      const bool there = (EDGE == 0 || at < rows.part.stop) && (DEPTH == 0 || position < sum.part.stop);
      const T* p = from + ((i64)at * rows.stride + position);
      copy_piece<16>(slot + (r * L::BESIDE + row) * L::PITCH + column * 16, there ? p : from, there ? 16 : 0);
    }
  }
}

// The operand as `fragments` gives it, of a step that has come for this lane; then its slot is free.
template <class T, class R, class K, class TEAM> __device__ Chunked<T, R, K> sent_fragments(const unsigned char* slot, TEAM team) {
  typedef SlotRows<R, K> L;
  Chunked<T, R, K> y;
  const int lane = team.lane();
  const unsigned at = (unsigned)__cvta_generic_to_shared(slot) + (L::BESIDE > 1 ? lane / L::LANES * L::PITCH : 0) + lane % L::LANES * 16;
  if constexpr (L::BESIDE > 1) __syncwarp();
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) {
      uint4& x = y.chunk[c][r];
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
                   : "r"(at + r * L::BESIDE * L::PITCH + c * L::LANES * 16)
                   : "memory");
    }
  }
  if constexpr (L::BESIDE > 1) __syncwarp();
  return y;
}

}  // namespace tw
