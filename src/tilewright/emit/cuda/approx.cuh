// Functions for results of 16 bits: a few instructions of the special units each, errors below 2^-20 of the largest value.
// Values below 2^-126 count as 0 (ftz): to keep them would cost three more instructions each.
#pragma once
#include "tw/types.cuh"

namespace tw {

__device__ inline float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

struct ApproxExp2 {
  __device__ float operator()(float x) const { return power_of_2(x); }
};
// The rounding of the argument in base 2 is that of the argument itself: a relative error of |x| 2^-24 beside the unit's.
struct ApproxExp {
  __device__ float operator()(float x) const { return power_of_2(1.44269504f * x); }
};
struct ApproxDiv {
  __device__ float operator()(float x, float y) const { return x * inverse(y); }
};

struct ApproxSigmoid {
  __device__ float operator()(float x) const { return inverse(1.0f + power_of_2(-1.44269504f * x)); }
};

// 1 - 2 / (1 + exp(2 x)); near 0, where that cancels, x - x^3 / 3.
struct ApproxTanh {
  __device__ float operator()(float x) const {
    const float far = 1.0f - 2.0f * inverse(1.0f + power_of_2(2.88539008f * x));
    return fabsf(x) < 0.04f ? x * (1.0f - 0.33333333f * x * x) : far;
  }
};

// 1 - erfc(|x|), and erfc(a) = 2^(a P(a)): P of degree 4 fitted to log2(erfc(a)) / a on [0, 4], each error weighted by
// erfc(a), so that what remains of erf is below 6.5e-7 everywhere; beyond 4 the power is smaller than that. The leading
// coefficient is negative: for whatever is larger, infinity included, the power is 0. One special function a value.
struct ApproxErf {
  __device__ float operator()(float x) const {
    const float a = fabsf(x);
    const float p = -1.627889f + a * (-0.918509442f + a * (-0.148665436f + a * (0.0295898613f + a * -0.00294410233f)));
    return copysignf(1.0f - power_of_2(a * p), x);
  }
};

}  // namespace tw
