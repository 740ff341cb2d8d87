// Element types, their conversions, and words that move several elements at once. No header but this one is needed.
#pragma once

namespace tw {

typedef long long i64;
typedef int i32;
typedef signed char i8;
typedef unsigned int u32;

struct bf16 { unsigned short bits; };
struct f16 { unsigned short bits; };
struct f8e4m3 { unsigned char bits; };
struct tf32 { u32 bits; };  // an f32, of which products see the leading 19 bits

template <class A, class B> constexpr bool same = false;
template <class A> constexpr bool same<A, A> = true;

// ---------------------------------------------------------------------------------------------------- to f32
__device__ inline float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

__device__ inline float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

// 1 sign, 4 exponent (bias 7) and 3 mantissa bits; no infinity; 0x7f is NaN. Scaling by 2^120 also moves subnormals.
__device__ inline float widen(f8e4m3 x) {
  const u32 magnitude = x.bits & 0x7f, sign = (u32)(x.bits & 0x80) << 24;
  const float y = magnitude == 0x7f ? __uint_as_float(0x7fc00000u) : __uint_as_float(magnitude << 20) * 0x1p120f;
  return __uint_as_float(__float_as_uint(y) | sign);
}

template <class T> __device__ inline T widen(T x) { return x; }

// ------------------------------------------------------------------------------------------- from f32, to nearest
__device__ inline void narrow(bf16& y, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }
__device__ inline void narrow(f16& y, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); }

__device__ inline void narrow(f8e4m3& y, float x) {
  const u32 sign = __float_as_uint(x) >> 24 & 0x80;
  const float a = fabsf(x);
  u32 bits;
  if (a < 0x1p-6f) bits = (u32)__float2int_rn(a * 0x1p9f);
  else bits = ((__float_as_uint(a) + 0x7ffffu + (__float_as_uint(a) >> 20 & 1)) >> 20) - (120u << 3);
  y.bits = (unsigned char)(sign | (a > 464.0f || a != a || bits > 0x7f ? 0x7f : bits));
}

template <class T> __device__ inline void narrow(T& y, float x) { y = (T)x; }

// `x` as a `To`: by way of f32 where one of the two is a storage format.
template <class To, class From> __device__ inline To cast(From x) {
  if constexpr (same<To, From>) {
    return x;
  } else if constexpr (same<To, bf16> || same<To, f16> || same<To, f8e4m3>) {
    To y;
    narrow(y, (float)widen(x));
    return y;
  } else {
    return (To)widen(x);
  }
}

// Two neighbours at once: one instruction for two storage floats. The first of them takes the low half.
template <class To> __device__ inline u32 pack2(float low, float high);
template <> __device__ inline u32 pack2<bf16>(float low, float high) {
  u32 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
template <> __device__ inline u32 pack2<f16>(float low, float high) {
  u32 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

// Two e4m3 as bf16, which holds all of them. There is an instruction for two at once to f16, which does too.
__device__ inline u32 widened_pair(f8e4m3 low, f8e4m3 high) {
#if __CUDA_ARCH__ >= 890
  u32 y;
  asm("{\n.reg .b16 h0, h1;\n.reg .b32 two;\n.reg .f32 f0, f1;\ncvt.rn.f16x2.e4m3x2 two, %1;\nmov.b32 {h0, h1}, two;\n"
      "cvt.f32.f16 f0, h0;\ncvt.f32.f16 f1, h1;\ncvt.rn.bf16x2.f32 %0, f1, f0;\n}"
      : "=r"(y)
      : "h"((unsigned short)(low.bits | high.bits << 8)));
  return y;
#else
  return pack2<bf16>(widen(low), widen(high));
#endif
}

// ----------------------------------------------------------------------------------------------------- words
// An unsigned integer, or a vector of them, of BYTES bytes.
template <int BYTES> struct WordOf;
template <> struct WordOf<1> { typedef unsigned char type; };
template <> struct WordOf<2> { typedef unsigned short type; };
template <> struct WordOf<4> { typedef unsigned int type; };
template <> struct WordOf<8> { typedef uint2 type; };
template <> struct WordOf<16> { typedef uint4 type; };
template <int BYTES> using Word = typename WordOf<BYTES>::type;

// V elements that one instruction moves.
template <class T, int V> union Vector {
  Word<V * (int)sizeof(T)> word;
  T element[V];
  u32 half[(V * sizeof(T) + 3) / 4];
  __device__ Vector() {}
};

// Element n. Those of two bytes by shifts, which compilers join with what is done to them: to widen a bf16 is one mask.
template <class T, int V> __device__ inline T nth_of(const Vector<T, V>& x, int n) {
  if constexpr (sizeof(T) == 2 && V > 1) {
    T y;
    *(unsigned short*)&y = (unsigned short)(x.half[n / 2] >> 16 * (n % 2));
    return y;
  } else {
    return x.element[n];
  }
}

// Neighbouring values of any type as elements of type `To`.
template <class To, class From, int V> __device__ inline Vector<To, V> packed(const From (&x)[V]) {
  Vector<To, V> y;
  if constexpr (V % 2 == 0 && same<From, float> && (same<To, bf16> || same<To, f16>)) {
#pragma unroll
    for (int n = 0; n < V; n += 2) y.half[n / 2] = pack2<To>(x[n], x[n + 1]);
  } else {
#pragma unroll
    for (int n = 0; n < V; ++n) y.element[n] = cast<To>(x[n]);
  }
  return y;
}

}  // namespace tw
