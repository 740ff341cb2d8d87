// Tiles in registers: one value for each point of the axes A, which the threads of a team hold together.
#pragma once
#include "tw/layout.cuh"
#include "tw/types.cuh"

namespace tw {

// Register f of a tile: the axes' outer indices vary slowest, then their inner ones, in the order of A.
template <class T, class... A> struct Tile {
  typedef T type;
  static constexpr int N = (1 * ... * A::N), INNER = (1 * ... * A::INNER);
  T v[N];
};

// Index along X of register f of a tile with axes A: `outer` and `inner` are f / INNER and f % INNER.
template <class X> __device__ constexpr int index_of(int, int) { return 0; }
template <class X, class A, class... B> __device__ constexpr int index_of(int outer, int inner) {
  constexpr int O = (1 * ... * (B::N / B::INNER)), I = (1 * ... * B::INNER);
  if constexpr (same<X, A>) return outer / O % (A::N / A::INNER) * A::INNER + inner / I % A::INNER;
  else return index_of<X, B...>(outer, inner);
}

template <class X, class T, class... A> __device__ constexpr int along(const Tile<T, A...>*, int f) {
  return index_of<X, A...>(f / Tile<T, A...>::INNER, f % Tile<T, A...>::INNER);
}

// Index along X of register f of a tile of type TILE.
template <class TILE, class X> __device__ constexpr int along(int f) { return along<X>((const TILE*)nullptr, f); }

// The register of a tile with axes A that belongs to register f of a tile of type TILE, which has all of them.
template <class TILE, class... A> __device__ constexpr int shown(int f) {
  int outer = 0, inner = 0;
  ((outer = outer * (A::N / A::INNER) + along<TILE, A>(f) / A::INNER,
    inner = inner * A::INNER + along<TILE, A>(f) % A::INNER), ...);
  return outer * (1 * ... * A::INNER) + inner;
}

// What `x` shows at register f of a tile of type TILE: its own element there, repeated along the axes that it lacks.
template <class TILE, class T> __device__ const T& at(const T& x, int) { return x; }
template <class TILE, class T, class... A> __device__ const T& at(const Tile<T, A...>& x, int f) {
  return x.v[shown<TILE, A...>(f)];
}
template <class TILE, class T> __device__ T& at(T& x, int) { return x; }
template <class TILE, class T, class... A> __device__ T& at(Tile<T, A...>& x, int f) { return x.v[shown<TILE, A...>(f)]; }

// Every element is `value`.
template <class TILE> __device__ TILE full(typename TILE::type value) {
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) y.v[f] = value;
  return y;
}

// Of a tile along PARENT the piece number `n` along its part X, which has as many registers as fit in it several times.
template <class TILE, class X, class PARENT, class T, class... A> __device__ TILE piece(const Tile<T, A...>& whole, int n) {
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    int outer = 0, inner = 0;
    ((outer = outer * (A::N / A::INNER) + (same<A, PARENT> ? (along<TILE, X>(f) + n * X::N) / A::INNER : along<TILE, A>(f) / A::INNER),
      inner = inner * A::INNER + (same<A, PARENT> ? along<TILE, X>(f) : along<TILE, A>(f)) % A::INNER), ...);
    y.v[f] = whole.v[outer * (1 * ... * A::INNER) + inner];
  }
  return y;
}

// That piece of `whole` becomes `part`.
template <class X, class PARENT, class T, class... A, class PART> __device__ void put_piece(Tile<T, A...>& whole, const PART& part, int n) {
#pragma unroll
  for (int f = 0; f < PART::N; ++f) {
    int outer = 0, inner = 0;
    ((outer = outer * (A::N / A::INNER) + (same<A, PARENT> ? (along<PART, X>(f) + n * X::N) / A::INNER : along<PART, A>(f) / A::INNER),
      inner = inner * A::INNER + (same<A, PARENT> ? along<PART, X>(f) : along<PART, A>(f)) % A::INNER), ...);
    whole.v[outer * (1 * ... * A::INNER) + inner] = part.v[f];
  }
}

// The positions of a tile along its only axis.
template <class TILE, class A, int EDGE> __device__ TILE coord(const Part<A, EDGE>& part) {
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) y.v[f] = part.at(f);
  return y;
}

}  // namespace tw
