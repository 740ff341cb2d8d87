// Tiles on their way some steps ahead of their use: each thread copies what it will hold itself to shared memory and reads it
// back from there, so that nobody waits for anybody. Chunk after chunk, the lanes of a warp side by side: no bank conflicts.
#pragma once
#include "tw/copy.cuh"

namespace tw {

// Bytes that a tile takes for a team of 32 threads.
template <class TILE> constexpr int bytes_ahead = TILE::N * 32 * (int)sizeof(typename TILE::type);

template <class TILE, int V, class T, class TEAM, class... TERM>
__device__ void send(unsigned char* slot, TEAM team, const T* from, const TERM&... term) {
  constexpr int W = width<V, TERM...>(), BYTES = W * (int)sizeof(T);
  static_assert(BYTES >= 4 && !(false || ... || cuts<W, TERM>), "whole words of at least four bytes are copied asynchronously");
  const T* base = from + (0 + ... + term.base());
  int chunk = 0;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    const bool there = (true && ... && term.template in<TILE>(f));
    const T* p = base + (0 + ... + term.template offset<TILE>(f));
    copy_piece<BYTES>(slot + (chunk++ * 32 + team.lane()) * BYTES, there ? p : from, there ? BYTES : 0);
  }
}

template <class TILE, int V, class TEAM, class... TERM>
__device__ TILE sent(const unsigned char* slot, TEAM team, const TERM&...) {
  constexpr int BYTES = width<V, TERM...>() * (int)sizeof(typename TILE::type);
  return of_words<TILE, V, TERM...>([&](int chunk) { return *(const Word<BYTES>*)(slot + (chunk * 32 + team.lane()) * BYTES); });
}

}  // namespace tw
