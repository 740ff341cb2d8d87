// Elementwise operators, and the loop that applies one to tiles.
#pragma once
#include "tw/tile.cuh"

namespace tw {

// y = op(x...) element by element; operands repeat along the axes that they lack.
template <class TILE, class OP, class... X> __device__ TILE map(OP op, const X&... x) {
  TILE y;
#pragma unroll
  for (int f = 0; f < TILE::N; ++f) y.v[f] = op(at<TILE>(x, f)...);
  return y;
}

struct Add { template <class T> __device__ T operator()(T x, T y) const { return x + y; } };
struct Sub { template <class T> __device__ T operator()(T x, T y) const { return x - y; } };
struct Mul { template <class T> __device__ T operator()(T x, T y) const { return x * y; } };
struct Neg { template <class T> __device__ T operator()(T x) const { return -x; } };
struct Abs { template <class T> __device__ T operator()(T x) const { return x < T(0) ? -x : x + T(0); } };

// Of integers the quotient and the remainder of the division that rounds down.
struct Div {
  __device__ float operator()(float x, float y) const { return x / y; }
  __device__ double operator()(double x, double y) const { return x / y; }
  template <class T> __device__ T operator()(T x, T y) const { return x / y - (x % y != 0 && (x < 0) != (y < 0)); }
};
struct Mod {
  __device__ float operator()(float x, float y) const { return x - floorf(x / y) * y; }
  __device__ double operator()(double x, double y) const { return x - floor(x / y) * y; }
  template <class T> __device__ T operator()(T x, T y) const { return x % y + (x % y != 0 && (x < 0) != (y < 0) ? y : 0); }
};

// The same by 2^N, whatever the second operand.
template <int N> struct DivBy { template <class T> __device__ T operator()(T x, T) const { return x >> N; } };
template <int N> struct ModBy {
  template <class T> __device__ T operator()(T x, T) const { return x & ((T(1) << N) - T(1)); }
};

// A NaN in either operand is the result.
struct Max {
  template <class T> __device__ T operator()(T x, T y) const { return x != x || x > y ? x : y; }
  __device__ float operator()(float x, float y) const {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
  }
};
struct Min {
  template <class T> __device__ T operator()(T x, T y) const { return x != x || x < y ? x : y; }
  __device__ float operator()(float x, float y) const {
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
  }
};

struct Exp {
  __device__ float operator()(float x) const { return expf(x); }
  __device__ double operator()(double x) const { return exp(x); }
};
struct Exp2 {
  __device__ float operator()(float x) const { return exp2f(x); }
  __device__ double operator()(double x) const { return exp2(x); }
};
struct Log {
  __device__ float operator()(float x) const { return logf(x); }
  __device__ double operator()(double x) const { return log(x); }
};
struct Sqrt {
  __device__ float operator()(float x) const { return sqrtf(x); }
  __device__ double operator()(double x) const { return sqrt(x); }
};
struct Rsqrt {
  __device__ float operator()(float x) const { return rsqrtf(x); }
  __device__ double operator()(double x) const { return rsqrt(x); }
};
struct Tanh {
  __device__ float operator()(float x) const { return tanhf(x); }
  __device__ double operator()(double x) const { return tanh(x); }
};
struct Erf {
  __device__ float operator()(float x) const { return erff(x); }
  __device__ double operator()(double x) const { return erf(x); }
};
// 1 / (1 + exp(-x)): ex2 and rcp of the special units, a relative error of about 2^-21 for |x| below 80.
struct Sigmoid {
  __device__ float operator()(float x) const { return __fdividef(1.0f, 1.0f + expf(-x)); }
  __device__ double operator()(double x) const { return 1.0 / (1.0 + exp(-x)); }
};

struct Lt { template <class T> __device__ bool operator()(T x, T y) const { return x < y; } };
struct Le { template <class T> __device__ bool operator()(T x, T y) const { return x <= y; } };
struct Gt { template <class T> __device__ bool operator()(T x, T y) const { return x > y; } };
struct Ge { template <class T> __device__ bool operator()(T x, T y) const { return x >= y; } };
struct Eq { template <class T> __device__ bool operator()(T x, T y) const { return x == y; } };
struct Ne { template <class T> __device__ bool operator()(T x, T y) const { return x != y; } };
struct And { __device__ bool operator()(bool x, bool y) const { return x && y; } };
struct Or { __device__ bool operator()(bool x, bool y) const { return x || y; } };
struct Not { __device__ bool operator()(bool x) const { return !x; } };
struct Select { template <class T> __device__ T operator()(bool c, T x, T y) const { return c ? x : y; } };
template <class To> struct Cast { template <class T> __device__ To operator()(T x) const { return cast<To>(x); } };

// Tiles of 8 bits made wider, two neighbours in registers at once.
template <class TILE, class... A> __device__ TILE map(Cast<bf16>, const Tile<f8e4m3, A...>& x) {
  static_assert(TILE::N == Tile<f8e4m3, A...>::N, "the same axes");
  TILE y;
#pragma unroll
  for (int f = 0; f + 1 < TILE::N; f += 2) {
    const u32 two = widened_pair(x.v[f], x.v[f + 1]);
    y.v[f].bits = (unsigned short)two, y.v[f + 1].bits = (unsigned short)(two >> 16);
  }
  if (TILE::N % 2) y.v[TILE::N - 1] = cast<bf16>(x.v[TILE::N - 1]);
  return y;
}

}  // namespace tw
