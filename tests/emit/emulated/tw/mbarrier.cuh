// Barriers of a block, emulated: phases complete when all arrivals and all bytes are there.
#pragma once
#include "block.h"

namespace tw {

inline unsigned shared_address(const void* p) { return unsigned((const unsigned char*)p - shared); }
inline bool elected() { return threadIdx.x % 32 == 0; }

struct Barrier {
  unsigned long long word;
  struct State {
    int arrivals = 0, pending = 0;
    long bytes = 0;
    unsigned phase = 0;
  };
  static inline std::unordered_map<const void*, State> all;

  State& state() {
    const auto found = all.find(this);
    if (found == all.end()) emulated::fail("a barrier was not initialised");
    return found->second;
  }
  void changed(int arrivals, long bytes) {
    State& s = state();
    s.pending -= arrivals, s.bytes += bytes, ++emulated::moved;
    if (s.pending < 0) emulated::fail("a barrier has more arrivals than it counts");
    if (s.pending == 0 && s.bytes == 0) s.phase ^= 1, s.pending = s.arrivals;
  }
  void init(unsigned arrivals) { all[this] = {int(arrivals), int(arrivals), 0, 0}; }
  void expect(unsigned bytes) { changed(1, bytes); }
  void arrive() { changed(1, 0); }
  void wait(unsigned parity) {
    while (state().phase == parity) emulated::wait();
  }
};
inline void fence_barriers() {}
inline void fence_shared() {}

template <int STAGES> struct Slot {
  int index = 0;
  unsigned phase = 0;
  void next() {
    if (++index == STAGES) index = 0, phase ^= 1;
  }
  int previous() const { return index == 0 ? STAGES - 1 : index - 1; }
};

struct Named {
  int here = 0;
  long turn = 0;
};
inline Named named[16];
inline void pass(int id, int threads) {
  ++emulated::moved;
  if (++named[id].here == threads) named[id].here = 0, ++named[id].turn;
}
inline void meet(int id, int threads) {
  const long turn = named[id].turn;
  pass(id, threads);
  while (named[id].turn == turn) emulated::wait();
}
template <int REGISTERS> void more_registers() {}
template <int REGISTERS> void fewer_registers() {}

}  // namespace tw
