// wgmma of operands that are not of 16 bits: f32 as tf32, 8-bit floats, whole numbers of 8 bits. They run along the sum.
#pragma once
#include "tw/wgmma.cuh"

namespace tw {

#define TW_WGMMA_ALONG(T, NAME, D, LIST, SCALES, N, A, B, KEEP)                                                          \
  template <>                                                                                                            \
  struct Wgmma<T, N, false, false> {                                                                                     \
    static __device__ inline void mma(D (&d)[N / 2], unsigned long long a, unsigned long long b, int keep) {             \
      asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" KEEP ", 0;\n"                                              \
                   "wgmma.mma_async.sync.aligned.m64n" #N NAME " {" TW_NAMES_##N "}, %" A ", %" B ", keep" SCALES ";\n}" \
                   : LIST##N                                                                                             \
                   : "l"(a), "l"(b), "r"(keep)                                                                           \
                   : "memory");                                                                                          \
    }                                                                                                                    \
  };
#define TW_WGMMA_FLOATS(N, A, B, KEEP)                                                                                   \
  TW_WGMMA_ALONG(tf32, "k8.f32.tf32.tf32", float, TW_FLOATS_, ", 1, 1", N, A, B, KEEP)                                   \
  TW_WGMMA_ALONG(f8e4m3, "k32.f32.e4m3.e4m3", float, TW_FLOATS_, ", 1, 1", N, A, B, KEEP)
// Whole numbers have no multiples of 8 columns beyond 32 that are none of 16.
#define TW_WGMMA(N, A, B, KEEP)                                                                                          \
  TW_WGMMA_FLOATS(N, A, B, KEEP)                                                                                         \
  TW_WGMMA_ALONG(i8, "k32.s32.s8.s8", int, TW_INTS_, "", N, A, B, KEEP)

TW_WGMMA(8, "4", "5", "6")
TW_WGMMA(16, "8", "9", "10")
TW_WGMMA(24, "12", "13", "14")
TW_WGMMA(32, "16", "17", "18")
TW_WGMMA_FLOATS(40, "20", "21", "22")
TW_WGMMA(48, "24", "25", "26")
TW_WGMMA_FLOATS(56, "28", "29", "30")
TW_WGMMA(64, "32", "33", "34")
TW_WGMMA_FLOATS(72, "36", "37", "38")
TW_WGMMA(80, "40", "41", "42")
TW_WGMMA_FLOATS(88, "44", "45", "46")
TW_WGMMA(96, "48", "49", "50")
TW_WGMMA_FLOATS(104, "52", "53", "54")
TW_WGMMA(112, "56", "57", "58")
TW_WGMMA_FLOATS(120, "60", "61", "62")
TW_WGMMA(128, "64", "65", "66")
TW_WGMMA_FLOATS(136, "68", "69", "70")
TW_WGMMA(144, "72", "73", "74")
TW_WGMMA_FLOATS(152, "76", "77", "78")
TW_WGMMA(160, "80", "81", "82")
TW_WGMMA_FLOATS(168, "84", "85", "86")
TW_WGMMA(176, "88", "89", "90")
TW_WGMMA_FLOATS(184, "92", "93", "94")
TW_WGMMA(192, "96", "97", "98")
TW_WGMMA_FLOATS(200, "100", "101", "102")
TW_WGMMA(208, "104", "105", "106")
TW_WGMMA_FLOATS(216, "108", "109", "110")
TW_WGMMA(224, "112", "113", "114")
TW_WGMMA_FLOATS(232, "116", "117", "118")
TW_WGMMA(240, "120", "121", "122")
TW_WGMMA_FLOATS(248, "124", "125", "126")
TW_WGMMA(256, "128", "129", "130")

#undef TW_WGMMA
#undef TW_WGMMA_FLOATS
#undef TW_WGMMA_ALONG

}  // namespace tw
