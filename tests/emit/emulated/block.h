// A block of GPU threads on one CPU thread: each is a fiber that runs until it has to wait. What the tile library does by
// instructions of the GPU is done here in plain C++, as late as the rules allow: copies arrive at random times, products
// are computed when they are waited for. A kernel that reads too early, overwrites too soon or waits for ever is caught.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <ucontext.h>
#include <unordered_map>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct Index {
  int x;
};
inline Index threadIdx, blockIdx, gridDim;
struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

alignas(1024) inline unsigned char shared[256 << 10];

namespace emulated {
inline long moved;  // grows with all that happens: a block in which it stands still is stuck
inline std::mt19937 dice;
inline ucontext_t back, fibers[1024];
inline int running;

[[noreturn]] inline void fail(const char* why) {
  fprintf(stderr, "block %d, thread %d: %s\n", blockIdx.x, threadIdx.x, why);
  exit(3);
}
inline void wait() {
  const int me = running;
  swapcontext(&fibers[me], &back);
  threadIdx.x = me;
}

// The lanes of a warp meet, and show one another a word.
struct Warp {
  int here = 0;
  long turn = 0;
  unsigned long long words[2][32];
};
inline Warp warps[32];
inline void meet_warp() {
  Warp& w = warps[threadIdx.x / 32];
  const long turn = w.turn;
  if (++w.here == 32) {
    w.here = 0, ++w.turn, ++moved;
    return;
  }
  while (w.turn == turn) wait();
}
template <class T> T shown(T mine, int lane) {
  Warp& w = warps[threadIdx.x / 32];
  const int which = w.turn & 1;
  memcpy(&w.words[which][threadIdx.x % 32], &mine, sizeof(T));
  meet_warp();
  T theirs;
  memcpy(&theirs, &w.words[which][lane & 31], sizeof(T));
  return theirs;
}

template <class To, class From> To as(From x) {
  To y;
  memcpy(&y, &x, sizeof(To));
  return y;
}
inline unsigned short to_bf16(float x) {
  const unsigned bits = as<unsigned>(x);
  return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned short to_f16(float x) { return as<unsigned short>((_Float16)x); }
inline float from_f16(unsigned short bits) { return (float)as<_Float16>(bits); }
inline float larger(float x, float y) { return x != x || y != y ? NAN : x > y ? x : y; }
inline float smaller(float x, float y) { return x != x || y != y ? NAN : x < y ? x : y; }
inline float power_of_2(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0.0f : y;
}
}  // namespace emulated

inline void __syncwarp() { emulated::meet_warp(); }
template <class T> T __shfl_sync(unsigned, T x, int lane) { return emulated::shown(x, lane); }
template <class T> T __shfl_xor_sync(unsigned, T x, int mask) { return emulated::shown(x, threadIdx.x % 32 ^ mask); }
template <class OP> int over_warp(OP op, int x) {
  for (int far = 16; far > 0; far /= 2) x = op(x, __shfl_xor_sync(0, x, far));
  return x;
}
inline int __reduce_min_sync(unsigned, int x) { return over_warp([](int a, int b) { return a < b ? a : b; }, x); }
inline int __reduce_max_sync(unsigned, int x) { return over_warp([](int a, int b) { return a > b ? a : b; }, x); }
inline float __uint_as_float(unsigned x) { return emulated::as<float>(x); }
inline float __int_as_float(int x) { return emulated::as<float>(x); }
inline unsigned __float_as_uint(float x) { return emulated::as<unsigned>(x); }
inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline unsigned __funnelshift_r(unsigned low, unsigned high, int by) { return ((unsigned long long)high << 32 | low) >> (by & 31); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T x) { *p = x; }
template <class T> void __stcg(T* p, T x) { *p = x; }
inline int min(int x, int y) { return x < y ? x : y; }
inline int max(int x, int y) { return x > y ? x : y; }
inline unsigned atomicAdd(unsigned* p, unsigned x) { return (*p += x) - x; }
