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

// A term whose positions past the edge are those of its last one: always there, read at once, and for others to pass over.
template <class A, int EDGE, class S> struct Held {
  typedef A axis;
  static constexpr bool UNIT = false;
  static constexpr int EDGE_AT = 0;
  Part<A, EDGE> part;
  S stride;
  __device__ i64 base() const { return 0; }
  template <class TILE> __device__ i64 offset(int f) const {
    const int at = part.at(along<TILE, A>(f));
    return (i64)(u32)(EDGE == 0 || at < part.stop ? at : part.stop - 1) * stride;  // a tile that is there has no place below 0
  }
  template <class TILE> __device__ bool in(int) const { return true; }
};
template <class A, int EDGE, class S> __device__ inline Held<A, EDGE, S> held(const Part<A, EDGE>& part, S stride) {
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
enum Cache { PLAIN, READ_ONLY, STREAM, L2_ONLY, UNALIGNED, HINT_FIRST, HINT_LAST, AHEAD, SHARED };

// A word to L2 on how long to keep what an access brings: it goes first, or last.
template <Cache C> __device__ inline i64 policy() {
  i64 y;
  if constexpr (C == HINT_FIRST) asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(y));
  else asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(y));
  return y;
}
// Sixteen bytes that nobody writes to, past L1.
template <Cache C> __device__ inline void read_hinted(uint4& w, const void* p) {
  asm("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
      : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w)
      : "l"(p), "l"(policy<C>()));
}
template <Cache C> __device__ inline void write_hinted(void* p, uint4 w) {
  asm volatile("st.global.L2::cache_hint.v4.b32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(p), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w), "l"(policy<C>()) : "memory");
}

template <Cache C, int BYTES> struct Reader {
  __device__ static void read(Word<BYTES>& w, const void* p) {
    typedef Word<BYTES> W;
    // ptxas moves a weak load to where its result is used, which for this one is behind a barrier; never a strong one.
    if constexpr (BYTES == 16 && C == AHEAD)
      asm volatile("ld.relaxed.cta.global.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(w.x), "=r"(w.y), "=r"(w.z), "=r"(w.w) : "l"(p) : "memory");
    else if constexpr (BYTES == 16 && (C == HINT_FIRST || C == HINT_LAST)) read_hinted<C>(w, p);
    else if constexpr (C == READ_ONLY || C == AHEAD) w = __ldg((const W*)p);
    else if constexpr (C == STREAM) w = __ldcs((const W*)p);
    else if constexpr (C == L2_ONLY) w = __ldcg((const W*)p);
    else w = *(const W*)p;
  }
};

// The elements that a tensor covers, counted from its origin: `low` to before `high`; none where a size is 0.
struct Extent {
  i64 low = 0, high = 1;
  bool empty = false;
  __device__ Extent along(i64 size, i64 stride) const {
    const i64 last = (size - 1) * stride;
    Extent y;
    y.low = low + (last < 0 ? last : 0);
    y.high = high + (last > 0 ? last : 0);
    y.empty = empty || size <= 0;
    return y;
  }
};

// Where a tensor that nobody writes to begins and ends. Aligned chunks of 16 bytes that lie in it are read whole. Of the
// chunks that it begins and ends in, and may share with others, its own elements are read one by one, once.
template <class T> struct Ends {
  const T *low, *high;
  uint4 first, last;
  __device__ Ends(const T* origin, Extent e) : low(origin + e.low), high(e.empty ? low : origin + e.high) {
    first = own(chunk_of(low));
    last = own(chunk_of(high));
  }
  __device__ static const uint4* chunk_of(const void* p) { return (const uint4*)((unsigned long long)p & ~15ull); }
  __device__ bool below(const uint4* chunk) const { return (const T*)chunk < low; }
  __device__ bool above(const uint4* chunk) const { return (const T*)(chunk + 1) > high; }
  __device__ bool has(const uint4* chunk) const { return !(below(chunk) | above(chunk)); }
  // Elements of a chunk that sticks out; nothing is read of one that does not.
  __device__ uint4 own(const uint4* chunk) const {
    Vector<T, 16 / sizeof(T)> x;
    x.word = make_uint4(0, 0, 0, 0);
    if (has(chunk)) return x.word;
#pragma unroll
    for (int n = 0; n < 16 / (int)sizeof(T); ++n) {
      const T* p = (const T*)chunk + n;
      Vector<T, 1> one;
      one.element[0] = x.element[n];
      if (p >= low && p < high) Reader<READ_ONLY, sizeof(T)>::read(one.word, p);
      x.element[n] = one.element[0];
    }
    return x.word;
  }
  __device__ uint4 whole(const uint4* chunk) const { return has(chunk) ? __ldg(chunk) : own(chunk); }
  // A chunk that holds an element of the tensor, if `wanted`: one predicated access, whose result nobody waits for yet.
  template <Cache C> __device__ uint4 read(const uint4* chunk, bool wanted) const {
    uint4 y = below(chunk) ? first : last;
    if (wanted & has(chunk)) Reader<C, 16>::read(y, chunk);
    return y;
  }
};
template <class T> __device__ inline Ends<T> ends(const T* origin, Extent e) { return Ends<T>(origin, e); }

// The first `bytes` bytes at p, element by element; the rest of 16 are 0.
template <class T> __device__ inline uint4 elements(const T* p, int bytes) {
  Vector<T, 16 / sizeof(T)> x;
  x.word = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int n = 0; n < 16 / (int)sizeof(T); ++n) {
    Vector<T, 1> one;
    one.element[0] = x.element[n];
    if (n * (int)sizeof(T) < bytes) Reader<READ_ONLY, sizeof(T)>::read(one.word, p + n);
    x.element[n] = one.element[0];
  }
  return x.word;
}

// For tensors that are written to, of which a chunk cannot be read beforehand.
struct Unknown {};

// 16 bytes from any address, of which the first `bytes` are wanted: the two chunks that they lie in, and how far in.
struct Pair {
  const uint4* chunk;
  int off, bytes;
  __device__ Pair(const void* p, int bytes) : off((int)((unsigned long long)p & 15)), bytes(bytes) {
    chunk = (const uint4*)((unsigned long long)p & ~15ull);
  }
  __device__ bool low() const { return bytes > 0; }
  __device__ bool high() const { return off + bytes > 16; }
};

// What is wanted of a pair of chunks, the rest 0.
__device__ inline uint4 shifted(const Pair& pair, uint4 a, uint4 b) {
  const int off = pair.off, bytes = pair.bytes;
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

__device__ inline void write_wide(void* p, uint4 w) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
}
template <class W> __device__ inline void write_wide(void* p, W w) { *(W*)p = w; }

// The same to shared memory.
__device__ inline void write_shared(void* p, uint4 w) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"((u32)__cvta_generic_to_shared(p)), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w) : "memory");
}
template <class W> __device__ inline void write_shared(void* p, W w) { *(W*)p = w; }

template <Cache C, class W> __device__ inline void write(void* p, W w) {
  if constexpr (C == SHARED) write_shared(p, w);
  else if constexpr ((C == HINT_FIRST || C == HINT_LAST) && sizeof(W) == 16) write_hinted<C>(p, w);
  else if constexpr (C == STREAM) __stcs((W*)p, w);
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

// The W elements at p, of which `in(n)` tells which exist. An access that an edge may cut stays in the tensor.
template <int W, bool CUT, Cache C, class T, class IN>
__device__ inline Vector<T, W> read_group(const Unknown&, const T* p, IN in) {
  Vector<T, W> x;
#pragma unroll
  for (int n = 0; n < W; ++n) x.element[n] = cast<T>(0.0f);
  if (in(CUT ? W - 1 : 0)) {
    Reader<C, W * sizeof(T)>::read(x.word, p);
  } else if (CUT) {
#pragma unroll
    for (int n = 0; n < W - 1; ++n) {
      Vector<T, 1> one;
      one.element[0] = x.element[n];
      if (in(n)) Reader<C, sizeof(T)>::read(one.word, p + n);
      x.element[n] = one.element[0];
    }
  }
  return x;
}
template <int W, bool CUT, Cache C, class T, class IN>
__device__ inline Vector<T, W> read_group(const Ends<T>& ends, const T* p, IN in) {
  Vector<T, W> x;
  if constexpr (C == UNALIGNED && W * sizeof(T) == 16) {
    int bytes = 0;
#pragma unroll
    for (int n = 0; n < W; ++n) bytes += in(n) ? (int)sizeof(T) : 0;
    const Pair pair(p, bytes);
    const uint4 a = ends.template read<READ_ONLY>(pair.chunk, pair.low());
    x.word = shifted(pair, a, ends.template read<READ_ONLY>(pair.chunk + 1, pair.high()));
  } else if constexpr (CUT && W * sizeof(T) == 16) {
    x.word = ends.template read<C>((const uint4*)p, in(0));
#pragma unroll
    for (int n = 0; n < W; ++n) x.element[n] = in(n) ? x.element[n] : cast<T>(0.0f);
  } else {
    x = read_group<W, CUT, C>(Unknown{}, p, in);
  }
  return x;
}

// The tile of type TILE at `from`, in the tensor with such ends, and its terms; 0 for what lies past an edge.
template <class TILE, int V = 1, Cache C = PLAIN, class T, class ENDS, class... TERM>
__device__ TILE load(const ENDS& ends, const T* from, const TERM&... term) {
  constexpr int W = width<V, TERM...>(), P = W > 1 ? pitch<TILE, TERM...>() : 1;
  constexpr bool cut = (false || ... || cuts<W, TERM>);
  TILE y;
  const T* base = from + (0 + ... + term.base());
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    const T* p = base + (0 + ... + term.template offset<TILE>(f));
    const auto in = [&](int n) { return (true && ... && term.template in<TILE>(f + n * P)); };
    const Vector<T, W> x = read_group<W, cut, C>(ends, p, in);
#pragma unroll
    for (int n = 0; n < W; ++n) y.v[f + n * P] = nth_of(x, n);
  }
  return y;
}

// A tile of the words that its accesses brought, whose `chunk`th is `word(chunk)`.
template <class TILE, int V, class... TERM, class WORD> __device__ TILE of_words(const WORD& word) {
  typedef typename TILE::type T;
  constexpr int W = width<V, TERM...>(), P = W > 1 ? pitch<TILE, TERM...>() : 1;
  TILE y;
  int chunk = 0;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) {
    if (!(true && ... && begins<TILE, W, TERM>(f))) continue;
    Vector<T, W> x;
    x.word = word(chunk++);
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
