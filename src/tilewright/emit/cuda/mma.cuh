// Products of panels in shared memory: mma.sync with ldmatrix (sm_80 and later), and FMA in f32.
#pragma once
#include "tw/copy.cuh"
#include "tw/tile.cuh"

namespace tw {

// ------------------------------------------------------------------------------------------------- fragments
// Four 8 x 8 matrices of 16-bit elements, one row of 16 bytes by the address of each lane (PTX ISA, ldmatrix).
template <bool TRANSPOSED> __device__ inline void ldmatrix(u32 (&x)[4], const void* row) {
  const unsigned address = (unsigned)__cvta_generic_to_shared(row);
  if constexpr (TRANSPOSED) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
  }
}

// 16 positions of the result by 32 bytes of the sum. DOWN: the panel's rows run along the sum, not along the result.
// FIRST: the second matrix lies further along the result (the first operand's order); else further along the sum.
template <bool DOWN, bool FIRST, class P> __device__ inline void fragment(u32 (&x)[4], const P& panel, int result, int sum, int lane) {
  const int low = lane & 7, second = lane >> 3 & 1, third = lane >> 4;
  const int along_result = FIRST ? second : third, along_sum = FIRST ? third : second;
  if constexpr (DOWN) {
    ldmatrix<true>(x, &panel.chunk[P::place(sum + low + 8 * along_sum, (result + 8 * along_result) / P::CHUNK)]);
  } else {
    ldmatrix<false>(x, &panel.chunk[P::place(result + low + 8 * along_result, sum / P::CHUNK + along_sum)]);
  }
}

// d += a b: 16 x 8 results, 32 bytes of the sum (PTX ISA, mma.m16n8).
template <class T, class D> __device__ inline void mma(D (&d)[4], const u32 (&a)[4], u32 b0, u32 b1);
#define TW_MMA(T, D, R, SHAPE)                                                                                              \
  template <> __device__ inline void mma<T, D>(D (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {                              \
    asm volatile("mma.sync.aligned." SHAPE " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"               \
                 : "+" R(d[0]), "+" R(d[1]), "+" R(d[2]), "+" R(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)); \
  }
TW_MMA(bf16, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
TW_MMA(f16, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
TW_MMA(tf32, float, "f", "m16n8k8.row.col.f32.tf32.tf32.f32")
TW_MMA(i8, int, "r", "m16n8k32.row.col.s32.s8.s8.s32")
#if __CUDA_ARCH__ >= 890
TW_MMA(f8e4m3, float, "f", "m16n8k32.row.col.f32.e4m3.e4m3.f32")
#endif
#undef TW_MMA

// ------------------------------------------------------------------------------------------------ whole panels
// acc += a b over all of the panels' sum. A_DOWN, B_DOWN: rows of that panel run along the sum, not along the result.
// T: what mma takes the elements for.
template <class T, bool A_DOWN, bool B_DOWN, class D, class A, class B, class TEAM, int WM, int WN, int MT, int NT, class R, class C>
__device__ void multiply(Tile<D, R, C>& acc, const A& a, const B& b, TEAM team, const AccRows<WM, WN, MT>*, const AccCols<WM, WN, NT>*) {
  constexpr int STEP = 32 / sizeof(T), K = A_DOWN ? A::ROWS : A::COLS;
  const int wm = team.warp() % WM, wn = team.warp() / WM;
#pragma unroll
  for (int k = 0; k < K; k += STEP) {
    u32 x[MT][4], y[NT / 2][4];
#pragma unroll
    for (int m = 0; m < MT; ++m) fragment<A_DOWN, true>(x[m], a, (m * WM + wm) * 16, k, team.lane());
#pragma unroll
    for (int n = 0; n < NT / 2; ++n) fragment<B_DOWN, false>(y[n], b, (wn * NT + 2 * n) * 8, k, team.lane());
#pragma unroll
    for (int m = 0; m < MT; ++m) {
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        mma<T, D>(reinterpret_cast<D(&)[4]>(acc.v[(m * NT + n) * 4]), x[m], y[n / 2][n % 2 * 2], y[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}
template <class T, bool A_DOWN, bool B_DOWN, class D, class R, class C, class A, class B, class TEAM>
__device__ void multiply(Tile<D, R, C>& acc, const A& a, const B& b, TEAM team) {
  multiply<T, A_DOWN, B_DOWN>(acc, a, b, team, (const R*)nullptr, (const C*)nullptr);
}
template <bool A_DOWN, bool B_DOWN, class D, class R, class C, class A, class B, class TEAM>
__device__ void multiply(Tile<D, R, C>& acc, const A& a, const B& b, TEAM team) {
  multiply<typename A::T, A_DOWN, B_DOWN>(acc, a, b, team);
}

// The same by FMA, in the order of the sum: four steps at a time of this thread's rows and columns.
template <bool DOWN, class X, class P, int N>
__device__ inline void operand(float (&x)[N][4], const P& panel, int first, int k) {
#pragma unroll
  for (int r = 0; r < N; ++r) {
    if constexpr (DOWN && X::RUN == 4) {
#pragma unroll
      for (int e = 0; e < 4 && r % 4 == 0; ++e) {
        const float4 four = *(const float4*)panel.at(k + e, first + X::at(r));
        x[r][e] = four.x, x[r + 1][e] = four.y, x[r + 2][e] = four.z, x[r + 3][e] = four.w;
      }
    } else if constexpr (DOWN) {
#pragma unroll
      for (int e = 0; e < 4; ++e) x[r][e] = *panel.at(k + e, first + X::at(r));
    } else {
      const float4 four = *(const float4*)panel.at(first + X::at(r), k);
      x[r][0] = four.x, x[r][1] = four.y, x[r][2] = four.z, x[r][3] = four.w;
    }
  }
}
template <bool A_DOWN, bool B_DOWN, class R, class C, class A, class B, class TEAM>
__device__ void multiply_add(Tile<float, R, C>& acc, const A& a, const B& b, TEAM team) {
  typedef Tile<float, R, C> TILE;
  constexpr int K = A_DOWN ? A::ROWS : A::COLS;
  const int row = R::base(team.thread), col = C::base(team.thread);
#pragma unroll 2
  for (int k = 0; k < K; k += 4) {
    float x[R::N][4], y[C::N][4];
    operand<A_DOWN, R>(x, a, row, k);
    operand<B_DOWN, C>(y, b, col, k);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int f = 0; f < TILE::N; ++f) acc.v[f] += x[along<TILE, R>(f)][e] * y[along<TILE, C>(f)][e];
    }
  }
}

}  // namespace tw
