// Products of few rows: operands go straight from memory to the registers that multiply them, no shared memory between.
//
// By mma.sync: the order in which a sum is taken is free. So lane t of four takes 16 bytes that lie side by side of a row, and
// calls them what the instruction wants of it: its own pairs of two products (PTX ISA, mma.m16n8). One access feeds two
// instructions. By FMA: all lanes of a warp lie along the sum of the same rows, which each lane has in its own registers.
#pragma once
#include "tw/global.cuh"
#include "tw/mma.cuh"
#include "tw/reduce.cuh"

namespace tw {

// Rows of the second operand of mma: WN warps (each WK neighbouring warps, dealt along the sum), FRAGMENTS of 8 rows each.
template <int WK, int WN, int FRAGMENTS> struct OperandRows {
  static constexpr int N = FRAGMENTS, INNER = 1, RUN = 1;
  static constexpr int LO = 2, BITS = 3, WARP_STRIDE = WK, WARPS = WN;
  __device__ static constexpr int at(int r) { return r * 8; }
  __device__ static constexpr int base(int thread) { return (thread >> 5) / WK % WN * (FRAGMENTS * 8) + (thread >> 2 & 7); }
};

// Rows that every lane of a warp has: ROWS of them for each of WN warps (each WK neighbouring ones).
template <int WK, int WN, int ROWS> struct WarpRows {
  static constexpr int N = ROWS, INNER = 1, RUN = 1;
  static constexpr int LO = 0, BITS = 0, WARP_STRIDE = WK, WARPS = WN;
  __device__ static constexpr int at(int r) { return r; }
  __device__ static constexpr int base(int thread) { return (thread >> 5) / WK % WN * ROWS; }
};

// Positions of the sum in one warp: GROUPS times RUN_ neighbours a lane, 2^B lanes side by side.
template <int GROUPS, int RUN_, int B> struct Chunks {
  static constexpr int N = GROUPS * RUN_, INNER = RUN_, RUN = RUN_;
  static constexpr int LO = 0, BITS = B, WARP_STRIDE = 1, WARPS = 1;
  __device__ static constexpr int at(int r) { return r / RUN * (RUN << B) + r % RUN; }
  __device__ static constexpr int base(int thread) { return (thread & ((1 << B) - 1)) * RUN; }
};

// What a thread holds of an operand: of each of its rows 16 bytes a group of positions of the sum.
template <class T, class R, class K> struct Chunked {
  uint4 chunk[K::N / K::RUN][R::N];
};

// Streams are read by loads that the assembler keeps in their places: all that a step asks for is on its way before it needs
// any of it, and before a wait for the last kernel, behind which it moves loads of what is read only.
template <Cache C> __device__ inline uint4 read_chunk(const void* p) {
  uint4 y;
  if constexpr (C == STREAM) {
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(y.x), "=r"(y.y), "=r"(y.z), "=r"(y.w) : "l"(p) : "memory");
  } else {
    Reader<C, 16>::read(y, p);
  }
  return y;
}

// The operand at `from`, 0 past its edges; rows and positions of the sum lie `rows.stride` and 1 apart.
template <Cache C, class T, class R, int EDGE, class S, class K, int DEPTH>
__device__ Chunked<T, R, K> fragments(const T* from, const Along<R, EDGE, S>& rows, const Along<K, DEPTH, Unit>& sum) {
  static_assert(DEPTH % K::RUN == 0, "an edge cuts 16 bytes in two");
  Chunked<T, R, K> y;
  const T* base = from + (rows.base() + sum.base());
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) {
      y.chunk[c][r] = make_uint4(0, 0, 0, 0);
      if (rows.part.in(r) && sum.part.in(c * K::RUN)) y.chunk[c][r] = read_chunk<C>(base + ((i64)R::at(r) * rows.stride + K::at(c * K::RUN)));
    }
  }
  return y;
}

// Where an operand is read, chunk by chunk.
template <Cache C, class T, class R, class K> struct Flow {
  const T* base;
  i64 stride;
  bool there[K::N / K::RUN][R::N];
  // The chunk of one row becomes what lies there, 0 past the edges.
  __device__ void read(uint4& chunk, int c, int r) const {
    chunk = make_uint4(0, 0, 0, 0);
    if (there[c][r]) chunk = read_chunk<C>(base + ((i64)R::at(r) * stride + K::at(c * K::RUN)));
  }
};
template <Cache C, class T, class R, int EDGE, class S, class K, int DEPTH>
__device__ Flow<C, T, R, K> flow(const T* from, const Along<R, EDGE, S>& rows, const Along<K, DEPTH, Unit>& sum) {
  static_assert(DEPTH % K::RUN == 0, "an edge cuts 16 bytes in two");
  Flow<C, T, R, K> y{from + (rows.base() + sum.base()), (i64)rows.stride, {}};
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) y.there[c][r] = rows.part.in(r) && sum.part.in(c * K::RUN);
  }
  return y;
}
// All of it.
template <Cache C, class T, class R, class K> __device__ Chunked<T, R, K> fragments(const Flow<C, T, R, K>& flow) {
  Chunked<T, R, K> y;
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int r = 0; r < R::N; ++r) flow.read(y.chunk[c][r], c, r);
  }
  return y;
}

// acc += a b: rows of `a` by rows of `b`, fragments of 16 by 8 results. `used` is told of each chunk of b behind its products.
template <class D, class R, class C, class T, class B, class K, class USED>
__device__ void multiply_fragments(Tile<D, R, C>& acc, const Chunked<T, R, K>& a, Chunked<T, B, K>& b, const USED& used) {
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int n = 0; n < B::N; ++n) {
      uint4& z = b.chunk[c][n];
#pragma unroll
      for (int m = 0; m < R::N / 2; ++m) {
        const uint4 x = a.chunk[c][2 * m], y = a.chunk[c][2 * m + 1];
        const u32 first[4] = {x.x, y.x, x.y, y.y}, second[4] = {x.z, y.z, x.w, y.w};
        D(&d)[4] = reinterpret_cast<D(&)[4]>(acc.v[(m * B::N + n) * 4]);
        mma<T, D>(d, first, z.x, z.y);
        mma<T, D>(d, second, z.z, z.w);
      }
      used(z, c, n);
    }
  }
}
// The same; the weights of a step give way, chunk by chunk, to those of the next one, if there are `more`.
template <class D, class R, class C, class T, class B, class K, Cache L>
__device__ void multiply_flowing(Tile<D, R, C>& acc, const Chunked<T, R, K>& a, Chunked<T, B, K>& b, bool more, const Flow<L, T, B, K>& next) {
  multiply_fragments(acc, a, b, [&](uint4& chunk, int c, int n) {
    if (more) next.read(chunk, c, n);
  });
}
// acc += a b: rows of `a` by rows of `b`, fragments of 16 by 8 results.
template <class D, class R, class C, class T, class B, class K>
__device__ void multiply_fragments(Tile<D, R, C>& acc, const Chunked<T, R, K>& a, const Chunked<T, B, K>& b) {
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int m = 0; m < R::N / 2; ++m) {
      const uint4 x = a.chunk[c][2 * m], y = a.chunk[c][2 * m + 1];
      const u32 first[4] = {x.x, y.x, x.y, y.y}, second[4] = {x.z, y.z, x.w, y.w};
#pragma unroll
      for (int n = 0; n < B::N; ++n) {
        D(&d)[4] = reinterpret_cast<D(&)[4]>(acc.v[(m * B::N + n) * 4]);
        mma<T, D>(d, first, b.chunk[c][n].x, b.chunk[c][n].y);
        mma<T, D>(d, second, b.chunk[c][n].z, b.chunk[c][n].w);
      }
    }
  }
}
// Elements of a chunk as what they are summed up in; of bf16 each by one instruction.
template <class T, class D, int RUN> __device__ inline void widened(D (&x)[RUN], uint4 word) {
  Vector<T, RUN> y;
  y.word = word;
#pragma unroll
  for (int e = 0; e < RUN; ++e) {
    if constexpr (same<T, bf16>) x[e] = __uint_as_float(e % 2 ? y.half[e / 2] & 0xffff0000u : y.half[e / 2] << 16);
    else x[e] = cast<D>(y.element[e]);
  }
}
// The same by FMA: this lane's part of every sum.
template <class D, class R, class C, class T, class K>
__device__ void multiply_rows(Tile<D, R, C>& acc, const Chunked<T, R, K>& a, const Chunked<T, C, K>& b) {
#pragma unroll
  for (int c = 0; c < K::N / K::RUN; ++c) {
#pragma unroll
    for (int m = 0; m < R::N; ++m) {
      D x[K::RUN];
      widened<T>(x, a.chunk[c][m]);
#pragma unroll
      for (int n = 0; n < C::N; ++n) {
        D y[K::RUN];
        widened<T>(y, b.chunk[c][n]);
#pragma unroll
        for (int e = 0; e < K::RUN; ++e) acc.v[m * C::N + n] += x[e] * y[e];
      }
    }
  }
}

// x becomes the sum over the lanes along A, in the same order in each of them.
template <class A, class T, class... X> __device__ void join_lanes(Tile<T, X...>& x) {
#pragma unroll
  for (int b = A::BITS - 1; b >= 0; --b) {
#pragma unroll
    for (int f = 0; f < Tile<T, X...>::N; ++f) x.v[f] += __shfl_xor_sync(0xffffffffu, x.v[f], 1 << (A::LO + b));
  }
}

// Whether this is the first of each WARPS neighbouring warps that share a sum: the one that has the whole of it.
template <int WARPS, class TEAM> __device__ inline bool leads(TEAM team) { return team.warp() % WARPS == 0; }

// x of the first of each WARPS warps becomes the sum over all of them, in their order; the others only give theirs. NTH tells
// sums of one kernel apart. COPIES: all lanes of a warp have the same; else each has results of its own.
template <int WARPS, int NTH, bool COPIES, class T, class... X, class TEAM> __device__ void join_warps(Tile<T, X...>& x, TEAM team) {
  constexpr int N = Tile<T, X...>::N, HOLDERS = COPIES ? TEAM::THREADS / 32 : TEAM::THREADS;
  constexpr int MOST = COPIES ? N : 8192 / TEAM::THREADS, ROUND = N < MOST ? N : MOST;
  __shared__ T given[ROUND][HOLDERS];
  const int mine = COPIES ? team.warp() : team.thread, next = COPIES ? 1 : 32;
  const bool first = leads<WARPS>(team);
#pragma unroll
  for (int from = 0; from < N; from += ROUND) {
    if (from > 0) team.sync();
#pragma unroll
    for (int i = 0; i < ROUND; ++i) {
      if (!first && from + i < N && (!COPIES || team.lane() == 0)) given[i][mine] = x.v[from + i];
    }
    team.sync();
#pragma unroll
    for (int i = 0; i < ROUND; ++i) {
      if (!first || from + i >= N) continue;
#pragma unroll
      for (int w = 1; w < WARPS; ++w) x.v[from + i] += given[i][mine + w * next];
    }
  }
}

}  // namespace tw
