"""The worker pool's threads, as LLVM IR text: created, bound to cores, ended; a part of the module of `pool_ir`."""

THREADS_TEXT = """
; Bind this worker to its core, if it has one; a kernel that refuses leaves it unbound.
define internal void @pin(ptr %me) {
entry:
  %core_at = getelementptr i8, ptr %me, i64 $CORE
  %core = load i64, ptr %core_at
  %unbound = icmp slt i64 %core, 0
  br i1 %unbound, label %end, label %bind
bind:
  %mask = alloca [128 x i64]
  store [128 x i64] zeroinitializer, ptr %mask
  %word = lshr i64 %core, 6
  %word_at = getelementptr i64, ptr %mask, i64 %word
  %shift = and i64 %core, 63
  %bit = shl i64 1, %shift
  store i64 %bit, ptr %word_at
  %ignored = call i32 @sched_setaffinity(i32 0, i64 1024, ptr %mask)
  br label %end
end:
  ret void
}

; ---------------------------------------------------------------------------------------------- beginning and end
; Whether the workers run; creates them the first time. For the owner of the pool.
define internal i1 @ready(ptr %pool) {
entry:
  %state_at = getelementptr i8, ptr %pool, i64 $STATE
  %state = load i64, ptr %state_at
  %new = icmp eq i64 %state, $NOT_STARTED
  br i1 %new, label %start, label %answer
start:
  call void @start(ptr %pool)
  %started = load i64, ptr %state_at
  br label %answer
answer:
  %now = phi i64 [ %state, %entry ], [ %started, %start ]
  %running = icmp eq i64 %now, $RUNNING
  ret i1 %running
}

define internal void @start(ptr %pool) {
entry:
  %all = alloca [16 x i64]
  %old = alloca [16 x i64]
  %state_at = getelementptr i8, ptr %pool, i64 $STATE
  %created_at = getelementptr i8, ptr %pool, i64 $CREATED
  %threads_at = getelementptr i8, ptr %pool, i64 $THREADS
  %threads = load i64, ptr %threads_at
  ; Workers inherit this mask: signals are for the threads of the program.
  store [16 x i64] [$all_signals], ptr %all
  %set = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  br label %create
create:
  %t = phi i64 [ 1, %entry ], [ %t1, %created ]
  %at = mul i64 %t, $LINE
  %records = getelementptr i8, ptr %pool, i64 $WORKERS
  %me = getelementptr i8, ptr %records, i64 %at
  %handle = getelementptr i8, ptr %me, i64 $HANDLE
  %error = call i32 @pthread_create(ptr %handle, ptr null, ptr @worker, ptr %me)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %end, label %created
created:
  store i64 %t, ptr %created_at
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %threads
  br i1 %more, label %create, label %end
end:
  %state = phi i64 [ $SERIAL, %create ], [ $RUNNING, %created ]
  store i64 %state, ptr %state_at
  %reset = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  ret void
}

; End the workers and wait for them. The caller has claimed the pool and keeps it, so later regions run serially.
define void @tw_pool_stop(ptr %pool) {
entry:
  %stop_at = getelementptr i8, ptr %pool, i64 $STOP
  store atomic i64 1, ptr %stop_at monotonic, align 8
  ; seq_cst as in @run: a release of `stop`, ordered before the wake.
  %ticket = atomicrmw add ptr %pool, i64 4 seq_cst
  call void @wake(ptr %pool)
  %created_at = getelementptr i8, ptr %pool, i64 $CREATED
  %created = load i64, ptr %created_at
  %none = icmp eq i64 %created, 0
  br i1 %none, label %end, label %join
join:
  %t = phi i64 [ 1, %entry ], [ %t1, %join ]
  %at = mul i64 %t, $LINE
  %records = getelementptr i8, ptr %pool, i64 $WORKERS
  %me = getelementptr i8, ptr %records, i64 %at
  %handle_at = getelementptr i8, ptr %me, i64 $HANDLE
  %handle = load i64, ptr %handle_at
  %ignored = call i32 @pthread_join(i64 %handle, ptr null)
  %t1 = add i64 %t, 1
  %more = icmp ule i64 %t1, %created
  br i1 %more, label %join, label %end
end:
  store i64 0, ptr %created_at
  ret void
}

; As many turns of the waiting loop: to find out how long one takes.
define void @tw_pool_spin(i64 %turns, ptr %polled) {
entry:
  br label %turn
turn:
  %left = phi i64 [ %turns, %entry ], [ %left1, %turn ]
  %ignored = load atomic i64, ptr %polled acquire, align 8
  $pause
  %left1 = sub i64 %left, 1
  %more = icmp ne i64 %left1, 0
  br i1 %more, label %turn, label %end
end:
  ret void
}
"""
