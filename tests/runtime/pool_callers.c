// Callers of a pool of threads at once, for ThreadSanitizer: `THREADS_OF_POOL REGIONS CALLERS`, and its exit status.
// Regions have three phases, each of which reads with plain loads what other threads have stored in the one before.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*Phase)(void*, long, long);
void tw_parallel_phases(void* pool, Phase* phases, long count, void* args);
_Bool tw_pool_claim(void* pool);
void tw_pool_stop(void* pool);

typedef struct { long in[64], out[64], seed; } Args;

static void scatter(void* args, long part, long threads) {
  Args* x = args;
  x->in[part] = x->seed + part, x->out[part] = threads;
}

static void gather(void* args, long part, long threads) {
  Args* x = args;
  long sum = 0;
  for (long t = 0; t < threads; ++t) sum += x->in[t];
  x->out[part] = sum;
}

static void pass_on(void* args, long part, long threads) {
  Args* x = args;
  x->in[part] = x->out[(part + 1) % threads];
}

static void* pool;
static long threads, regions, wrong;

static void* caller(void* me) {
  Phase phases[] = {scatter, gather, pass_on};
  Args x;
  for (long r = 0; r < regions; ++r) {
    memset(&x, 0, sizeof x), x.seed = (long)me * 1000 + r;
    tw_parallel_phases(pool, phases, 3, &x);
    const long sum = threads * x.seed + threads * (threads - 1) / 2;
    for (long t = 0; t < threads; ++t)
      if (x.in[t] != sum || x.out[t] != sum) __atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
    if (r % 97 == 0) usleep(300);  // workers fall asleep meanwhile
  }
  return NULL;
}

static void word(long at, long value) { *(long*)((char*)pool + at) = value; }

int main(int count, char** given) {
  threads = atol(given[1]), regions = atol(given[2]);
  const long callers = atol(given[3]), size = WORKERS + threads * LINE;
  pool = memset(aligned_alloc(LINE, size), 0, size);
  word(THREADS, threads), word(SPIN, 200);
  for (long t = 0; t < threads; ++t) {
    const long at = WORKERS + t * LINE;
    word(at + POOL, (long)pool), word(at + INDEX, t), word(at + CORE, -1);
  }
  pthread_t others[16];
  for (long c = 0; c < callers; ++c) pthread_create(&others[c], NULL, caller, (void*)c);
  for (long c = 0; c < callers; ++c) pthread_join(others[c], NULL);
  while (!tw_pool_claim(pool)) usleep(100);
  tw_pool_stop(pool);
  printf("%ld wrong of %ld\n", wrong, regions * callers);
  return wrong != 0;
}
