// What will be read later is asked for now.
#pragma once

namespace tw {

// `count` neighbours are on their way to L2; nobody waits for them.
template <class T> __device__ inline void ask(const T* from, int count) {
  constexpr int LINE = 128 / (int)sizeof(T);
  for (int at = (int)threadIdx.x * LINE; at < count; at += (int)blockDim.x * LINE) asm volatile("prefetch.global.L2 [%0];" ::"l"(from + at));
}

}  // namespace tw
