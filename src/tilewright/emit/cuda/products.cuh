// Steps of the matrix unit of Hopper: products issued, and how many steps it may still work on when the warpgroup goes on.
#pragma once
#include "tw/tile.cuh"
#include "tw/wgmma.cuh"

namespace tw {

// 64 rows of a warpgroup by COLUMNS, as the matrix unit deals them to its threads; and the columns alone.
template <int COLUMNS> using Columns = AccCols<4, 1, COLUMNS / 8>;
typedef AccRows<4, 1, 1> Rows;
template <class T, int COLUMNS> using Sums = Tile<T, Rows, Columns<COLUMNS>>;

// acc = a b + (keep ? acc : 0), where the sum has STEPS times 32 bytes; all but IN_FLIGHT of such steps are done then.
template <int IN_FLIGHT, class T, int STEPS, class D, int COLUMNS_8, class A, class B>
__device__ __forceinline__ void multiply_step(Tile<D, Rows, AccCols<4, 1, COLUMNS_8>>& acc, const A& a, const B& b, bool keep) {
  wgmma_fence();
  multiply<T, 8 * COLUMNS_8, STEPS>(acc.v, a, b, keep);
  wgmma_commit();
  wgmma_wait<IN_FLIGHT>();
}

// The products issued since the last fence are a step: the same.
template <int IN_FLIGHT> __device__ __forceinline__ void end_step() {
  wgmma_commit();
  wgmma_wait<IN_FLIGHT>();
}

// All products are done: nothing touches accumulators before this line.
template <class... ACC> __device__ __forceinline__ void finish(ACC&... acc) {
  wgmma_wait<0>();
  (hold(acc.v), ...);
}

}  // namespace tw
