// The copy engine, emulated: boxes arrive at random times, and until then their place holds NaN.
#pragma once
#include "tw/mbarrier.cuh"

struct alignas(128) CUtensorMap {
  unsigned long long opaque[16];  // the first word: a Map
};

namespace tw {

struct Map {
  unsigned short* tensor;
  int dims, swizzle;
  long sizes[5], strides[5];
  int box[5];
};
enum : unsigned long long { EVICT_NORMAL, EVICT_FIRST, EVICT_LAST };
inline void prefetch(const CUtensorMap&) {}
inline std::vector<std::function<void()>> flying, leaving[1024];

// Where an element of a box lies: chunks of 16 bytes are exchanged by the number of the row.
inline unsigned short* place(const void* box, int row, int column, int swizzle) {
  const int turned = swizzle == 128 ? row & 7 : swizzle == 64 ? row >> 1 & 3 : swizzle == 32 ? row >> 2 & 1 : 0;
  return (unsigned short*)((unsigned char*)box + row * swizzle + (column / 8 ^ turned) * 16 + column % 8 * 2);
}
template <class F> void each(const Map& map, const std::vector<int>& at, const void* box, F what) {
  if ((int)at.size() != map.dims) emulated::fail("a box has other dimensions than its tensor");
  if (shared_address(box) % 1024) emulated::fail("a box is not aligned");
  const int height = map.box[1], deep = map.dims > 2 ? map.box[2] : 1;
  for (int row = 0; row < height * deep; ++row) {
    for (int column = 0; column < map.box[0]; ++column) {
      long offset = 0;
      bool in = true;
      for (int d = 0; d < map.dims; ++d) {
        const long i = at[d] + (d == 0 ? column : d == 1 ? row % height : d == 2 ? row / height : 0);
        in &= i >= 0 && i < map.sizes[d], offset += i * map.strides[d];
      }
      what(place(box, row, column, map.swizzle), in ? map.tensor + offset : nullptr);
    }
  }
}
template <class... C> void load_box(void* to, const CUtensorMap& which, Barrier& full, unsigned long long, C... at) {
  const Map* map = (const Map*)which.opaque[0];
  const std::vector<int> begin{at...};
  each(*map, begin, to, [](unsigned short* here, const unsigned short*) { *here = 0xffff; });
  flying.push_back([=, &full] {
    each(*map, begin, to, [](unsigned short* here, const unsigned short* there) { *here = there ? *there : 0; });
    full.changed(0, -2L * map->box[0] * map->box[1] * (map->dims > 2 ? map->box[2] : 1));
  });
}
template <class... C> void store_box(const CUtensorMap& which, const void* from, C... at) {
  const Map* map = (const Map*)which.opaque[0];
  const std::vector<int> begin{at...};
  leaving[threadIdx.x].push_back([=] {
    each(*map, begin, from, [](const unsigned short* here, unsigned short* there) {
      if (there) *there = *here;
    });
  });
}
template <int BOXES, int WIDE, int BYTES, class... C>
void load_boxes(unsigned char* to, const CUtensorMap& which, Barrier& full, unsigned long long hint, int first, C... at) {
  for (int n = 0; n < BOXES; ++n) load_box(to + n * BYTES, which, full, hint, first + n * WIDE, at...);
}
template <int BOXES, int WIDE, int BYTES, class... C>
void store_boxes(const CUtensorMap& which, const unsigned char* from, int first, C... at) {
  for (int n = 0; n < BOXES; ++n) store_box(which, from + n * BYTES, first + n * WIDE, at...);
}
inline void commit_stores() {}
template <int GROUPS> void wait_stores() {
  for (auto& store : leaving[threadIdx.x]) store();
  leaving[threadIdx.x].clear();
}

}  // namespace tw
