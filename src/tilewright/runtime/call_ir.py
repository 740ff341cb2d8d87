"""The code of a call that is like an earlier one, as LLVM IR text: a function of CPython's, called as any builtin.

`call(args, kwargs, known)` writes down the form of the call (`form_ir`), looks it up in the dict `known`, and runs what it
finds: it gives the result. Where there is nothing to run it gives a list: the form as bytes or None, the tensors, and
their addresses, for Python to go on with. What it runs is a tuple in `known` that begins with the address of a record:

    numbers of  what must lie apart, new results, results, launches;  whether results come as a tuple
    for each pair that must lie apart:  tensor, its first byte, its end,  the other, its first byte, its end
    for each new result:  what makes it, its arguments
    for each result:  the number of its tensor
    for each launch:
        the driver's launch, its configuration, the kernel, its parameters, what moves a tensor map,
        what to do about a failure,  numbers of addresses to write and of tensor maps
        for each address to write:  where, which of the tensors, bytes from its start
        for each tensor map:        where, where its tensor's address is, that address when the map was made

Tensors are numbered: those of the call, then new ones. The interpreter lock is held but for the launch itself.
"""

from __future__ import annotations

from tilewright.runtime.form_ir import form_ir

SYMBOLS = (
    "PyTuple_Size", "PyTuple_GetItem", "PyTuple_New", "PyTuple_SetItem", "PyDict_Next", "PyDict_GetItemWithError",
    "PyList_New", "PyList_Append", "PyLong_FromUnsignedLongLong", "PyLong_AsUnsignedLongLong", "PyLong_FromLong",
    "PyLong_AsLongLongAndOverflow", "PyFloat_AsDouble", "PyUnicode_AsUTF8AndSize", "PyBytes_FromStringAndSize",
    "PyObject_GetAttr", "PyObject_Call", "PyObject_CallFunctionObjArgs", "Py_IncRef", "Py_DecRef", "PyErr_Clear",
    "PyEval_SaveThread", "PyEval_RestoreThread",
)  # fmt: skip

_TEXT = """
declare ptr @PyTuple_New(i64)
declare i32 @PyTuple_SetItem(ptr, i64, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_Append(ptr, ptr)
declare ptr @PyLong_FromUnsignedLongLong(i64)
declare i64 @PyLong_AsUnsignedLongLong(ptr)
declare ptr @PyLong_FromLong(i64)
declare ptr @PyBytes_FromStringAndSize(ptr, i64)
declare ptr @PyObject_Call(ptr, ptr, ptr)
declare ptr @PyObject_CallFunctionObjArgs(ptr, ...)
declare void @Py_IncRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)

@tuple_type = internal global ptr null

define i32 @tw_call_tuples(ptr %type) {
  store ptr %type, ptr @tuple_type
  ret i32 1
}

define ptr @tw_call(ptr %self, ptr %given, i64 %count) {
entry:
  %s = alloca %State
  %out = alloca ptr
  %args = load ptr, ptr %given
  %kwargs_at = getelementptr ptr, ptr %given, i64 1
  %kwargs = load ptr, ptr %kwargs_at
  %known_at = getelementptr ptr, ptr %given, i64 2
  %known = load ptr, ptr %known_at
  %written = call i1 @write(ptr %s, ptr %args, ptr %kwargs)
  br i1 %written, label %look, label %undescribed
look:
  %words = getelementptr %State, ptr %s, i32 0, i32 4
  %used_at = getelementptr %State, ptr %s, i32 0, i32 0
  %used = load i64, ptr %used_at
  %bytes = shl i64 %used, 3
  %key = call ptr @PyBytes_FromStringAndSize(ptr %words, i64 %bytes)
  %asks = load i64, ptr %words
  %plain = icmp eq i64 %asks, 0
  br i1 %plain, label %find, label %gradients
gradients:
  %grad = load ptr, ptr @gradients
  %answer = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %grad, ptr null)
  %unanswered = icmp eq ptr %answer, null
  br i1 %unanswered, label %lost, label %answered
answered:
  call void @Py_DecRef(ptr %answer)
  %yes = load ptr, ptr @yes
  %on = icmp eq ptr %answer, %yes
  br i1 %on, label %unknown, label %find
find:
  %value = call ptr @PyDict_GetItemWithError(ptr %known, ptr %key)
  %none_found = icmp eq ptr %value, null
  br i1 %none_found, label %missing, label %found
missing:
  call void @PyErr_Clear()
  br label %unknown
found:
  %type_at = getelementptr i8, ptr %value, i64 8
  %type = load ptr, ptr %type_at
  %tuple_type = load ptr, ptr @tuple_type
  %runs = icmp eq ptr %type, %tuple_type
  br i1 %runs, label %go, label %unknown
go:
  call void @Py_IncRef(ptr %value)
  %number = call ptr @PyTuple_GetItem(ptr %value, i64 0)
  %address = call i64 @PyLong_AsUnsignedLongLong(ptr %number)
  %record = inttoptr i64 %address to ptr
  %ran = call i1 @run(ptr %s, ptr %record, ptr %out)
  call void @Py_DecRef(ptr %value)
  br i1 %ran, label %done, label %unknown
done:
  call void @Py_DecRef(ptr %key)
  %result = load ptr, ptr %out
  ret ptr %result
lost:
  call void @Py_DecRef(ptr %key)
  ret ptr null
undescribed:
  %tensors_at = getelementptr %State, ptr %s, i32 0, i32 1
  store i64 0, ptr %tensors_at
  %nothing = load ptr, ptr @none
  call void @Py_IncRef(ptr %nothing)
  br label %unknown
unknown:
  %form = phi ptr [%key, %answered], [%key, %missing], [%key, %found], [%key, %go], [%nothing, %undescribed]
  %told = call ptr @tell(ptr %s, ptr %form)
  ret ptr %told
}

; The list for Python to go on with; it takes over the reference to the form.
define internal ptr @tell(ptr %s, ptr %form) {
entry:
  %told = call ptr @PyList_New(i64 0)
  %tensors = call ptr @PyList_New(i64 0)
  %pointers = call ptr @PyList_New(i64 0)
  %e0 = call i32 @PyList_Append(ptr %told, ptr %form)
  %e1 = call i32 @PyList_Append(ptr %told, ptr %tensors)
  %e2 = call i32 @PyList_Append(ptr %told, ptr %pointers)
  call void @Py_DecRef(ptr %form)
  call void @Py_DecRef(ptr %tensors)
  call void @Py_DecRef(ptr %pointers)
  %count_at = getelementptr %State, ptr %s, i32 0, i32 1
  %count = load i64, ptr %count_at
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i_next, %body]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %object_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %i
  %object = load ptr, ptr %object_at
  %e3 = call i32 @PyList_Append(ptr %tensors, ptr %object)
  %address_at = getelementptr %State, ptr %s, i32 0, i32 6, i64 %i
  %address = load i64, ptr %address_at
  %number = call ptr @PyLong_FromUnsignedLongLong(i64 %address)
  %e4 = call i32 @PyList_Append(ptr %pointers, ptr %number)
  call void @Py_DecRef(ptr %number)
  %i_next = add i64 %i, 1
  br label %loop
done:
  ret ptr %told
}

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

; A new torch tensor, noted with its address.
define internal i1 @own(ptr %s, ptr %x) {
  %t = alloca [48 x i8], align 8
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


def call_ir() -> str:
    """The module: `tw_call`, and what teaches it."""
    return form_ir() + _TEXT


__all__ = ["SYMBOLS", "call_ir"]
