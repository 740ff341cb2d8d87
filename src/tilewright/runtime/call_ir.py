"""The code of a call that is like an earlier one, as LLVM IR text: a function of CPython's, called as any builtin.

`call(args, kwargs, known)` writes down the form of the call (`form_ir`), looks it up in the dict `known`, and runs
what it finds: it gives the result. Where there is nothing to run it gives a list: the form as bytes or None, the
tensors, and their addresses, for Python to go on with. What it runs is a tuple in `known` that begins with the address
of a record:

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
from tilewright.runtime.run_ir import RUN

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
@array_type = internal global ptr null

define i32 @tw_call_types(ptr %tuple, ptr %array) {
  store ptr %tuple, ptr @tuple_type
  store ptr %array, ptr @array_type
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
"""


def call_ir() -> str:
    """The module: `tw_call`, and what teaches it."""
    return form_ir() + _TEXT + RUN


__all__ = ["SYMBOLS", "call_ir"]
