// Chained products (sm_90a): what was computed of the accumulators of one product is the first operand of the next, in
// registers. PTX ISA, "Register Fragments for wgmma.mma_async.m64nNk16": a thread holds of 16 columns the pairs of columns
// 2c, 2c + 1 and 2c + 8, 2c + 9 (c its place in a quad) of its two rows, which is where the accumulators have them.
#pragma once
#include "tw/reduce.cuh"
#include "tw/wgmma.cuh"

namespace tw {

// 64 rows by 2 N / 2 columns of 16-bit elements, in pairs, as the first operand of wgmma.
template <class T, int N>
struct Fragments {
  u32 v[N];
};

// `x` in the accumulators' layout as such an operand; 0 where the columns of `part` do not exist.
template <class T, class X, class A, int EDGE>
__device__ inline Fragments<T, X::N / 2> as_operand(const X& x, const Part<A, EDGE>& part) {
  Fragments<T, X::N / 2> y;
#pragma unroll
  for (int i = 0; i < X::N / 2; ++i) {
    const bool low = EDGE == 0 || part.in(along<X, A>(2 * i)), high = EDGE == 0 || part.in(along<X, A>(2 * i + 1));
    y.v[i] = pack2<T>(low ? x.v[2 * i] : 0.0f, high ? x.v[2 * i + 1] : 0.0f);
  }
  return y;
}

// `op` over what the lanes of a warp hold: all get it. Extremes of 32-bit integers are one instruction.
template <class OP, class T>
__device__ inline T over_lanes(OP op, T y) {
  if constexpr (same<OP, Max> && same<T, int>) return __reduce_max_sync(0xFFFFFFFFu, y);
  if constexpr (same<OP, Min> && same<T, int>) return __reduce_min_sync(0xFFFFFFFFu, y);
#pragma unroll
  for (int far = 16; far > 0; far /= 2) y = op(y, __shfl_xor_sync(0xFFFFFFFFu, y, far));
  return y;
}

// `op` over `count` elements of a tensor, at most MOST, `stride` apart, by a warp, all of whose threads get it.
template <int MOST, class OP, class T>
__device__ inline T over_rows(OP op, const T* from, i64 stride, int count) {
  T y = neutral<OP, T>();
#pragma unroll
  for (int i = 0; i < MOST; i += 32) {
    const int n = i + int(threadIdx.x) % 32;
    if (n < count) y = op(y, from[n * stride]);
  }
  return over_lanes(op, y);
}

// This thread's part of `x` reduced over the columns of `part`, in two chains for each row.
template <class Y, class OP, class X, class A, int EDGE>
__device__ inline Y within(OP op, const X& x, const Part<A, EDGE>& part) {
  typedef typename Element<X>::type T;
  Y y = nothing<Y>(op), z = nothing<Y>(op);
#pragma unroll
  for (int f = 0; f < X::N; ++f) {
    auto& into = along<X, A>(f) % 2 ? at<X>(z, f) : at<X>(y, f);
    into = op(into, EDGE == 0 || part.in(along<X, A>(f)) ? x.v[f] : neutral<OP, T>());
  }
#pragma unroll
  for (int f = 0; f < count((Y*)nullptr); ++f) nth(y, f) = op(nth(y, f), nth(z, f));
  return y;
}

// `x` reduced over the columns of `part`, which the four lanes of a quad hold.
template <class Y, class OP, class X, class A, int EDGE, class TEAM>
__device__ inline Y across(OP op, const X& x, const Part<A, EDGE>& part, TEAM team) {
  Y y = within<Y>(op, x, part);
  join<A>(op, y, team);
  return y;
}

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }

// `x` with `value` in the columns of `part` that do not exist.
template <class X, class A, int EDGE>
__device__ inline X filled(X x, float value, const Part<A, EDGE>& part) {
  const int left = part.stop - part.first;
#pragma unroll
  for (int f = 0; f < X::N; ++f) x.v[f] = EDGE == 0 || A::at(along<X, A>(f)) < left ? x.v[f] : value;
  return x;
}

// The largest `scale` x of a row: of the largest x, or of the smallest where the scale is below 0. One product a row.
template <class Y, class X, class A, int EDGE, class TEAM>
__device__ inline Y largest_scaled(const X& x, float scale, const Part<A, EDGE>& part, TEAM team) {
  Y y;
  if (scale < 0.0f) y = across<Y>(Min{}, x, part, team);
  else y = across<Y>(Max{}, x, part, team);
  return map<Y>(Mul{}, y, scale);
}

// Rows `from` to ROWS of a tile in shared memory, PANELS panels of 128 bytes wide, become 0: there a factor of 0 meets
// whatever memory holds past the end. Every thread of the team writes; the matrix unit may read after `fence_shared`.
template <int ROWS, int PANELS, class TEAM>
__device__ inline void clear_rows(unsigned char* tile, int from, TEAM team) {
  const int first = from < 0 ? 0 : from;
  for (int i = first * 8 + team.thread; i < ROWS * 8; i += TEAM::THREADS) {
#pragma unroll
    for (int p = 0; p < PANELS; ++p) *(uint4*)(tile + p * ROWS * 128 + i * 16) = make_uint4(0, 0, 0, 0);
  }
}

// d = a b + (keep ? d : 0), a in registers. TRANS_B as in Wgmma.
template <class T, int N, bool TRANS_B>
struct WgmmaRows;

#define TW_ROWS_16(T, NAME, N, A0, A1, A2, A3, B, KEEP, TB)                                                              \
  template <bool TRANS_B>                                                                                                \
  struct WgmmaRows<T, N, TRANS_B> {                                                                                      \
    static __device__ inline void mma(float (&d)[N / 2], const u32* a, unsigned long long b, int keep) {                 \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" KEEP ", 0;\n"                                              \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" TW_NAMES_##N "}, {%" A0 ", %" A1 \
                   ", %" A2 ", %" A3 "}, %" B ", keep, 1, 1, %" TB ";\n}"                                                \
                   : TW_FLOATS_##N                                                                                       \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keep), "n"(int(TRANS_B))                    \
                   : "memory");                                                                                          \
    }                                                                                                                    \
  };
#define TW_ROWS(N, A0, A1, A2, A3, B, KEEP, TB)                 \
  TW_ROWS_16(bf16, "bf16", N, A0, A1, A2, A3, B, KEEP, TB)      \
  TW_ROWS_16(f16, "f16", N, A0, A1, A2, A3, B, KEEP, TB)

TW_ROWS(8, "4", "5", "6", "7", "8", "9", "10")
TW_ROWS(16, "8", "9", "10", "11", "12", "13", "14")
TW_ROWS(24, "12", "13", "14", "15", "16", "17", "18")
TW_ROWS(32, "16", "17", "18", "19", "20", "21", "22")
TW_ROWS(40, "20", "21", "22", "23", "24", "25", "26")
TW_ROWS(48, "24", "25", "26", "27", "28", "29", "30")
TW_ROWS(56, "28", "29", "30", "31", "32", "33", "34")
TW_ROWS(64, "32", "33", "34", "35", "36", "37", "38")
TW_ROWS(72, "36", "37", "38", "39", "40", "41", "42")
TW_ROWS(80, "40", "41", "42", "43", "44", "45", "46")
TW_ROWS(88, "44", "45", "46", "47", "48", "49", "50")
TW_ROWS(96, "48", "49", "50", "51", "52", "53", "54")
TW_ROWS(104, "52", "53", "54", "55", "56", "57", "58")
TW_ROWS(112, "56", "57", "58", "59", "60", "61", "62")
TW_ROWS(120, "60", "61", "62", "63", "64", "65", "66")
TW_ROWS(128, "64", "65", "66", "67", "68", "69", "70")
TW_ROWS(136, "68", "69", "70", "71", "72", "73", "74")
TW_ROWS(144, "72", "73", "74", "75", "76", "77", "78")
TW_ROWS(152, "76", "77", "78", "79", "80", "81", "82")
TW_ROWS(160, "80", "81", "82", "83", "84", "85", "86")
TW_ROWS(168, "84", "85", "86", "87", "88", "89", "90")
TW_ROWS(176, "88", "89", "90", "91", "92", "93", "94")
TW_ROWS(184, "92", "93", "94", "95", "96", "97", "98")
TW_ROWS(192, "96", "97", "98", "99", "100", "101", "102")
TW_ROWS(200, "100", "101", "102", "103", "104", "105", "106")
TW_ROWS(208, "104", "105", "106", "107", "108", "109", "110")
TW_ROWS(216, "108", "109", "110", "111", "112", "113", "114")
TW_ROWS(224, "112", "113", "114", "115", "116", "117", "118")
TW_ROWS(232, "116", "117", "118", "119", "120", "121", "122")
TW_ROWS(240, "120", "121", "122", "123", "124", "125", "126")
TW_ROWS(248, "124", "125", "126", "127", "128", "129", "130")
TW_ROWS(256, "128", "129", "130", "131", "132", "133", "134")

// d = a b + (keep ? d : 0), where the sum has STEPS times 16 columns of `a`.
template <class T, int N, int STEPS, class B>
__device__ inline void multiply(float (&d)[N / 2], const Fragments<T, 4 * STEPS>& a, const B& b, bool keep) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    WgmmaRows<T, N, B::TRANSPOSED>::mma(d, a.v + 4 * step, b.at(step), keep || step > 0);
  }
}

// Keeps the compiler from touching an operand that the matrix unit is still reading.
template <int N>
__device__ inline void hold(u32 (&v)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(v[i])::"memory");
}

#undef TW_ROWS
#undef TW_ROWS_16

}  // namespace tw
