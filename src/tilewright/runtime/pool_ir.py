"""The worker pool's code, as LLVM IR text.

A region is a list of phases; a phase is as many parts as the pool has threads, and none of its parts begins before all
parts of the phase before have ended. The caller publishes a phase by raising the ticket `go` by four. It runs part 0;
each other part has a word in the pool, and belongs to whoever moves that word on:

    ticket - 4   ended in the phase before; nobody has begun it   -> claimed by compare-and-exchange
    ticket - 3   somebody runs it                                 -> awaited, once the caller has polled for long
    ticket - 2   awaited: the caller sleeps in the kernel
    ticket       ended: stored by whoever ran it, who then wakes a caller that sleeps

Worker t claims part t, so that a part meets the caches of the same core phase after phase. But a worker that has no
core at the moment holds nobody up: who is through first claims what nobody has begun, and the caller waits for parts
that run and for nothing else. So a phase may end before a worker has even seen its ticket. That worker finds the word
moved past what it expects, and has touched nothing of the phase but the words here. Words only grow, hence a claim
that succeeds proves the phase of its ticket to be open still: what was read of the phase before the claim is true.

Between two phases of a region and between two regions a worker does the same thing, waiting for the next ticket, so
there is no separate barrier. It polls a while, then sleeps in the kernel. On the core of the caller it would poll in
the caller's time: there it naps at once, and comes back by itself, most likely on a core that has become free.

The pool is one block of memory, named here by byte offsets. What one thread writes while others poll lies in a pair of
cache lines of its own (the x86 prefetcher fetches pairs).

A worker that is woken may run on any core of the process but the caller's. Linux wakes a thread where it ran last, and
need not look for a better core: of two cores, caller and worker were seen to share one for milliseconds while the other
idled. So before it wakes workers, the caller takes its core out of their masks.
"""

from __future__ import annotations

import platform
from string import Template

from tilewright.runtime.pool_threads_ir import THREADS_TEXT

LINE = 128
GO, FUNCTION, ARGS, CALLER = 0, 8, 16, 24  # the phase at hand and the caller's core: polled by the workers
BUSY = LINE  # 1 while a region runs
ASLEEP = 2 * LINE  # 1 if a worker may wait in the kernel, or be about to
THREADS, STATE, SPIN, CREATED, STOP, ROAMING = (
    3 * LINE + 8 * i for i in range(6)
)  # written before the workers run, or at the end; ROAMING: 1 if workers keep off the caller's core
CORES = 4 * LINE  # the cores that roaming workers may use, a bit for each of CORES_KNOWN
WORKERS = 5 * LINE  # of each thread: PART (the word of its part), POOL, INDEX, CORE, HANDLE, and its owner's note AWAY
PART, POOL, INDEX, CORE, HANDLE, AWAY = (8 * i for i in range(6))  # AWAY: 1 + the core it keeps off, or 0

CORES_KNOWN = 8 * LINE

NOT_STARTED, RUNNING, SERIAL = 0, 1, 2
"""Values of STATE: workers are created by the first region; a pool that could not create them runs serially."""

_NAP_NANOSECONDS = 200_000  # waking costs the caller some 5 us, a free core that is not noticed half of its speed

_FUTEX = {"x86_64": 202, "aarch64": 98}
_PAUSE = {"x86_64": "call void @llvm.x86.sse2.pause()", "aarch64": 'call void asm sideeffect "yield", ""()'}
_DECLARE_PAUSE = {"x86_64": "declare void @llvm.x86.sse2.pause()", "aarch64": ""}

_REGIONS_TEXT = """
$declare_pause
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()
declare i32 @sched_setaffinity(i32, i64, ptr)
declare i32 @prctl(i32, ...)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i32 @pthread_setaffinity_np(i64, i64, ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)

@name = private constant [11 x i8] c"tilewright\\00"
@nap = private constant [2 x i64] [i64 0, i64 $nap]

; ---------------------------------------------------------------------------------------------- the entry
; fns[count] of void(ptr args, i64 thread, i64 threads), called for all threads, phase after phase.
define void @tw_parallel_phases(ptr %pool, ptr %fns, i64 %count, ptr %args) {
entry:
  %threads_at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads_at
  %alone = icmp ult i64 %threads, 2
  br i1 %alone, label %serial, label %claim
claim:
  %mine = call i1 @tw_pool_claim(ptr %pool)
  br i1 %mine, label %owner, label %serial
owner:
  %ready = call i1 @ready(ptr %pool)
  br i1 %ready, label %parallel, label %without
parallel:
  call void @run(ptr %pool, ptr %fns, i64 %count, ptr %args, i64 %threads)
  br label %release
without:
  call void @run_serially(ptr %fns, i64 %count, ptr %args, i64 %threads)
  br label %release
release:
  ; release: what this region wrote to the pool is seen by the next to claim it.
  %busy = getelementptr i8, ptr %pool, i64 $BUSY
  store atomic i32 0, ptr %busy release, align 4
  ret void
serial:
  ; The pool is of one thread, or busy: with another thread of the program, or with the region that we are inside of.
  call void @run_serially(ptr %fns, i64 %count, ptr %args, i64 %threads)
  ret void
}

; Take the pool if it is free. The load in front spares the cache line while somebody else has it.
define i1 @tw_pool_claim(ptr %pool) {
entry:
  %busy = getelementptr i8, ptr %pool, i64 $BUSY
  %seen = load atomic i32, ptr %busy monotonic, align 4
  %free = icmp eq i32 %seen, 0
  br i1 %free, label %try, label %no
try:
  ; acquire: see all that the last owner wrote.
  %pair = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %taken = extractvalue { i32, i1 } %pair, 1
  ret i1 %taken
no:
  ret i1 false
}

define internal void @run_serially(ptr %fns, i64 %count, ptr %args, i64 %threads) {
entry:
  %none = icmp eq i64 %count, 0
  br i1 %none, label %end, label %phase
phase:
  %c = phi i64 [ 0, %entry ], [ %c1, %ended ]
  %fn_at = getelementptr ptr, ptr %fns, i64 %c
  %fn = load ptr, ptr %fn_at
  br label %each
each:
  %t = phi i64 [ 0, %phase ], [ %t1, %each ]
  call void %fn(ptr %args, i64 %t, i64 %threads)
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %threads
  br i1 %more, label %each, label %ended
ended:
  %c1 = add i64 %c, 1
  %again = icmp ult i64 %c1, %count
  br i1 %again, label %phase, label %end
end:
  ret void
}

define internal void @run(ptr %pool, ptr %fns, i64 %count, ptr %args, i64 %threads) {
entry:
  %fn_out = getelementptr i8, ptr %pool, i64 $FUNCTION
  %args_out = getelementptr i8, ptr %pool, i64 $ARGS
  %asleep_at = getelementptr i8, ptr %pool, i64 $ASLEEP
  %core_out = getelementptr i8, ptr %pool, i64 $CALLER
  %core = call i32 @sched_getcpu()
  store atomic i32 %core, ptr %core_out monotonic, align 4
  %none = icmp eq i64 %count, 0
  br i1 %none, label %end, label %phase
phase:
  %c = phi i64 [ 0, %entry ], [ %c1, %ended ]
  %fn_at = getelementptr ptr, ptr %fns, i64 %c
  %fn = load ptr, ptr %fn_at
  %late = load atomic i32, ptr %asleep_at monotonic, align 4
  %some_asleep = icmp ne i32 %late, 0
  br i1 %some_asleep, label %clear, label %publish
clear:
  ; By the caller, so that a worker which takes long to wake costs one call of the kernel and not one a phase; and
  ; before the ticket, so that no worker that has seen the ticket and gone to sleep again is overlooked.
  store atomic i32 0, ptr %asleep_at monotonic, align 4
  br label %publish
publish:
  ; Only the owner writes `go`. A late worker may read these three now: it will claim nothing with what it reads.
  %last = load atomic i64, ptr %pool monotonic, align 8
  %ticket = add i64 %last, 4
  store atomic ptr %fn, ptr %fn_out monotonic, align 8
  store atomic ptr %args, ptr %args_out monotonic, align 8
  ; seq_cst, twice: as a release it publishes the stores above and all data that the phase reads; and it is ordered
  ; before the load of `asleep`. A worker raises `asleep` and then has the kernel compare `go`: one of the two
  ; sees the other, so nobody sleeps through a ticket.
  store atomic i64 %ticket, ptr %pool seq_cst, align 8
  %now = load atomic i32, ptr %asleep_at seq_cst, align 4
  %ever = or i32 %late, %now
  %all_awake = icmp eq i32 %ever, 0
  br i1 %all_awake, label %own_part, label %wake
wake:
  call void @keep_clear(ptr %pool, i32 %core, i64 %threads)
  call void @wake(ptr %pool)
  br label %own_part
own_part:
  call void %fn(ptr %args, i64 0, i64 %threads)
  br label %part
part:
  %t = phi i64 [ 1, %own_part ], [ %t1, %seen ]
  %mine = call i1 @claim_part(ptr %pool, i64 %t, i64 %ticket)
  br i1 %mine, label %help, label %seen
help:
  call void @run_part(ptr %pool, i64 %t, i64 %ticket, ptr %fn, ptr %args, i64 %threads)
  br label %seen
seen:
  %t1 = add i64 %t, 1
  %others = icmp ult i64 %t1, %threads
  br i1 %others, label %part, label %barrier
barrier:
  %u = phi i64 [ 1, %seen ], [ %u1, %barrier ]
  call void @await_part(ptr %pool, i64 %u, i64 %ticket)
  %u1 = add i64 %u, 1
  %more = icmp ult i64 %u1, %threads
  br i1 %more, label %barrier, label %ended
ended:
  %c1 = add i64 %c, 1
  %next = icmp ult i64 %c1, %count
  br i1 %next, label %phase, label %end
end:
  ret void
}

; Sleep while the low half of a word is that of `value`, no longer than `longest` unless null; may return early.
define internal void @sleep(ptr %word, i64 %value, ptr %longest) {
  %low = trunc i64 %value to i32
  %ignored = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 128, i32 %low, ptr %longest)  ; FUTEX_WAIT_PRIVATE
  ret void
}

define internal void @wake(ptr %word) {
  %ignored = call i64 (i64, ...) @syscall(i64 $futex, ptr %word, i32 129, i32 2147483647)  ; FUTEX_WAKE_PRIVATE
  ret void
}

; Take the caller's core out of the masks of workers that roam, where it is not out yet. For the owner of the pool.
define internal void @keep_clear(ptr %pool, i32 %core, i64 %threads) {
entry:
  %mask = alloca [16 x i64]
  %roaming_at = getelementptr i8, ptr %pool, i64 $ROAMING
  %roaming = load i64, ptr %roaming_at
  %roam = icmp ne i64 %roaming, 0
  %known = icmp ult i32 %core, $CORES_KNOWN  ; not so where the kernel cannot tell: -1
  %do = and i1 %roam, %known
  br i1 %do, label %look, label %end
look:
  %cores_at = getelementptr i8, ptr %pool, i64 $CORES
  %cores = load [16 x i64], ptr %cores_at
  store [16 x i64] %cores, ptr %mask
  %here = zext i32 %core to i64
  %word = lshr i64 %here, 6
  %word_at = getelementptr i64, ptr %mask, i64 %word
  %bits = load i64, ptr %word_at
  %shift = and i64 %here, 63
  %bit = shl i64 1, %shift
  %others = xor i64 %bit, -1
  %left = and i64 %bits, %others
  store i64 %left, ptr %word_at
  %note = add i64 %here, 1
  br label %each
each:
  %t = phi i64 [ 1, %look ], [ %t1, %next ]
  %me = call ptr @part_word(ptr %pool, i64 %t)
  %away_at = getelementptr i8, ptr %me, i64 $AWAY
  %away = load i64, ptr %away_at
  %kept = icmp eq i64 %away, %note
  br i1 %kept, label %next, label %move
move:
  store i64 %note, ptr %away_at
  %handle_at = getelementptr i8, ptr %me, i64 $HANDLE
  %handle = load i64, ptr %handle_at
  %ignored = call i32 @pthread_setaffinity_np(i64 %handle, i64 128, ptr %mask)
  br label %next
next:
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %threads
  br i1 %more, label %each, label %end
end:
  ret void
}

; ---------------------------------------------------------------------------------------------- a part
define internal ptr @part_word(ptr %pool, i64 %t) {
  %at = mul i64 %t, $LINE
  %records = getelementptr i8, ptr %pool, i64 $WORKERS
  %word = getelementptr i8, ptr %records, i64 %at
  ret ptr %word
}

; Whether part t was still to be had, and is the calling thread's now. The load in front spares the cache line.
define internal i1 @claim_part(ptr %pool, i64 %t, i64 %ticket) {
entry:
  %word = call ptr @part_word(ptr %pool, i64 %t)
  %open = sub i64 %ticket, 4
  %seen = load atomic i64, ptr %word monotonic, align 8
  %free = icmp eq i64 %seen, %open
  br i1 %free, label %try, label %no
try:
  %claimed = sub i64 %ticket, 3
  ; release: what this thread has read of the phase, it read before. acquire: the part is run after.
  %pair = cmpxchg ptr %word, i64 %open, i64 %claimed acq_rel monotonic
  %taken = extractvalue { i64, i1 } %pair, 1
  ret i1 %taken
no:
  ret i1 false
}

define internal void @run_part(ptr %pool, i64 %t, i64 %ticket, ptr %fn, ptr %args, i64 %threads) {
entry:
  call void %fn(ptr %args, i64 %t, i64 %threads)
  %word = call ptr @part_word(ptr %pool, i64 %t)
  ; release: what the function wrote is seen by the caller, who lets all others pass on to the next phase.
  %was = atomicrmw xchg ptr %word, i64 %ticket release
  %awaited = sub i64 %ticket, 2
  %sleeps = icmp eq i64 %was, %awaited
  br i1 %sleeps, label %rouse, label %end
rouse:
  call void @wake(ptr %word)
  br label %end
end:
  ret void
}

; Wait for the end of a part that somebody runs.
define internal void @await_part(ptr %pool, i64 %t, i64 %ticket) {
entry:
  %word = call ptr @part_word(ptr %pool, i64 %t)
  %spin_at = getelementptr i8, ptr %pool, i64 $SPIN
  %spin = load i64, ptr %spin_at
  ; Longer than a worker does: parts differ in length, and whoever sleeps is late for the next phase.
  %longer = shl i64 %spin, 2
  br label %poll
poll:
  %left = phi i64 [ %longer, %entry ], [ %left1, %spin_once ], [ 0, %await ]
  ; acquire: see all that was written in this part.
  %answer = load atomic i64, ptr %word acquire, align 8
  %is_done = icmp eq i64 %answer, %ticket
  br i1 %is_done, label %end, label %wait
wait:
  %patient = icmp ne i64 %left, 0
  br i1 %patient, label %spin_once, label %await
spin_once:
  $pause
  %left1 = sub i64 %left, 1
  br label %poll
await:
  ; The part is long, or whoever runs it has lost its core and may need this one. (Yielding the core instead would
  ; cost the caller a whole turn where other programs want it too.)
  %claimed = sub i64 %ticket, 3
  %awaited = sub i64 %ticket, 2
  %told = cmpxchg ptr %word, i64 %claimed, i64 %awaited monotonic monotonic
  call void @sleep(ptr %word, i64 %awaited, ptr null)
  br label %poll
end:
  ret void
}

; ---------------------------------------------------------------------------------------------- a worker
define internal ptr @worker(ptr %me) {
entry:
  %pool_at = getelementptr i8, ptr %me, i64 $POOL
  %pool = load ptr, ptr %pool_at
  %index_at = getelementptr i8, ptr %me, i64 $INDEX
  %index = load i64, ptr %index_at
  %fn_in = getelementptr i8, ptr %pool, i64 $FUNCTION
  %args_in = getelementptr i8, ptr %pool, i64 $ARGS
  %asleep_at = getelementptr i8, ptr %pool, i64 $ASLEEP
  %core_in = getelementptr i8, ptr %pool, i64 $CALLER
  %stop_at = getelementptr i8, ptr %pool, i64 $STOP
  %threads_at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads_at
  %spin_at = getelementptr i8, ptr %pool, i64 $SPIN
  %spin = load i64, ptr %spin_at
  %named = call i32 (i32, ...) @prctl(i32 15, ptr @name)  ; PR_SET_NAME
  call void @pin(ptr %me)
  br label %wait
wait:
  %last = phi i64 [ 0, %entry ], [ %go, %seen ], [ %last, %doze ]
  %here = call i32 @sched_getcpu()
  %caller = load atomic i32, ptr %core_in monotonic, align 4
  %shared = icmp eq i32 %here, %caller
  %turns = select i1 %shared, i64 0, i64 %spin
  br label %poll
poll:
  %left = phi i64 [ %turns, %wait ], [ %left1, %spin_once ], [ 0, %nap ]
  %may_nap = phi i1 [ %shared, %wait ], [ %shared, %spin_once ], [ 0, %nap ]
  ; acquire: see the function, its arguments and the data that the caller wrote before this ticket.
  %go = load atomic i64, ptr %pool acquire, align 8
  %called = icmp ne i64 %go, %last
  br i1 %called, label %begin, label %idle
idle:
  %patient = icmp ne i64 %left, 0
  br i1 %patient, label %spin_once, label %rest
spin_once:
  $pause
  %left1 = sub i64 %left, 1
  br label %poll
rest:
  br i1 %may_nap, label %nap, label %doze
nap:
  ; `asleep` stays down: to be woken here would only interrupt the caller. A core that is free by then gets the worker.
  call void @sleep(ptr %pool, i64 %last, ptr @nap)
  br label %poll
doze:
  ; seq_cst: before the kernel's own look at `go`; see the store in @run. The kernel compares the low half of `go`: a
  ; worker that stood still here for just 2^30 phases would sleep through one ticket, and its part be run by another.
  store atomic i32 1, ptr %asleep_at seq_cst, align 4
  call void @sleep(ptr %pool, i64 %last, ptr null)
  br label %wait
begin:
  %stop = load atomic i64, ptr %stop_at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %leave, label %called_for
called_for:
  ; Those of the ticket if a claim succeeds below; perhaps of a later one if none does.
  %fn = load atomic ptr, ptr %fn_in monotonic, align 8
  %args = load atomic ptr, ptr %args_in monotonic, align 8
  br label %part
part:
  ; Its own part, whoever has it; then the parts behind it, as long as nobody has begun them.
  %t = phi i64 [ %index, %called_for ], [ %t1, %next ]
  %mine = call i1 @claim_part(ptr %pool, i64 %t, i64 %go)
  br i1 %mine, label %work, label %taken
work:
  call void @run_part(ptr %pool, i64 %t, i64 %go, ptr %fn, ptr %args, i64 %threads)
  br label %next
taken:
  %own = icmp eq i64 %t, %index
  br i1 %own, label %next, label %seen
next:
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %threads
  br i1 %more, label %part, label %seen
seen:
  br label %wait
leave:
  ret ptr null
}
"""


def pool_ir(machine: str = platform.machine()) -> str:
    """The module for a processor family ("x86_64" or "aarch64") under Linux."""
    offsets = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    return Template(_REGIONS_TEXT + THREADS_TEXT).substitute(
        offsets,
        nap=_NAP_NANOSECONDS,
        futex=_FUTEX[machine],
        pause=_PAUSE[machine],
        declare_pause=_DECLARE_PAUSE[machine],
        all_signals=", ".join(["i64 -1"] * 16),
    )
