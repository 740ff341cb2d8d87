// Tiles from and to memory: the widest access that the layout and the strides allow, masked where the tile has an edge.
#pragma once
#include "tw/tile.cuh"

namespace tw {

// A stride of one, known to the compiler.
struct Unit {
  __device__ constexpr operator int() const { return 1; }
};
constexpr Unit unit{};

// One term of an address: the positions along axis A times a stride in elements.
template <class A, int EDGE, class S> struct Along {
  typedef A axis;
  static constexpr bool UNIT = same<S, Unit>;
  static constexpr int EDGE_AT = EDGE;
  Part<A, EDGE> part;
  S stride;
  __device__ i64 base() const { return (i64)part.first * stride; }
  template <class TILE> __device__ i64 offset(int f) const { return (i64)A::at(along<TILE, A>(f)) * stride; }
  template <class TILE> __device__ bool in(int f) const { return part.in(along<TILE, A>(f)); }
};
template <class A, int EDGE, class S> __device__ inline Along<A, EDGE, S> by(const Part<A, EDGE>& part, S stride) {
  return {part, stride};
}

// Another: positions that are themselves elements of a tile (a gather).
template <class X, class S> struct Picked {
  typedef void axis;
  static constexpr bool UNIT = false;
  static constexpr int EDGE_AT = 0;
  const X& index;
  S stride;
  __device__ i64 base() const { return 0; }
  template <class TILE> __device__ i64 offset(int f) const { return (i64)at<TILE>(index, f) * stride; }
  template <class TILE> __device__ bool in(int) const { return true; }
};
template <class X, class S> __device__ inline Picked<X, S> picked(const X& index, S stride) { return {index, stride}; }

// How the caches treat an access.
enum Cache { PLAIN, READ_ONLY, STREAM, L2_ONLY, UNALIGNED };

// 16 bytes from any address: of the two aligned chunks that they lie in, those that hold one of the `bytes` wanted.
__device__ inline uint4 read_unaligned(const void* p, int bytes) {
  const unsigned long long address = (unsigned long long)p;
  const int off = (int)(address & 15);
  const uint4* chunk = (const uint4*)(address & ~15ull);
  uint4 a = make_uint4(0, 0, 0, 0), b = a;
  if (bytes > 0) a = __ldg(chunk);
  if (off + bytes > 16) b = __ldg(chunk + 1);
  u32 x[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int n = 0; n < 6; ++n) x[n] = off & 8 ? x[n + 2] : x[n];
#pragma unroll
  for (int n = 0; n < 5; ++n) x[n] = off & 4 ? x[n + 1] : x[n];
  const int shift = (off & 3) * 8;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    x[n] = __funnelshift_r(x[n], x[n + 1], shift);
    const int left = bytes - 4 * n;
    x[n] &= left >= 4 ? 0xffffffffu : left <= 0 ? 0u : (1u << left * 8) - 1;
  }
  return make_uint4(x[0], x[1], x[2], x[3]);
}

template <Cache C, int BYTES> struct Reader {
  __device__ static void read(Word<BYTES>& w, const void* p) {
    typedef Word<BYTES> W;
    if constexpr (C == READ_ONLY) w = __ldg((const W*)p);
    else if constexpr (C == STREAM) w = __ldcs((const W*)p);
    else if constexpr (C == L2_ONLY) w = __ldcg((const W*)p);
    else w = *(const W*)p;
  }
};

__device__ inline void write_wide(void* p, uint4 w) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
}
template <class W> __device__ inline void write_wide(void* p, W w) { *(W*)p = w; }

template <Cache C, class W> __device__ inline void write(void* p, W w) {
  if constexpr (C == STREAM) __stcs((W*)p, w);
  else if constexpr (C == L2_ONLY) __stcg((W*)p, w);
  else write_wide(p, w);
}

// Along the term of stride one, if the tile has neighbours there: how many elements one access takes, at most V.
template <class TERM> __device__ constexpr int run_of() {
  if constexpr (TERM::UNIT) return TERM::axis::RUN;
  else return 1;
}
template <int V, class... TERM> __device__ constexpr int width() {
  int w = 1;
  ((w = TERM::UNIT && run_of<TERM>() > w ? run_of<TERM>() : w), ...);
  return w < V ? w : V;
}

// Distance in registers between neighbours along X: the inner indices of the axes after it.
template <class X> __device__ constexpr int pitch_of() { return 1; }
template <class X, class A, class... B> __device__ constexpr int pitch_of() {
  if constexpr (same<X, A>) return (1 * ... * B::INNER);
  else return pitch_of<X, B...>();
}
template <class X, class T, class... A> __device__ constexpr int pitch_in(const Tile<T, A...>*) { return pitch_of<X, A...>(); }
template <class TILE, class... TERM> __device__ constexpr int pitch() {
  int p = 1;
  ((p = TERM::UNIT ? pitch_in<typename TERM::axis>((const TILE*)nullptr) : p), ...);
  return p;
}

// Whether register f begins an access of W elements, and whether an edge may cut one in two.
template <class TILE, int W, class TERM> __device__ constexpr bool begins(int f) {
  if constexpr (TERM::UNIT) return along<TILE, typename TERM::axis>(f) % W == 0;
  else return true;
}
template <int W, class TERM> constexpr bool cuts = TERM::UNIT && W > 1 && TERM::EDGE_AT % W != 0;

// The tile of type TILE at `from` and its terms; 0 for what lies past an edge.
template <class TILE, int V = 1, Cache C = PLAIN, class T, class... TERM>
__device__ TILE load(const T* from, const TERM&... term) {
  constexpr int W = width<V, TERM...>(), P = W > 1 ? pitch<TILE, TERM...>() : 1;
  constexpr bool cut = (false || ... || cuts<W, TERM>);
  TILE y;
  const T* base = from + (0 + ... + term.base());
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    const T* p = base + (0 + ... + term.template offset<TILE>(f));
    Vector<T, W> x;
    const T none = cast<T>(0.0f);
    if constexpr (C == UNALIGNED && W * sizeof(T) == 16) {
      int bytes = 0;
#pragma unroll
      for (int n = 0; n < W; ++n) bytes += (true && ... && term.template in<TILE>(f + n * P)) ? (int)sizeof(T) : 0;
      x.word = read_unaligned(p, bytes);
    } else {
      // One predicated access, whose result nobody waits for yet. One that an edge cuts reads on to the end of its aligned
      // word, which the memory of a tensor has.
#pragma unroll
      for (int n = 0; n < W; ++n) x.element[n] = none;
      if ((true && ... && term.template in<TILE>(f))) Reader<C, W * sizeof(T)>::read(x.word, p);
#pragma unroll
      for (int n = 1; n < W; ++n) {
        if (cut) x.element[n] = (true && ... && term.template in<TILE>(f + n * P)) ? x.element[n] : none;
      }
    }
#pragma unroll
    for (int n = 0; n < W; ++n) y.v[f + n * P] = x.element[n];
  }
  return y;
}

// What is stored of a value: a tile's type, or a scalar as a tile without axes.
template <class X> struct AsTile { typedef Tile<X> type; };
template <class T, class... A> struct AsTile<Tile<T, A...>> { typedef Tile<T, A...> type; };
template <class T, class... A, class TEAM> __device__ inline bool speaks_for(const Tile<T, A...>*, TEAM team) {
  return speaks<A...>(team);
}

// `x`, converted to the elements of memory, to `to` and its terms; nothing past an edge; once where threads hold copies.
template <int V = 1, Cache C = PLAIN, class T, class X, class TEAM, class... TERM>
__device__ void store(T* to, const X& x, TEAM team, const TERM&... term) {
  typedef typename AsTile<X>::type TILE;
  constexpr int W = width<V, TERM...>(), P = W > 1 ? pitch<TILE, TERM...>() : 1;
  constexpr bool cut = (false || ... || cuts<W, TERM>);
  if (!speaks_for((const TILE*)nullptr, team)) return;
  T* base = to + (0 + ... + term.base());
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    T* p = base + (0 + ... + term.template offset<TILE>(f));
    typename TILE::type group[W];
#pragma unroll
    for (int n = 0; n < W; ++n) group[n] = at<TILE>(x, f + n * P);
    const Vector<T, W> y = packed<T>(group);
    if ((true && ... && term.template in<TILE>(f + (W - 1) * P * cut))) {
      write<C>(p, y.word);
    } else if (cut) {
#pragma unroll
      for (int n = 0; n < W - 1; ++n) {
        if ((true && ... && term.template in<TILE>(f + n * P))) p[n] = y.element[n];
      }
    }
  }
}

}  // namespace tw
