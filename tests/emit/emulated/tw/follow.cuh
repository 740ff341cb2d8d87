// Kernels in a row, emulated: there is only one.
#pragma once

namespace tw {

inline void let_next_start() {}
inline void wait_for_last() {}
template <class T> T* from_here(T* p) { return p; }

}  // namespace tw
