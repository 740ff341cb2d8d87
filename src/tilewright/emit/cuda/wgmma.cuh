// wgmma (sm_90a): one warpgroup multiplies a 64 x K tile by a K x N tile, both in shared memory, into registers.
//
// PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions". A thread of the warpgroup holds, of the 64 x N result,
// rows 16 * warp + lane / 4 + 8 * h and columns 8 * f + lane % 4 * 2 + e in d[4 * f + 2 * h + e].
#pragma once
#include "tw/mbarrier.cuh"
#include "tw/types.cuh"

namespace tw {

// Where an operand lies, for the matrix unit: 128-byte rows, their 16-byte chunks XORed with the row number modulo 8.
// `leading` is the step to the next 64 elements along the rows and columns of the result where those lie in memory order
// (not used where the summed axis does), `stride` the step to the next 8 rows of 128 bytes. Both in bytes.
__device__ inline unsigned long long matrix(const void* tile, unsigned leading, unsigned stride) {
  const unsigned long long address = shared_address(tile);
  return (address & 0x3FFFF) >> 4 | (unsigned long long)(leading >> 4) << 16 | (unsigned long long)(stride >> 4) << 32 | 1ull << 62;
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int GROUPS>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}
// Keeps the compiler from touching accumulators that the matrix unit is still writing.
template <int N>
__device__ inline void hold(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N>
__device__ inline void hold(int (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

// An operand in shared memory: panels of 128 bytes, swizzled. One step of the matrix unit takes 32 bytes of the sum.
// Rows along the result, 128 bytes of the sum in each; the next 128 bytes are the next panel of ROWS rows.
template <int ROWS>
struct SumInRows {
  static constexpr bool TRANSPOSED = false;
  unsigned long long word;
  __device__ SumInRows(const void* tile) : word(matrix(tile, 16, 1024)) {}
  __device__ unsigned long long at(int step) const { return word + step / 4 * (ROWS * 128 >> 4) + step % 4 * 2; }
};
// Rows along the sum, 128 bytes of the result in each; the next 128 bytes are the next panel of ROWS rows.
template <int ROWS>
struct SumDownRows {
  static constexpr bool TRANSPOSED = true;
  unsigned long long word;
  __device__ SumDownRows(const void* tile) : word(matrix(tile, ROWS * 128, 1024)) {}
  __device__ unsigned long long at(int step) const { return word + step * (16 * 128 >> 4); }
};

// d = a b + (keep ? d : 0). TRANS_A, TRANS_B: the operand's rows of 128 bytes run along the result, not along the sum.
template <class T, int N, bool TRANS_A = false, bool TRANS_B = false>
struct Wgmma;

#define TW_F(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TW_R(i) "+r"(d[i]), "+r"(d[i + 1]), "+r"(d[i + 2]), "+r"(d[i + 3])

#define TW_NAMES_8 "%0, %1, %2, %3"
#define TW_FLOATS_8 TW_F(0)
#define TW_INTS_8 TW_R(0)
#define TW_NAMES_16 TW_NAMES_8 ", " "%4, %5, %6, %7"
#define TW_FLOATS_16 TW_FLOATS_8, TW_F(4)
#define TW_INTS_16 TW_INTS_8, TW_R(4)
#define TW_NAMES_24 TW_NAMES_16 ", " "%8, %9, %10, %11"
#define TW_FLOATS_24 TW_FLOATS_16, TW_F(8)
#define TW_INTS_24 TW_INTS_16, TW_R(8)
#define TW_NAMES_32 TW_NAMES_24 ", " "%12, %13, %14, %15"
#define TW_FLOATS_32 TW_FLOATS_24, TW_F(12)
#define TW_INTS_32 TW_INTS_24, TW_R(12)
#define TW_NAMES_40 TW_NAMES_32 ", " "%16, %17, %18, %19"
#define TW_FLOATS_40 TW_FLOATS_32, TW_F(16)
#define TW_INTS_40 TW_INTS_32, TW_R(16)
#define TW_NAMES_48 TW_NAMES_40 ", " "%20, %21, %22, %23"
#define TW_FLOATS_48 TW_FLOATS_40, TW_F(20)
#define TW_INTS_48 TW_INTS_40, TW_R(20)
#define TW_NAMES_56 TW_NAMES_48 ", " "%24, %25, %26, %27"
#define TW_FLOATS_56 TW_FLOATS_48, TW_F(24)
#define TW_INTS_56 TW_INTS_48, TW_R(24)
#define TW_NAMES_64 TW_NAMES_56 ", " "%28, %29, %30, %31"
#define TW_FLOATS_64 TW_FLOATS_56, TW_F(28)
#define TW_INTS_64 TW_INTS_56, TW_R(28)
#define TW_NAMES_72 TW_NAMES_64 ", " "%32, %33, %34, %35"
#define TW_FLOATS_72 TW_FLOATS_64, TW_F(32)
#define TW_INTS_72 TW_INTS_64, TW_R(32)
#define TW_NAMES_80 TW_NAMES_72 ", " "%36, %37, %38, %39"
#define TW_FLOATS_80 TW_FLOATS_72, TW_F(36)
#define TW_INTS_80 TW_INTS_72, TW_R(36)
#define TW_NAMES_88 TW_NAMES_80 ", " "%40, %41, %42, %43"
#define TW_FLOATS_88 TW_FLOATS_80, TW_F(40)
#define TW_INTS_88 TW_INTS_80, TW_R(40)
#define TW_NAMES_96 TW_NAMES_88 ", " "%44, %45, %46, %47"
#define TW_FLOATS_96 TW_FLOATS_88, TW_F(44)
#define TW_INTS_96 TW_INTS_88, TW_R(44)
#define TW_NAMES_104 TW_NAMES_96 ", " "%48, %49, %50, %51"
#define TW_FLOATS_104 TW_FLOATS_96, TW_F(48)
#define TW_INTS_104 TW_INTS_96, TW_R(48)
#define TW_NAMES_112 TW_NAMES_104 ", " "%52, %53, %54, %55"
#define TW_FLOATS_112 TW_FLOATS_104, TW_F(52)
#define TW_INTS_112 TW_INTS_104, TW_R(52)
#define TW_NAMES_120 TW_NAMES_112 ", " "%56, %57, %58, %59"
#define TW_FLOATS_120 TW_FLOATS_112, TW_F(56)
#define TW_INTS_120 TW_INTS_112, TW_R(56)
#define TW_NAMES_128 TW_NAMES_120 ", " "%60, %61, %62, %63"
#define TW_FLOATS_128 TW_FLOATS_120, TW_F(60)
#define TW_INTS_128 TW_INTS_120, TW_R(60)
#define TW_NAMES_136 TW_NAMES_128 ", " "%64, %65, %66, %67"
#define TW_FLOATS_136 TW_FLOATS_128, TW_F(64)
#define TW_INTS_136 TW_INTS_128, TW_R(64)
#define TW_NAMES_144 TW_NAMES_136 ", " "%68, %69, %70, %71"
#define TW_FLOATS_144 TW_FLOATS_136, TW_F(68)
#define TW_INTS_144 TW_INTS_136, TW_R(68)
#define TW_NAMES_152 TW_NAMES_144 ", " "%72, %73, %74, %75"
#define TW_FLOATS_152 TW_FLOATS_144, TW_F(72)
#define TW_INTS_152 TW_INTS_144, TW_R(72)
#define TW_NAMES_160 TW_NAMES_152 ", " "%76, %77, %78, %79"
#define TW_FLOATS_160 TW_FLOATS_152, TW_F(76)
#define TW_INTS_160 TW_INTS_152, TW_R(76)
#define TW_NAMES_168 TW_NAMES_160 ", " "%80, %81, %82, %83"
#define TW_FLOATS_168 TW_FLOATS_160, TW_F(80)
#define TW_INTS_168 TW_INTS_160, TW_R(80)
#define TW_NAMES_176 TW_NAMES_168 ", " "%84, %85, %86, %87"
#define TW_FLOATS_176 TW_FLOATS_168, TW_F(84)
#define TW_INTS_176 TW_INTS_168, TW_R(84)
#define TW_NAMES_184 TW_NAMES_176 ", " "%88, %89, %90, %91"
#define TW_FLOATS_184 TW_FLOATS_176, TW_F(88)
#define TW_INTS_184 TW_INTS_176, TW_R(88)
#define TW_NAMES_192 TW_NAMES_184 ", " "%92, %93, %94, %95"
#define TW_FLOATS_192 TW_FLOATS_184, TW_F(92)
#define TW_INTS_192 TW_INTS_184, TW_R(92)
#define TW_NAMES_200 TW_NAMES_192 ", " "%96, %97, %98, %99"
#define TW_FLOATS_200 TW_FLOATS_192, TW_F(96)
#define TW_INTS_200 TW_INTS_192, TW_R(96)
#define TW_NAMES_208 TW_NAMES_200 ", " "%100, %101, %102, %103"
#define TW_FLOATS_208 TW_FLOATS_200, TW_F(100)
#define TW_INTS_208 TW_INTS_200, TW_R(100)
#define TW_NAMES_216 TW_NAMES_208 ", " "%104, %105, %106, %107"
#define TW_FLOATS_216 TW_FLOATS_208, TW_F(104)
#define TW_INTS_216 TW_INTS_208, TW_R(104)
#define TW_NAMES_224 TW_NAMES_216 ", " "%108, %109, %110, %111"
#define TW_FLOATS_224 TW_FLOATS_216, TW_F(108)
#define TW_INTS_224 TW_INTS_216, TW_R(108)
#define TW_NAMES_232 TW_NAMES_224 ", " "%112, %113, %114, %115"
#define TW_FLOATS_232 TW_FLOATS_224, TW_F(112)
#define TW_INTS_232 TW_INTS_224, TW_R(112)
#define TW_NAMES_240 TW_NAMES_232 ", " "%116, %117, %118, %119"
#define TW_FLOATS_240 TW_FLOATS_232, TW_F(116)
#define TW_INTS_240 TW_INTS_232, TW_R(116)
#define TW_NAMES_248 TW_NAMES_240 ", " "%120, %121, %122, %123"
#define TW_FLOATS_248 TW_FLOATS_240, TW_F(120)
#define TW_INTS_248 TW_INTS_240, TW_R(120)
#define TW_NAMES_256 TW_NAMES_248 ", " "%124, %125, %126, %127"
#define TW_FLOATS_256 TW_FLOATS_248, TW_F(124)
#define TW_INTS_256 TW_INTS_248, TW_R(124)

// 16-bit operands may lie either way; others run along the sum.
#define TW_WGMMA_16(T, NAME, N, A, B, KEEP, TA, TB)                                                                      \
  template <bool TRANS_A, bool TRANS_B>                                                                                  \
  struct Wgmma<T, N, TRANS_A, TRANS_B> {                                                                                 \
    static __device__ inline void mma(float (&d)[N / 2], unsigned long long a, unsigned long long b, int keep) {         \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" KEEP ", 0;\n"                                              \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" TW_NAMES_##N "}, %" A ", %" B    \
                   ", keep, 1, 1, %" TA ", %" TB ";\n}"                                                                  \
                   : TW_FLOATS_##N                                                                                       \
                   : "l"(a), "l"(b), "r"(keep), "n"(int(TRANS_A)), "n"(int(TRANS_B))                                     \
                   : "memory");                                                                                          \
    }                                                                                                                    \
  };
#define TW_WGMMA(N, A, B, KEEP, TA, TB)                                                                                  \
  TW_WGMMA_16(bf16, "bf16", N, A, B, KEEP, TA, TB)                                                                       \
  TW_WGMMA_16(f16, "f16", N, A, B, KEEP, TA, TB)

TW_WGMMA(8, "4", "5", "6", "7", "8")
TW_WGMMA(16, "8", "9", "10", "11", "12")
TW_WGMMA(24, "12", "13", "14", "15", "16")
TW_WGMMA(32, "16", "17", "18", "19", "20")
TW_WGMMA(40, "20", "21", "22", "23", "24")
TW_WGMMA(48, "24", "25", "26", "27", "28")
TW_WGMMA(56, "28", "29", "30", "31", "32")
TW_WGMMA(64, "32", "33", "34", "35", "36")
TW_WGMMA(72, "36", "37", "38", "39", "40")
TW_WGMMA(80, "40", "41", "42", "43", "44")
TW_WGMMA(88, "44", "45", "46", "47", "48")
TW_WGMMA(96, "48", "49", "50", "51", "52")
TW_WGMMA(104, "52", "53", "54", "55", "56")
TW_WGMMA(112, "56", "57", "58", "59", "60")
TW_WGMMA(120, "60", "61", "62", "63", "64")
TW_WGMMA(128, "64", "65", "66", "67", "68")
TW_WGMMA(136, "68", "69", "70", "71", "72")
TW_WGMMA(144, "72", "73", "74", "75", "76")
TW_WGMMA(152, "76", "77", "78", "79", "80")
TW_WGMMA(160, "80", "81", "82", "83", "84")
TW_WGMMA(168, "84", "85", "86", "87", "88")
TW_WGMMA(176, "88", "89", "90", "91", "92")
TW_WGMMA(184, "92", "93", "94", "95", "96")
TW_WGMMA(192, "96", "97", "98", "99", "100")
TW_WGMMA(200, "100", "101", "102", "103", "104")
TW_WGMMA(208, "104", "105", "106", "107", "108")
TW_WGMMA(216, "108", "109", "110", "111", "112")
TW_WGMMA(224, "112", "113", "114", "115", "116")
TW_WGMMA(232, "116", "117", "118", "119", "120")
TW_WGMMA(240, "120", "121", "122", "123", "124")
TW_WGMMA(248, "124", "125", "126", "127", "128")
TW_WGMMA(256, "128", "129", "130", "131", "132")

// d = a b + (keep ? d : 0), where the sum has STEPS times 32 bytes.
template <class T, int N, int STEPS, class D, class A, class B>
__device__ inline void multiply(D (&d)[N / 2], const A& a, const B& b, bool keep) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    Wgmma<T, N, A::TRANSPOSED, B::TRANSPOSED>::mma(d, a.at(step), b.at(step), keep || step > 0);
  }
}

// Register tile number `n` of TILE's size out of an accumulator: neighbouring columns lie in neighbouring registers.
template <class TILE, class D, int N>
__device__ inline TILE piece(const D (&d)[N], int n) {
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) y.v[f] = d[n * TILE::N + f];
  return y;
}

#undef TW_WGMMA
#undef TW_WGMMA_16

}  // namespace tw
