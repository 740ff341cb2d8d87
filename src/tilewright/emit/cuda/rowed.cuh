// Tiles that the copy engine has brought to shared memory row by row: each lane asks for rows, which lie a pitch apart.
#pragma once
#include "tw/global.cuh"
#include "tw/mbarrier.cuh"

namespace tw {

// A row to shared memory, of which `full` counts the bytes as they arrive; both ends and its length are whole 16 bytes.
__device__ inline void load_row(void* to, const void* from, int bytes, Barrier& full) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(&full))
               : "memory");
}

// The tile of type TILE along the axes of `row` and `column`. ZERO: rows past the edge are 0, whatever lies there, as
// columns past the edge are.
template <class TILE, int PITCH, bool ZERO, class R, int ER, class C, int EC>
__device__ TILE rowed(const unsigned char* slot, const Part<R, ER>& row, const Part<C, EC>& column) {
  typedef typename TILE::type T;
  constexpr int MOST = 16 / (int)sizeof(T), W = C::RUN < MOST ? C::RUN : MOST;
  constexpr int P = W > 1 ? pitch_in<C>((const TILE*)nullptr) : 1;
  static_assert(EC % W == 0, "an edge cuts an access in two");
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (along<TILE, C>(f) % W != 0) continue;
    const int r = row.first - row.start + R::at(along<TILE, R>(f));
    const int byte = (column.first - column.start + C::at(along<TILE, C>(f))) * (int)sizeof(T);
    Vector<T, W> x;
    x.word = *(const Word<W * (int)sizeof(T)>*)(slot + r * PITCH + byte);
    if ((ZERO && ER != 0 && row.start + r >= row.stop) || (EC != 0 && !column.in(along<TILE, C>(f)))) x.word = Word<W * (int)sizeof(T)>{};
#pragma unroll
    for (int n = 0; n < W; ++n) y.v[f + n * P] = x.element[n];
  }
  return y;
}

}  // namespace tw
