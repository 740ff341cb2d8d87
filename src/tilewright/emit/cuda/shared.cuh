// Accumulators to shared memory, in the order in which the copy engine takes them: swizzled rows of 128 or 64 bytes.
#pragma once
#include "tw/mbarrier.cuh"
#include "tw/types.cuh"

namespace tw {

// 64 rows by 64 or 32 columns of a warpgroup's accumulators as 16-bit elements. Lane l gives the address of row l % 8 of the
// 8 x 8 matrix number l / 8; each of the eight rows of a matrix lies in other banks.
template <class T, int COLUMNS, class D>
__device__ inline void store_rows(unsigned char* tile, const D (&v)[COLUMNS / 2], int thread) {
  const int lane = thread % 32, row = thread / 32 * 16 + lane % 16, half = lane / 16;
  const int turned = COLUMNS == 64 ? row & 7 : row >> 1 & 3;
  const unsigned line = shared_address(tile) + row * (2 * COLUMNS);
#pragma unroll
  for (int f = 0; f < COLUMNS / 8; f += 2) {
    const u32 a = pack2<T>(v[4 * f], v[4 * f + 1]), b = pack2<T>(v[4 * f + 2], v[4 * f + 3]);
    const u32 c = pack2<T>(v[4 * f + 4], v[4 * f + 5]), d = pack2<T>(v[4 * f + 6], v[4 * f + 7]);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(line + ((f + half) ^ turned) * 16),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
  }
}

// PANELS neighbouring ones, 64 rows each, as the copy engine takes them one by one.
template <class T, int COLUMNS, int PANELS, int N>
__device__ inline void store_panels(unsigned char* tile, const float (&v)[N], int thread) {
#pragma unroll
  for (int p = 0; p < PANELS; ++p) {
    float part[COLUMNS / 2];
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; ++i) part[i] = v[p * (COLUMNS / 2) + i];
    store_rows<T, COLUMNS>(tile + p * 64 * 2 * COLUMNS, part, thread);
  }
}

// The same turned over: 64 columns by N rows of memory, from accumulators whose columns are those rows.
template <class T, int N>
__device__ inline void store_columns(unsigned char* tile, const float (&v)[N / 2], int thread) {
  const int lane = thread % 32, chunk = thread / 32 * 2 + lane / 8 % 2;
#pragma unroll
  for (int f = 0; f < N / 8; f += 2) {
    const int row = 8 * f + lane / 16 * 8 + lane % 8;
    const unsigned to = shared_address(tile) + row * 128 + (chunk ^ (row & 7)) * 16;
    const u32 a = pack2<T>(v[4 * f], v[4 * f + 1]), b = pack2<T>(v[4 * f + 2], v[4 * f + 3]);
    if (f + 1 < N / 8) {
      const u32 c = pack2<T>(v[4 * f + 4], v[4 * f + 5]), d = pack2<T>(v[4 * f + 6], v[4 * f + 7]);
      asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a), "r"(b), "r"(c), "r"(d)
                   : "memory");
    } else {
      asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(a), "r"(b) : "memory");
    }
  }
}

}  // namespace tw
