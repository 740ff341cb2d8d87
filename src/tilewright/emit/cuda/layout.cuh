// Which thread of a team holds which positions of an axis. A tile has one such distribution for each of its axes.
//
// A distribution D has, for the registers r = 0 .. N-1 of one thread along the axis,
//   position = start of the tile + D::base(thread) + D::at(r)
// with `at` known at compile time. RUN neighbouring registers hold RUN neighbouring positions, INNER of them are stored
// side by side. Lanes are told apart by the bits LO .. LO+BITS-1 of the lane, warps by WARPS steps of WARP_STRIDE warps.
// Threads that these do not tell apart hold copies.
#pragma once

namespace tw {

// A number n as times * d + left; neither is negative, which saves half of the instructions of a division.
struct Share {
  int times, left;
};
__device__ inline Share share(int n, int d) {
  const unsigned times = (unsigned)n / (unsigned)d;
  return {(int)times, n - (int)times * d};
}

// The threads that hold tiles together: a block or a part of it, whole warps, `thread` counted from its first one.
template <int THREADS_, int BARRIER = 0> struct Team {
  static constexpr int THREADS = THREADS_;
  int thread;
  __device__ int lane() const { return thread & 31; }
  __device__ int warp() const { return thread >> 5; }
  __device__ void sync() const {
    if constexpr (THREADS == 32) __syncwarp();
    else asm volatile("bar.sync %0, %1;" ::"n"(BARRIER), "n"(THREADS) : "memory");
  }
};

// GROUPS x V positions a thread, dealt in runs of V to the 2^B threads that differ in the bits L .. L+B-1 of their number.
template <int GROUPS, int V, int L, int B> struct Spread {
  static constexpr int N = GROUPS * V, INNER = V, RUN = V;
  static constexpr int LO = L < 5 ? L : 5, BITS = L + B <= 5 ? B : 5 - LO;
  static constexpr int WARP_STRIDE = 1 << (L > 5 ? L - 5 : 0), WARPS = 1 << (B - BITS);
  __device__ static constexpr int at(int r) { return ((r / V) << B) * V + r % V; }
  __device__ static constexpr int base(int thread) { return (thread >> L & ((1 << B) - 1)) * V; }
};

// Rows of the accumulators of mma.m16n8 and of wgmma: WM warps (a grid of WM x WN, rows fastest), MT fragments of 16 each.
template <int WM, int WN, int MT> struct AccRows {
  static constexpr int N = MT * 2, INNER = 2, RUN = 1;
  static constexpr int LO = 2, BITS = 3, WARP_STRIDE = 1, WARPS = WM;
  __device__ static constexpr int at(int r) { return r / 2 * (WM * 16) + r % 2 * 8; }
  __device__ static constexpr int base(int thread) { return (thread >> 5) % WM * 16 + (thread >> 2 & 7); }
};

// Their columns: WN warps, each NT neighbouring fragments of 8.
template <int WM, int WN, int NT> struct AccCols {
  static constexpr int N = NT * 2, INNER = 2, RUN = 2;
  static constexpr int LO = 0, BITS = 2, WARP_STRIDE = WM, WARPS = WN;
  __device__ static constexpr int at(int r) { return r / 2 * 8 + r % 2; }
  __device__ static constexpr int base(int thread) { return (thread >> 5) / WM % WN * (NT * 8) + (thread & 3) * 2; }
};

// The range of axis A that the team works on now: from `start` to before `stop`. EDGE is 0 where the whole tile exists;
// else a power of two: the tile ends at a multiple of so many positions after its start.
template <class A, int EDGE> struct Part {
  typedef A axis;
  int start, stop, first;
  __device__ Part(int from, int to, int mine) : start(from), stop(to), first(mine) {}
  template <class TEAM> __device__ Part(int from, int to, TEAM team) : start(from), stop(to) {
    first = from + A::base(team.thread);
  }
  __device__ int at(int r) const { return first + A::at(r); }
  // Neighbours that are stored side by side are in or out together where the tile ends at a multiple of so many.
  __device__ bool in(int r) const { return EDGE == 0 || at(EDGE % A::RUN == 0 ? r - r % A::RUN : r) < stop; }
};

// The same tile without its edge, for values that are 0 past it.
template <class A, int EDGE> __device__ inline Part<A, 0> unmasked(const Part<A, EDGE>& p) { return Part<A, 0>(p.start, p.stop, p.first); }

// Whether this thread is the one, of those with copies of a tile with axes A, that speaks for all.
template <class... A, class TEAM> __device__ inline bool speaks(TEAM team) {
  constexpr int lanes = (0 | ... | (((1 << A::BITS) - 1) << A::LO)), holders = (1 * ... * (A::WARPS << A::BITS));
  if constexpr (holders == TEAM::THREADS) return true;
  const int warp = team.warp() - (0 + ... + (team.warp() / A::WARP_STRIDE % A::WARPS * A::WARP_STRIDE));
  return (team.lane() & ~lanes) == 0 && warp == 0;
}

}  // namespace tw
