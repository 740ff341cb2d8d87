"""The code that launches a kernel on other memory, as LLVM IR text: a function of CPython's, called as any builtin.

`launch(record, pointers)` takes the address of a record and a list of addresses of tensors. It writes them into the
kernel's argument, lets the tensor maps whose tensor has moved follow, and calls the driver, without the interpreter lock.
It gives the driver's status, 0 for success. A record is words of 64 bits:

    0    cuLaunchKernelEx             3    its parameters              6    number of tensor maps
    1    its configuration            4    cuTensorMapReplaceAddress
    2    the kernel                   5    number of addresses to write
    for each address to write:  where, which of the pointers, bytes from it
    for each tensor map:        where, where its tensor's address is, that address when the map was made
"""

from __future__ import annotations

HEAD, EACH = 7, 3
"""Words before the addresses; words of each address to write, and of each tensor map."""

SYMBOLS = ("PyList_GetItem", "PyLong_AsUnsignedLongLong", "PyLong_FromLong", "PyEval_SaveThread", "PyEval_RestoreThread")

LAUNCH_IR = """
declare ptr @PyList_GetItem(ptr, i64)
declare i64 @PyLong_AsUnsignedLongLong(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)

define ptr @tw_launch(ptr %self, ptr %given, i64 %count) {
entry:
  %number = load ptr, ptr %given
  %record_word = call i64 @PyLong_AsUnsignedLongLong(ptr %number)
  %record = inttoptr i64 %record_word to ptr
  %list_at = getelementptr ptr, ptr %given, i64 1
  %list = load ptr, ptr %list_at
  %writes_at = getelementptr i64, ptr %record, i64 5
  %writes = load i64, ptr %writes_at
  %maps_at = getelementptr i64, ptr %record, i64 6
  %maps = load i64, ptr %maps_at
  %first = getelementptr i64, ptr %record, i64 7
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
  %which = load i64, ptr %which_at
  %offset_at = getelementptr i64, ptr %where_at, i64 2
  %offset = load i64, ptr %offset_at
  %pointer_object = call ptr @PyList_GetItem(ptr %list, i64 %which)
  %pointer = call i64 @PyLong_AsUnsignedLongLong(ptr %pointer_object)
  %start = add i64 %pointer, %offset
  store i64 %start, ptr %where
  %i_next = add i64 %i, 1
  br label %write
moved:
  %written = mul i64 %writes, 3
  %map_first = getelementptr i64, ptr %first, i64 %written
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
  %launched = call i32 %launch(ptr %config, ptr %kernel, ptr %parameters, ptr null)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %end
fail:
  br label %end
end:
  %status = phi i32 [%launched, %go], [%refused, %fail]
  %wide = sext i32 %status to i64
  %answer = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %answer
}
"""

__all__ = ["EACH", "HEAD", "LAUNCH_IR", "SYMBOLS"]
