// Sums, maxima and minima along an axis, and products summed along one: inside a thread, then across lanes and warps.
#pragma once
#include "tw/map.cuh"

namespace tw {

// ------------------------------------------------------------------------------------------------- neutral values
template <class T> __device__ inline T lowest() {
  if constexpr (same<T, float>) return __uint_as_float(0xff800000u);
  else if constexpr (same<T, double>) return (double)__uint_as_float(0xff800000u);
  else return (T)((i64)1 << (sizeof(T) * 8 - 1));
}
template <class OP, class T> __device__ inline T neutral() {
  if constexpr (same<OP, Max>) return lowest<T>();
  else if constexpr (same<OP, Min> && (same<T, float> || same<T, double>)) return -lowest<T>();
  else if constexpr (same<OP, Min>) return (T)~lowest<T>();
  else return T(0);
}

template <class X> struct Element { typedef X type; };
template <class T, class... A> struct Element<Tile<T, A...>> { typedef T type; };
template <class X> __device__ constexpr int count(const X*) { return 1; }
template <class T, class... A> __device__ constexpr int count(const Tile<T, A...>*) { return Tile<T, A...>::N; }
template <class T> __device__ T& nth(T& x, int) { return x; }
template <class T, class... A> __device__ T& nth(Tile<T, A...>& x, int f) { return x.v[f]; }

// A tile (or scalar) that changes nothing when `op` joins it with another.
template <class X, class OP> __device__ X nothing(OP) {
  typedef typename Element<X>::type T;
  X y;
#pragma unroll
  for (int f = 0; f < count((X*)nullptr); ++f) nth(y, f) = neutral<OP, T>();
  return y;
}

// ------------------------------------------------------------------------------------------------- inside a thread
// y = op(y, x) for each of this thread's elements of x along the axis of `part`.
template <class OP, class Y, class X, class A, int EDGE>
__device__ void fold(OP op, Y& y, const X& x, const Part<A, EDGE>& part) {
#pragma unroll
  for (int f = 0; f < X::N; ++f) {
    if (EDGE == 0 || part.in(along<X, A>(f))) at<X>(y, f) = op(at<X>(y, f), x.v[f]);
  }
}

template <class K, class Y> struct WithSum { typedef Tile<Y, K> type; };
template <class K, class T, class... A> struct WithSum<K, Tile<T, A...>> { typedef Tile<T, K, A...> type; };

// y += a b for each of this thread's positions along the axis of `part`, in their order.
template <class Y, class A, class B, class K, int EDGE>
__device__ void dot(Y& y, const A& a, const B& b, const Part<K, EDGE>& part) {
  typedef typename Element<Y>::type T;
  typedef typename WithSum<K, Y>::type ALL;
#pragma unroll
  for (int f = 0; f < ALL::N; ++f) {
    T& sum = at<ALL>(y, f);
    if (EDGE == 0 || part.in(along<ALL, K>(f))) sum += cast<T>(at<ALL>(a, f)) * cast<T>(at<ALL>(b, f));
  }
}

// ------------------------------------------------------------------------------------------------- across threads
// x = op over all threads that hold other positions along A, in the same order everywhere: all get the same bits.
template <class A, class OP, class X, class TEAM> __device__ void join(OP op, X& x, TEAM team) {
  typedef typename Element<X>::type T;
  constexpr int N = count((X*)nullptr);
#pragma unroll
  for (int b = 0; b < A::BITS; ++b) {
#pragma unroll
    for (int f = 0; f < N; ++f) nth(x, f) = op(nth(x, f), __shfl_xor_sync(0xffffffffu, nth(x, f), 1 << (A::LO + b)));
  }
  if constexpr (A::WARPS > 1) {
    constexpr int ROUND = N < 8 ? N : 8;
    __shared__ T slots[ROUND][TEAM::THREADS];
    const int first = team.thread - team.warp() / A::WARP_STRIDE % A::WARPS * A::WARP_STRIDE * 32;
#pragma unroll
    for (int from = 0; from < N; from += ROUND) {
      team.sync();
#pragma unroll
      for (int f = 0; f < ROUND; ++f) {
        if (from + f < N) slots[f][team.thread] = nth(x, from + f);
      }
      team.sync();
#pragma unroll
      for (int f = 0; f < ROUND; ++f) {
        if (from + f >= N) continue;
        T sum = slots[f][first];
#pragma unroll
        for (int w = 1; w < A::WARPS; ++w) sum = op(sum, slots[f][first + w * A::WARP_STRIDE * 32]);
        nth(x, from + f) = sum;
      }
    }
  }
}

// `x` reduced over the axis of `part`: a value for each point of the other axes, in every thread that holds that point.
template <class Y, class OP, class X, class A, int EDGE, class TEAM>
__device__ Y reduce(OP op, const X& x, const Part<A, EDGE>& part, TEAM team) {
  Y y = nothing<Y>(op);
  fold(op, y, x, part);
  join<A>(op, y, team);
  return y;
}

}  // namespace tw
