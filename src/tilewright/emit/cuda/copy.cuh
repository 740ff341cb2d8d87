// Tiles in shared memory, and the copies that fill them: asynchronous where addresses are aligned, through registers else.
#pragma once
#include "tw/global.cuh"

namespace tw {

// ROWS x COLS elements, row after row, in chunks of 16 bytes. Chunks are XORed with the row, so that the same chunk of
// eight neighbouring rows, and eight neighbouring chunks of a row, lie in different banks.
template <class T_, int ROWS_, int COLS_> struct Panel {
  typedef T_ T;
  static constexpr int ROWS = ROWS_, COLS = COLS_, CHUNK = 16 / sizeof(T), WIDTH = COLS / CHUNK;
  static constexpr int SHIFT = WIDTH >= 8 ? 0 : WIDTH == 4 ? 1 : WIDTH == 2 ? 2 : 3, MASK = WIDTH >= 8 ? 7 : WIDTH - 1;
  uint4 chunk[ROWS * WIDTH];
  __device__ static constexpr int place(int row, int c) { return row * WIDTH + (c ^ (row >> SHIFT & MASK)); }
  __device__ const T* at(int row, int col) const { return (const T*)&chunk[place(row, col / CHUNK)] + col % CHUNK; }
};

// The rectangle of a tensor that a panel takes: its first element, the stride of its rows, how much of it exists.
template <class T> struct Source {
  const T* from;
  i64 stride;
  int rows, cols;
};

__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS> __device__ inline void wait_all_but() { asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory"); }

// `bytes` of BYTES bytes at `from`, the rest of them 0, into shared memory, past the first cache where whole chunks move.
template <int BYTES> __device__ inline void copy_piece(void* to, const void* from, int bytes) {
  const unsigned address = (unsigned)__cvta_generic_to_shared(to);
  if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes));
  else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(BYTES), "r"(bytes));
}

// How a team deals the pieces of a panel to its threads: WIDTH to a row, round after round, the same column every time.
template <class P, int PIECE, int THREADS> struct Deal {
  static constexpr int WIDTH = P::COLS / PIECE, STEP = THREADS / WIDTH, ROUNDS = (P::ROWS + STEP - 1) / STEP;
  static constexpr bool LAST_IS_WHOLE = P::ROWS % STEP == 0, SAME = STEP % (8 << P::SHIFT) == 0;
  static_assert(THREADS % WIDTH == 0, "a row of a panel is dealt to some of the threads");
  int row, col;
  __device__ Deal(int thread) : row(thread / WIDTH), col(thread % WIDTH * PIECE) {}
  // Chunk of the panel in round n; a constant step where rounds keep the row's place among those that are XORed.
  __device__ int chunk(int n) const {
    if constexpr (SAME) return P::place(row, col / P::CHUNK) + n * STEP * P::WIDTH;
    else return P::place(row + n * STEP, col / P::CHUNK);
  }
  __device__ bool in(int n) const { return LAST_IS_WHOLE || row + n * STEP < P::ROWS; }
  // How many of `most` bytes exist in round n.
  template <class T> __device__ int bytes(const Source<T>& s, int n, int most) const {
    const int left = (s.cols - col) * (int)sizeof(T), some = left < 0 ? 0 : left < most ? left : most;
    return row + n * STEP < s.rows ? some : 0;
  }
};

// Begins to fill a panel: BYTES (4, 8 or 16) at a time, to which rows and their starts are aligned. What is missing is 0.
template <int BYTES, class P, class TEAM> __device__ void copy_async(P& to, Source<typename P::T> s, TEAM team) {
  typedef typename P::T T;
  typedef Deal<P, BYTES / (int)sizeof(T), TEAM::THREADS> DEAL;
  const DEAL deal(team.thread);
  const T* from = s.from + deal.row * s.stride + deal.col;
#pragma unroll
  for (int n = 0; n < DEAL::ROUNDS; ++n) {
    const int bytes = deal.bytes(s, n, BYTES);
    if (deal.in(n)) copy_piece<BYTES>((T*)&to.chunk[deal.chunk(n)] + deal.col % P::CHUNK, bytes ? from + n * DEAL::STEP * s.stride : s.from, bytes);
  }
}

// The same through registers: `fetch` reads rows whose starts are multiples of ALIGN bytes, `put` writes, and other work may
// stand between them.
template <class P, int THREADS> struct Fetched {
  uint4 chunk[Deal<P, P::CHUNK, THREADS>::ROUNDS];
};

// Chunks at multiples of 16 bytes: whole ones at once, and of one that the end of a row cuts its elements.
template <class P, class TEAM> __device__ Fetched<P, TEAM::THREADS> fetch_aligned(Source<typename P::T> s, TEAM team) {
  typedef typename P::T T;
  typedef Deal<P, P::CHUNK, TEAM::THREADS> DEAL;
  const DEAL deal(team.thread);
  const T* from = s.from + deal.row * s.stride + deal.col;
  const bool whole = s.cols - deal.col >= P::CHUNK || s.cols <= deal.col;  // or cut, in every round alike
  Fetched<P, TEAM::THREADS> y;
#pragma unroll
  for (int n = 0; n < DEAL::ROUNDS; ++n) {
    const int bytes = deal.bytes(s, n, 16);
    y.chunk[n] = make_uint4(0, 0, 0, 0);
    if (whole & bytes > 0) y.chunk[n] = __ldg((const uint4*)(from + n * DEAL::STEP * s.stride));
  }
  if (whole) return y;
#pragma unroll
  for (int n = 0; n < DEAL::ROUNDS; ++n) y.chunk[n] = elements(from + n * DEAL::STEP * s.stride, deal.bytes(s, n, 16));
  return y;
}

// Rows that begin anywhere: the chunks that theirs lie in, shifted.
template <class P, class TEAM>
__device__ Fetched<P, TEAM::THREADS> fetch_shifted(const Ends<typename P::T>& ends, Source<typename P::T> s, TEAM team) {
  typedef Deal<P, P::CHUNK, TEAM::THREADS> DEAL;
  const DEAL deal(team.thread);
  const typename P::T* from = s.from + deal.row * s.stride + deal.col;
  const auto pair = [&](int n) { return Pair(from + n * DEAL::STEP * s.stride, deal.bytes(s, n, 16)); };
  bool inside = true;
#pragma unroll
  for (int n = 0; n < DEAL::ROUNDS; ++n) {
    const Pair p = pair(n);
    inside &= (!p.low() | ends.has(p.chunk)) & (!p.high() | ends.has(p.chunk + 1));
  }
  Fetched<P, TEAM::THREADS> y;
  if (inside) {
#pragma unroll
    for (int n = 0; n < DEAL::ROUNDS; ++n) {
      const Pair p = pair(n);
      uint4 a = make_uint4(0, 0, 0, 0), b = a;
      if (p.low()) a = __ldg(p.chunk);
      if (p.high()) b = __ldg(p.chunk + 1);
      y.chunk[n] = shifted(p, a, b);
    }
  } else {  // one of the few threads whose chunks the tensor begins or ends in
#pragma unroll
    for (int n = 0; n < DEAL::ROUNDS; ++n) {
      const Pair p = pair(n);
      uint4 a = make_uint4(0, 0, 0, 0), b = a;
      if (p.low()) a = ends.whole(p.chunk);
      if (p.high()) b = ends.whole(p.chunk + 1);
      y.chunk[n] = shifted(p, a, b);
    }
  }
  return y;
}

template <class P, int ALIGN, class TEAM>
__device__ Fetched<P, TEAM::THREADS> fetch(const Ends<typename P::T>& ends, Source<typename P::T> s, TEAM team) {
  if constexpr (ALIGN >= 16) return fetch_aligned<P>(s, team);
  else return fetch_shifted<P>(ends, s, team);
}

template <class P, class TEAM> __device__ void put(P& to, const Fetched<P, TEAM::THREADS>& x, TEAM team) {
  typedef Deal<P, P::CHUNK, TEAM::THREADS> DEAL;
  const DEAL deal(team.thread);
#pragma unroll
  for (int n = 0; n < DEAL::ROUNDS; ++n) {
    if (deal.in(n)) to.chunk[deal.chunk(n)] = x.chunk[n];
  }
}

}  // namespace tw
