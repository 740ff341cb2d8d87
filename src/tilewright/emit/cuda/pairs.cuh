// Pairs of neighbours, of which a program names each by itself: moved by one access of twice the width.
#pragma once
#include "tw/global.cuh"

namespace tw {

template <class TILE> struct Neighbours { TILE first, second; };

// The elements at `from` and at its neighbour, and their terms; 0 for what lies past an edge.
template <class TILE, Cache C = PLAIN, class T, class... TERM> __device__ Neighbours<TILE> load_pair(const T* from, const TERM&... term) {
  Neighbours<TILE> y;
  const T* base = from + (0 + ... + term.base());
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    Vector<T, 2> x;
    x.element[0] = x.element[1] = cast<T>(0.0f);
    if ((true && ... && term.template in<TILE>(f))) {
      Reader<C, 2 * sizeof(T)>::read(x.word, base + (0 + ... + term.template offset<TILE>(f)));
    }
    y.first.v[f] = nth_of(x, 0), y.second.v[f] = nth_of(x, 1);
  }
  return y;
}

// `first` and `second`, converted to the elements of memory, to `to` and its neighbour, and their terms.
template <Cache C = PLAIN, class T, class X, class TEAM, class... TERM>
__device__ void store_pair(T* to, const X& first, const X& second, TEAM team, const TERM&... term) {
  typedef typename AsTile<X>::type TILE;
  if (!speaks_for((const TILE*)nullptr, team)) return;
  T* base = to + (0 + ... + term.base());
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    const typename TILE::type group[2] = {at<TILE>(first, f), at<TILE>(second, f)};
    const Vector<T, 2> y = packed<T>(group);
    if ((true && ... && term.template in<TILE>(f))) write<C>(base + (0 + ... + term.template offset<TILE>(f)), y.word);
  }
}

}  // namespace tw
