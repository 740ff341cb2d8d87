// Kernels in a row: one may begin while the one before it ends, and waits for its results where it needs them.
#pragma once

namespace tw {

#if __CUDA_ARCH__ >= 900
// The next kernel of the stream may start; and, the kernel before this one has ended and its results can be seen.
__device__ inline void let_next_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ inline void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// A pointer to global memory that the compiler knows nothing else of before this line: loads through it, read-only ones
// too, stay behind it.
template <class T> __device__ inline T* from_here(T* p) {
  auto there = __cvta_generic_to_global(p);
  asm volatile("" : "+l"(there));
  return (T*)__cvta_global_to_generic(there);
}
#else
__device__ inline void let_next_start() {}
__device__ inline void wait_for_last() {}
template <class T> __device__ inline T* from_here(T* p) { return p; }
#endif

}  // namespace tw
