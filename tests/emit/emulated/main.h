// Runs a grid, block by block, on operands from a file; writes all operands as they are then to another.
#pragma once
#include "tw/wgmma.cuh"

namespace emulated {

inline Args* argument;
inline bool ended[1024];

inline void body() {
  ENTRY(*argument);
  tw::wait_stores<0>();
  ended[running] = true, ++moved;
  swapcontext(&fibers[running], &back);
}
inline void begin(int block, int threads) {
  static std::vector<std::vector<char>> stacks(threads, std::vector<char>(256 << 10));
  blockIdx.x = block;
  memset(shared, 0xff, sizeof(shared));
  tw::Barrier::all.clear();
  for (auto& n : tw::named) n = {};
  for (auto& w : warps) w = {};
  for (int t = 0; t < threads; ++t) {
    ended[t] = false, tw::issued[t] = {};
    getcontext(&fibers[t]);
    fibers[t].uc_stack.ss_sp = stacks[t].data(), fibers[t].uc_stack.ss_size = stacks[t].size(), fibers[t].uc_link = &back;
    makecontext(&fibers[t], body, 0);
  }
}
inline void run(int block, int threads) {
  begin(block, threads);
  for (int alive = threads, idle = 0; alive; ) {
    const long before = moved;
    const int first = dice() % threads;
    alive = 0;
    for (int i = 0; i < threads; ++i) {
      const int t = (first + i) % threads;
      if (ended[t]) continue;
      running = threadIdx.x = t, ++alive;
      swapcontext(&back, &fibers[t]);
    }
    for (size_t i = 0; i < tw::flying.size();) {
      if (dice() % 3) ++i;
      else {
        const auto copy = tw::flying[i];
        tw::flying.erase(tw::flying.begin() + i);
        copy();
      }
    }
    idle = moved == before && tw::flying.empty() ? idle + 1 : 0;
    if (idle > 50) fail("all threads wait for ever");
  }
}
inline FILE* file;
inline long long number() {
  long long n;
  if (fread(&n, 8, 1, file) != 1) fail("the setup is cut off");
  return n;
}

}  // namespace emulated

int main(int, char** arguments) {
  using namespace emulated;
  static Args args;
  static tw::Map maps[8];
  file = fopen(arguments[1], "rb"), dice.seed(atoi(arguments[3]));
  std::vector<std::vector<unsigned char>> tensors(number());
  for (auto& t : tensors) {
    t.resize(number());
    if (fread(t.data(), 1, t.size(), file) != t.size()) fail("the setup is cut off");
    t.resize(t.size() + 64);
  }
  const long long words = number();
  for (long long i = 0; i < words; ++i) args.words[i] = number();
  for (long long n = number(); n > 0; --n) {
    const long long word = number();
    args.words[word] = (long long)tensors[number()].data();
  }
  const long long count = number();
  for (long long i = 0; i < count; ++i) {
    tw::Map& m = maps[i];
    m.tensor = (unsigned short*)tensors[number()].data(), m.dims = number(), m.swizzle = number();
    for (int d = 0; d < m.dims; ++d) m.sizes[d] = number(), m.strides[d] = number(), m.box[d] = number();
    ((CUtensorMap*)&args)[i].opaque[0] = (unsigned long long)&m;
  }
  gridDim.x = number(), argument = &args;
  const int threads = number();
  for (int b = 0; b < gridDim.x; ++b) run(b, threads);
  FILE* const out = fopen(arguments[2], "wb");
  for (auto& t : tensors) fwrite(t.data(), 1, t.size() - 64, out);
  fclose(out);
}
