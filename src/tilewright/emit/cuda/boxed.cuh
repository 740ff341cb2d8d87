// Tiles that the copy engine has brought to shared memory: rows of 128 bytes, in panels, chunks of 16 XORed with the row.
#pragma once
#include "tw/global.cuh"
#include "tw/tma.cuh"

namespace tw {

// The tile of type TILE along the axes of `row` and `column` out of panels of ROWS rows. ZERO: what lies past the edge of
// the rows is 0, whatever was there.
template <class TILE, int ROWS, bool ZERO, class R, int ER, class C, int EC>
__device__ TILE boxed(const unsigned char* slot, const Part<R, ER>& row, const Part<C, EC>& column) {
  typedef typename TILE::type T;
  constexpr int MOST = 16 / (int)sizeof(T), W = C::RUN < MOST ? C::RUN : MOST;
  constexpr int P = W > 1 ? pitch_in<C>((const TILE*)nullptr) : 1;
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (along<TILE, C>(f) % W != 0) continue;
    const int r = row.first - row.start + R::at(along<TILE, R>(f));
    const int byte = (column.first - column.start + C::at(along<TILE, C>(f))) * (int)sizeof(T);
    Vector<T, W> x;
    x.word = *(const Word<W * (int)sizeof(T)>*)(slot + byte / 128 * (ROWS * 128) + r * 128 + ((byte / 16 % 8) ^ (r & 7)) * 16 + byte % 16);
    if (ZERO && ER != 0 && row.start + r >= row.stop) x.word = Word<W * (int)sizeof(T)>{};
#pragma unroll
    for (int n = 0; n < W; ++n) y.v[f + n * P] = x.element[n];
  }
  return y;
}

}  // namespace tw
