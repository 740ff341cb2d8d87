// Functions for results of 16 bits: a few instructions each, errors below 2^-20 of the largest value (erf: 2^-15, an eighth
// of what f16 rounds).
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

// x P(x^2), P of degree 9 with the least relative error on [0, 3.1] (2^-17, and 2^-15 in f32), where erf is 1 to 2^-16: half
// the instructions of a form with a power and a quotient, and none of the special units'.
struct ApproxErf {
  __device__ float operator()(float x) const {
    float c;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(x), "f"(-3.1f));
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(c), "f"(3.1f));
    const float s = c * c;
    float y = fmaf(-3.31741234e-09f, s, 1.83216343e-07f);
    y = fmaf(y, s, -4.52245195e-06f);
    y = fmaf(y, s, 6.65787666e-05f);
    y = fmaf(y, s, -6.61287631e-04f);
    y = fmaf(y, s, 4.77072271e-03f);
    y = fmaf(y, s, -2.62250975e-02f);
    y = fmaf(y, s, 1.12357669e-01f);
    y = fmaf(y, s, -3.75980645e-01f);
    return fmaf(y, s, 1.12837148f) * c;
  }
};

}  // namespace tw
