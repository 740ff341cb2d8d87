"""How compiled code runs a record: a part of `call_ir`, which says what a record holds, as LLVM IR text."""

from __future__ import annotations

RUN = """
; Whether the record was run, its result (or null, with an error set) in %out. Not where memory overlaps.
define internal i1 @run(ptr %s, ptr %record, ptr %out) {
entry:
  %at = alloca ptr
  %apart_count = load i64, ptr %record
  %fresh_at = getelementptr i64, ptr %record, i64 1
  %fresh_count = load i64, ptr %fresh_at
  %result_at = getelementptr i64, ptr %record, i64 2
  %result_count = load i64, ptr %result_at
  %launch_at = getelementptr i64, ptr %record, i64 3
  %launch_count = load i64, ptr %launch_at
  %several_at = getelementptr i64, ptr %record, i64 4
  %several = load i64, ptr %several_at
  %pairs = getelementptr i64, ptr %record, i64 5
  %pair_words = mul i64 %apart_count, 6
  %makers = getelementptr i64, ptr %pairs, i64 %pair_words
  %maker_words = mul i64 %fresh_count, 2
  %numbers = getelementptr i64, ptr %makers, i64 %maker_words
  %launches = getelementptr i64, ptr %numbers, i64 %result_count
  %count_at = getelementptr %State, ptr %s, i32 0, i32 1
  %given = load i64, ptr %count_at
  br label %pair
pair:
  %p = phi i64 [0, %entry], [%p_next, %clear]
  %more_pairs = icmp ult i64 %p, %apart_count
  br i1 %more_pairs, label %compare, label %fresh
compare:
  %p0 = mul i64 %p, 6
  %a_at = getelementptr i64, ptr %pairs, i64 %p0
  %b_at = getelementptr i64, ptr %a_at, i64 3
  %a_low = call i64 @bound(ptr %s, ptr %a_at, i64 1)
  %a_high = call i64 @bound(ptr %s, ptr %a_at, i64 2)
  %b_low = call i64 @bound(ptr %s, ptr %b_at, i64 1)
  %b_high = call i64 @bound(ptr %s, ptr %b_at, i64 2)
  %begins = icmp ult i64 %a_low, %b_high
  %ends = icmp ult i64 %b_low, %a_high
  %meet = and i1 %begins, %ends
  %p_next = add i64 %p, 1
  br i1 %meet, label %refuse, label %clear
clear:
  br label %pair
fresh:
  %f = phi i64 [0, %pair], [%f_next, %noted]
  %more_fresh = icmp ult i64 %f, %fresh_count
  br i1 %more_fresh, label %make, label %begin
make:
  %f0 = mul i64 %f, 2
  %maker_at = getelementptr i64, ptr %makers, i64 %f0
  %maker = load ptr, ptr %maker_at
  %arguments_at = getelementptr i64, ptr %maker_at, i64 1
  %arguments = load ptr, ptr %arguments_at
  %made = call ptr @PyObject_Call(ptr %maker, ptr %arguments, ptr null)
  %unmade = icmp eq ptr %made, null
  br i1 %unmade, label %error, label %read
read:
  %room = call i1 @own(ptr %s, ptr %made)
  br i1 %room, label %noted, label %unread
noted:
  %f_next = add i64 %f, 1
  br label %fresh
unread:
  call void @Py_DecRef(ptr %made)
  br label %error
begin:
  store ptr %launches, ptr %at
  br label %launch
launch:
  %l = phi i64 [0, %begin], [%l_next, %launched]
  %more_launches = icmp ult i64 %l, %launch_count
  br i1 %more_launches, label %start, label %finish
start:
  %ok = call i1 @launch(ptr %s, ptr %at)
  br i1 %ok, label %launched, label %error
launched:
  %l_next = add i64 %l, 1
  br label %launch
finish:
  %many = icmp ne i64 %several, 0
  br i1 %many, label %tuple, label %single
single:
  %number = load i64, ptr %numbers
  %only_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %number
  %only = load ptr, ptr %only_at
  call void @Py_IncRef(ptr %only)
  br label %release
tuple:
  %results = call ptr @PyTuple_New(i64 %result_count)
  br label %item
item:
  %r = phi i64 [0, %tuple], [%r_next, %put]
  %more_results = icmp ult i64 %r, %result_count
  br i1 %more_results, label %put, label %release
put:
  %r_number_at = getelementptr i64, ptr %numbers, i64 %r
  %r_number = load i64, ptr %r_number_at
  %r_object_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %r_number
  %r_object = load ptr, ptr %r_object_at
  call void @Py_IncRef(ptr %r_object)
  %e = call i32 @PyTuple_SetItem(ptr %results, i64 %r, ptr %r_object)
  %r_next = add i64 %r, 1
  br label %item
error:
  br label %release
release:
  %result = phi ptr [%only, %single], [%results, %item], [null, %error]
  %last = load i64, ptr %count_at
  br label %drop
drop:
  %d = phi i64 [%given, %release], [%d_next, %dropped]
  %more_drops = icmp ult i64 %d, %last
  br i1 %more_drops, label %dropped, label %end
dropped:
  %d_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %d
  %d_object = load ptr, ptr %d_at
  call void @Py_DecRef(ptr %d_object)
  %d_next = add i64 %d, 1
  br label %drop
end:
  store ptr %result, ptr %out
  ret i1 true
refuse:
  ret i1 false
}

; Of a tensor, whose number and bytes stand at %what: the address of its first byte (1) or its end (2).
define internal i64 @bound(ptr %s, ptr %what, i64 %which) alwaysinline {
  %number = load i64, ptr %what
  %start_at = getelementptr %State, ptr %s, i32 0, i32 6, i64 %number
  %start = load i64, ptr %start_at
  %offset_at = getelementptr i64, ptr %what, i64 %which
  %offset = load i64, ptr %offset_at
  %sum = add i64 %start, %offset
  ret i64 %sum
}

; A new array or tensor of torch, noted with its address.
define internal i1 @own(ptr %s, ptr %x) {
  %t = alloca [48 x i8], align 8
  %type_at = getelementptr i8, ptr %x, i64 8
  %type = load ptr, ptr %type_at
  %array_type = load ptr, ptr @array_type
  %is_array = icmp eq ptr %type, %array_type
  br i1 %is_array, label %array, label %tensor
array:
  %memory_at = getelementptr i8, ptr %x, i64 16
  %memory = load i64, ptr %memory_at
  %known = call i1 @note(ptr %s, ptr %x, i64 %memory)
  ret i1 %known
tensor:
  %reader = load ptr, ptr @read_tensor
  %status = call i32 %reader(ptr %x, ptr %t)
  %answered = icmp eq i32 %status, 0
  br i1 %answered, label %read, label %unknown
read:
  %data = load i64, ptr %t
  %kept = call i1 @note(ptr %s, ptr %x, i64 %data)
  ret i1 %kept
unknown:
  ret i1 false
}

; The launch at *%at, which moves on to the next one. False with an error set.
define internal i1 @launch(ptr %s, ptr %at) {
entry:
  %record = load ptr, ptr %at
  %writes_at = getelementptr i64, ptr %record, i64 6
  %writes = load i64, ptr %writes_at
  %maps_at = getelementptr i64, ptr %record, i64 7
  %maps = load i64, ptr %maps_at
  %first = getelementptr i64, ptr %record, i64 8
  %written = mul i64 %writes, 3
  %map_first = getelementptr i64, ptr %first, i64 %written
  %mapped = mul i64 %maps, 3
  %next = getelementptr i64, ptr %map_first, i64 %mapped
  store ptr %next, ptr %at
  br label %write
write:
  %i = phi i64 [0, %entry], [%i_next, %address]
  %more = icmp ult i64 %i, %writes
  br i1 %more, label %address, label %moved
address:
  %w0 = mul i64 %i, 3
  %where_at = getelementptr i64, ptr %first, i64 %w0
  %where = load ptr, ptr %where_at
  %which_at = getelementptr i64, ptr %where_at, i64 1
  %pointer = call i64 @bound(ptr %s, ptr %which_at, i64 1)
  store i64 %pointer, ptr %where
  %i_next = add i64 %i, 1
  br label %write
moved:
  %move_at = getelementptr i64, ptr %record, i64 4
  %move = load ptr, ptr %move_at
  br label %follow
follow:
  %m = phi i64 [0, %moved], [%m_next, %on]
  %more_maps = icmp ult i64 %m, %maps
  br i1 %more_maps, label %map, label %go
map:
  %m0 = mul i64 %m, 3
  %map_at = getelementptr i64, ptr %map_first, i64 %m0
  %source_at = getelementptr i64, ptr %map_at, i64 1
  %source = load ptr, ptr %source_at
  %now = load i64, ptr %source
  %last_at = getelementptr i64, ptr %map_at, i64 2
  %last = load i64, ptr %last_at
  %stays = icmp eq i64 %now, %last
  br i1 %stays, label %on, label %follows
follows:
  %its_map = load ptr, ptr %map_at
  %refused = call i32 %move(ptr %its_map, i64 %now)
  %bad = icmp ne i32 %refused, 0
  br i1 %bad, label %fail, label %note
note:
  store i64 %now, ptr %last_at
  br label %on
on:
  %m_next = add i64 %m, 1
  br label %follow
go:
  %launch = load ptr, ptr %record
  %config_at = getelementptr i64, ptr %record, i64 1
  %config = load ptr, ptr %config_at
  %kernel_at = getelementptr i64, ptr %record, i64 2
  %kernel = load ptr, ptr %kernel_at
  %parameters_at = getelementptr i64, ptr %record, i64 3
  %parameters = load ptr, ptr %parameters_at
  %thread = call ptr @PyEval_SaveThread()
  %status = call i32 %launch(ptr %config, ptr %kernel, ptr %parameters, ptr null)
  call void @PyEval_RestoreThread(ptr %thread)
  %well = icmp eq i32 %status, 0
  br i1 %well, label %done, label %fail
done:
  ret i1 true
fail:
  %reason = phi i32 [%refused, %follows], [%status, %go]
  %again_at = getelementptr i64, ptr %record, i64 5
  %again = load ptr, ptr %again_at
  %wide = sext i32 %reason to i64
  %number = call ptr @PyLong_FromLong(i64 %wide)
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %again, ptr %number, ptr null)
  call void @Py_DecRef(ptr %number)
  %raised = icmp eq ptr %answer, null
  br i1 %raised, label %lost, label %mended
mended:
  call void @Py_DecRef(ptr %answer)
  ret i1 true
lost:
  ret i1 false
}
"""

__all__ = ["RUN"]
