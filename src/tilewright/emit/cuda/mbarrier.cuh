// Barriers of a block or a cluster: mbarriers in shared memory, named barriers, and the slots of rings that they guard.
#pragma once

namespace tw {

__device__ inline unsigned shared_address(const void* p) { return unsigned(__cvta_generic_to_shared(p)); }

// One lane of a warp whose lanes are all here.
__device__ inline bool elected() {
  unsigned is;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(is));
  return is;
}

// A barrier whose phases complete after a number of arrivals and all bytes that were announced (PTX ISA, mbarrier).
struct Barrier {
  unsigned long long word;

  __device__ void init(unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals) : "memory");
  }
  // One arrival that also announces bytes which copies will bring.
  __device__ void expect(unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(this)), "r"(bytes) : "memory");
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this)) : "memory");
  }
  __device__ bool passed(unsigned parity) {
    unsigned done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(this)), "r"(parity)
        : "memory");
    return done;
  }
  // Until the phase with this parity is complete.
  __device__ void wait(unsigned parity) {
    while (!passed(parity)) {
    }
  }
};

// Makes initialised barriers visible to the copy engine and to other blocks of the cluster.
__device__ inline void fence_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// Makes plain writes to shared memory visible to the copy engine.
__device__ inline void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The place of one iteration in a ring of STAGES slots; the phase flips with every turn.
template <int STAGES>
struct Slot {
  int index = 0;
  unsigned phase = 0;

  __device__ void next() {
    if (++index == STAGES) index = 0, phase ^= 1;
  }
  __device__ void skip(int count) {
    index += count;
    phase ^= (index / STAGES) & 1;
    index %= STAGES;
  }
  __device__ int previous() const { return index == 0 ? STAGES - 1 : index - 1; }
};

// Named barriers of the block: `threads` of it meet at barrier `id`, or come by and go on.
__device__ inline void meet(int id, int threads) { asm volatile("barrier.cta.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ inline void pass(int id, int threads) { asm volatile("barrier.cta.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

template <int REGISTERS>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

}  // namespace tw
