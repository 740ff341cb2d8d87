// Tiles that are loaded a step ahead, into registers: the words that accesses bring are carried from one turn of a loop to the
// next, and taken apart where they are used. Elements of 16 bits would take a register each on the way.
#pragma once
#include "tw/global.cuh"

namespace tw {

template <class TILE, int W> struct Words {
  Word<W * (int)sizeof(typename TILE::type)> v[TILE::N / W];
};

// Past L1: what streams by is read once, and lines of L1 are what keeps loads from being under way.
__device__ inline void read_past(uint4& w, const void* p) {
  asm volatile("ld.relaxed.gpu.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w) : "l"(p) : "memory");
}
template <class W> __device__ inline void read_past(W& w, const void* p) { w = __ldg((const W*)p); }

// Where a term begins and how far register f lies from there; of a WHOLE tile no place is past the edge.
template <bool WHOLE, class TILE, class TERM> __device__ i64 begin_of(const TERM& term) { return term.base(); }
template <bool WHOLE, class TILE, class A, int EDGE, class S> __device__ i64 begin_of(const Held<A, EDGE, S>& term) {
  return WHOLE ? (i64)(u32)term.part.first * term.stride : 0;
}
template <bool WHOLE, class TILE, class TERM> __device__ i64 offset_of(const TERM& term, int f) { return term.template offset<TILE>(f); }
template <bool WHOLE, class TILE, class A, int EDGE, class S> __device__ i64 offset_of(const Held<A, EDGE, S>& term, int f) {
  return WHOLE ? (i64)A::at(along<TILE, A>(f)) * term.stride : term.template offset<TILE>(f);
}

template <bool WHOLE, class TILE, int W, class T, class... TERM>
__device__ void bring(Words<TILE, W>& y, const T* from, const TERM&... term) {
  const T* base = from + (0 + ... + begin_of<WHOLE, TILE>(term));
  int chunk = 0;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    if ((true && ... && term.template in<TILE>(f))) read_past(y.v[chunk], base + (0 + ... + offset_of<WHOLE, TILE>(term, f)));
    else y.v[chunk] = {};
    ++chunk;
  }
}

// The words of a tile at `from` and its terms, if they are `there`; 0 for what lies past an edge, which a `whole` one has not.
template <class TILE, int V, class T, class... TERM>
__device__ Words<TILE, width<V, TERM...>()> hold(bool there, bool whole, const T* from, const TERM&... term) {
  constexpr int W = width<V, TERM...>();
  static_assert(!(false || ... || cuts<W, TERM>), "an edge cuts no access");
  Words<TILE, W> y;
  if (!there) return y;  // nobody looks
  if (whole) bring<true>(y, from, term...);
  else bring<false>(y, from, term...);
  return y;
}

// The tile that was held.
template <class TILE, int V, class HELD, class... TERM>
__device__ TILE held(const HELD& words, const TERM&...) {
  return of_words<TILE, V, TERM...>([&](int chunk) { return words.v[chunk]; });
}

}  // namespace tw
