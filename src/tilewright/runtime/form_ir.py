"""The code that writes down the form of a call, as LLVM IR text; `call_ir` calls it.

`@write(state, args, kwargs)` walks the values of a call and writes words that are equal for two calls if and only if
their forms are: whatever a binding depends on but where memory lies. It notes the tensors and their addresses beside
them. It gives false for a value of a type that it was not taught, and for memory that it cannot read. The words:

    asks                 1 if some torch tensor asks for a gradient
    context              a number that changes with all that calls depend on beside their values
    per value            the number of its type, then
      int, bool          the value
      float              its bits
      str                its length, its bytes
      tuple              its length, its values
      numpy.ndarray      dtype, rank and flags, whether it starts at a cache line, size and stride of each dimension
      torch.Tensor       dtype and rank, device, the alignment of its start, size and stride of each dimension
    per keyword          its name as a str, its value
    per tensor           the number of the first tensor that is the same object
    stream               torch's current one, where a tensor lies on a GPU, and which graph it is captured for, or 0

Torch's tensors are read by the functions that torch itself exports for that (DLPack's exchange API, a table of C
functions that is `torch.Tensor.__dlpack_c_exchange_api__`), NumPy's arrays by their structure, a part of its ABI.
"""

from __future__ import annotations

from string import Template

from tilewright.runtime.form_tensors_ir import TENSORS

NOTHING, WHOLE, REAL, TEXT, SEVERAL, NUMPY, TORCH = range(7)
"""What follows the number of a type; NOTHING for None."""

MOST_TYPES, MOST_TENSORS, MOST_WORDS = 24, 24, 512

_ROOM = 72  # words of the longest single value: a tensor of 16 dimensions, a text of 256 bytes

_TEXT = """
%State = type { i64, i64, i64, i64, [$words x i64], [$tensors x ptr], [$tensors x i64] }
; words in use, tensors in use, the GPU or -1, asks; the words, tensors, addresses

@type_count = internal global i64 0
@types = internal global [$types x ptr] zeroinitializer
@kinds = internal global [$types x i64] zeroinitializer
@none = internal global ptr null
@yes = internal global ptr null
@asks_name = internal global ptr null
@read_tensor = internal global ptr null
@read_stream = internal global ptr null
@read_capture = internal global ptr null
@context = internal global i64 0
@gradients = internal global ptr null

declare i64 @PyTuple_Size(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i32 @PyDict_Next(ptr, ptr, ptr, ptr)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
declare double @PyFloat_AsDouble(ptr)
declare ptr @PyUnicode_AsUTF8AndSize(ptr, ptr)
declare ptr @PyObject_GetAttr(ptr, ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_Clear()
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

; ------------------------------------------------------------------------------------------- what Python teaches
define i32 @tw_form_constants(ptr %none, ptr %yes, ptr %asks_name) {
  store ptr %none, ptr @none
  store ptr %yes, ptr @yes
  store ptr %asks_name, ptr @asks_name
  ret i32 1
}

define i32 @tw_form_exchange(ptr %read_tensor, ptr %read_stream, ptr %gradients, ptr %read_capture) {
  store ptr %read_tensor, ptr @read_tensor
  store ptr %read_stream, ptr @read_stream
  store ptr %read_capture, ptr @read_capture
  store ptr %gradients, ptr @gradients
  ret i32 1
}

define i32 @tw_form_context(i64 %context) {
  store i64 %context, ptr @context
  ret i32 1
}

define i32 @tw_form_teach(ptr %type, i64 %kind) {
  %count = load i64, ptr @type_count
  %room = icmp ult i64 %count, $types
  br i1 %room, label %add, label %full
add:
  %type_at = getelementptr ptr, ptr @types, i64 %count
  store ptr %type, ptr %type_at
  %kind_at = getelementptr i64, ptr @kinds, i64 %count
  store i64 %kind, ptr %kind_at
  %more = add i64 %count, 1
  store i64 %more, ptr @type_count
  ret i32 1
full:
  ret i32 0
}

; ------------------------------------------------------------------------------------------------- the whole
; Whether all of the call could be written down.
define internal i1 @write(ptr %s, ptr %args, ptr %kwargs) {
entry:
  %at = alloca i64
  %name = alloca ptr
  %value = alloca ptr
  %used_at = getelementptr %State, ptr %s, i32 0, i32 0
  store i64 0, ptr %used_at
  %tensors_at = getelementptr %State, ptr %s, i32 0, i32 1
  store i64 0, ptr %tensors_at
  %gpu_at = getelementptr %State, ptr %s, i32 0, i32 2
  store i64 -1, ptr %gpu_at
  %asks_at = getelementptr %State, ptr %s, i32 0, i32 3
  store i64 0, ptr %asks_at
  call void @push(ptr %s, i64 0)
  %context = load i64, ptr @context
  call void @push(ptr %s, i64 %context)
  %known = call i1 @sequence(ptr %s, ptr %args)
  store i64 0, ptr %at
  br i1 %known, label %next, label %unknown
next:
  %found = call i32 @PyDict_Next(ptr %kwargs, ptr %at, ptr %name, ptr %value)
  %any = icmp ne i32 %found, 0
  br i1 %any, label %keyword, label %finish
keyword:
  %its_name = load ptr, ptr %name
  %named = call i1 @text(ptr %s, ptr %its_name)
  br i1 %named, label %valued, label %unknown
valued:
  %its_value = load ptr, ptr %value
  %written = call i1 @one(ptr %s, ptr %its_value)
  br i1 %written, label %next, label %unknown
finish:
  %words = getelementptr %State, ptr %s, i32 0, i32 4
  %asks = load i64, ptr %asks_at
  store i64 %asks, ptr %words
  %ended = call i1 @end(ptr %s)
  ret i1 %ended
unknown:
  call void @PyErr_Clear()
  ret i1 false
}

; Which of the tensors are one; the stream, and its capture.
define internal i1 @end(ptr %s) {
entry:
  %seen = alloca ptr
  %captured = alloca i32
  %graph = alloca i64
  %tensors_at = getelementptr %State, ptr %s, i32 0, i32 1
  %count = load i64, ptr %tensors_at
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i_next, %same_one]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %stream
body:
  %object_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %i
  %object = load ptr, ptr %object_at
  br label %search
search:
  %j = phi i64 [0, %body], [%j_next, %search_on]
  %other_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %j
  %other = load ptr, ptr %other_at
  %same = icmp eq ptr %other, %object
  br i1 %same, label %same_one, label %search_on
search_on:
  %j_next = add i64 %j, 1
  br label %search
same_one:
  call void @push(ptr %s, i64 %j)
  %i_next = add i64 %i, 1
  br label %loop
stream:
  %gpu_at = getelementptr %State, ptr %s, i32 0, i32 2
  %gpu = load i64, ptr %gpu_at
  %on_gpu = icmp sge i64 %gpu, 0
  br i1 %on_gpu, label %ask, label %done
ask:
  %reader = load ptr, ptr @read_stream
  %id = trunc i64 %gpu to i32
  %status = call i32 %reader(i32 2, i32 %id, ptr %seen)
  %answered = icmp eq i32 %status, 0
  br i1 %answered, label %note_it, label %failed
note_it:
  %handle = load i64, ptr %seen
  call void @push(ptr %s, i64 %handle)
  %which = load ptr, ptr @read_capture
  %may_ask = icmp ne ptr %which, null
  br i1 %may_ask, label %ask_which, label %done
ask_which:
  %the_stream = inttoptr i64 %handle to ptr
  store i64 0, ptr %graph
  %told = call i32 %which(ptr %the_stream, ptr %captured, ptr %graph, ptr null, ptr null, ptr null)
  %known = icmp eq i32 %told, 0
  %number = load i64, ptr %graph
  %its_graph = select i1 %known, i64 %number, i64 0
  call void @push(ptr %s, i64 %its_graph)
  br label %done
done:
  ret i1 true
failed:
  call void @PyErr_Clear()
  ret i1 false
}

; ------------------------------------------------------------------------------------------------ words
define internal void @push(ptr %s, i64 %word) alwaysinline {
  %used_at = getelementptr %State, ptr %s, i32 0, i32 0
  %used = load i64, ptr %used_at
  %to = getelementptr %State, ptr %s, i32 0, i32 4, i64 %used
  store i64 %word, ptr %to
  %more = add i64 %used, 1
  store i64 %more, ptr %used_at
  ret void
}

define internal i1 @sequence(ptr %s, ptr %tuple) {
entry:
  %count = call i64 @PyTuple_Size(ptr %tuple)
  call void @push(ptr %s, i64 %count)
  %is_tuple = icmp sge i64 %count, 0
  br i1 %is_tuple, label %loop, label %unknown
loop:
  %i = phi i64 [0, %entry], [%i_next, %body]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %body, label %done
body:
  %x = call ptr @PyTuple_GetItem(ptr %tuple, i64 %i)
  %i_next = add i64 %i, 1
  %known = call i1 @one(ptr %s, ptr %x)
  br i1 %known, label %loop, label %unknown
done:
  ret i1 true
unknown:
  ret i1 false
}

define internal i1 @text(ptr %s, ptr %x) {
entry:
  %length = alloca i64
  %bytes = call ptr @PyUnicode_AsUTF8AndSize(ptr %x, ptr %length)
  %is_text = icmp ne ptr %bytes, null
  br i1 %is_text, label %sized, label %unknown
sized:
  %n = load i64, ptr %length
  %short = icmp ule i64 %n, 256
  %used_at = getelementptr %State, ptr %s, i32 0, i32 0
  %used = load i64, ptr %used_at
  %room = icmp ult i64 %used, $limit
  %fits = and i1 %short, %room
  br i1 %fits, label %write, label %unknown
write:
  call void @push(ptr %s, i64 %n)
  %rounded = add i64 %n, 7
  %words = lshr i64 %rounded, 3
  %first = add i64 %used, 1
  %used_then = add i64 %first, %words
  %last = getelementptr %State, ptr %s, i32 0, i32 4, i64 %used_then
  %before = getelementptr i64, ptr %last, i64 -1
  store i64 0, ptr %before
  %to = getelementptr %State, ptr %s, i32 0, i32 4, i64 %first
  ; an empty text wrote its zero over the length, which is zero
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %bytes, i64 %n, i1 false)
  store i64 %used_then, ptr %used_at
  ret i1 true
unknown:
  ret i1 false
}

; ------------------------------------------------------------------------------------------------ values
define internal i1 @one(ptr %s, ptr %x) {
entry:
  %overflow = alloca i32
  %used_at = getelementptr %State, ptr %s, i32 0, i32 0
  %used = load i64, ptr %used_at
  %room = icmp ult i64 %used, $limit
  br i1 %room, label %typed, label %unknown
typed:
  %type_at = getelementptr i8, ptr %x, i64 8
  %type = load ptr, ptr %type_at
  %count = load i64, ptr @type_count
  br label %search
search:
  %i = phi i64 [0, %typed], [%i_next, %look]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %look, label %unknown
look:
  %known_at = getelementptr ptr, ptr @types, i64 %i
  %known = load ptr, ptr %known_at
  %same = icmp eq ptr %known, %type
  %i_next = add i64 %i, 1
  br i1 %same, label %found, label %search
found:
  call void @push(ptr %s, i64 %i)
  %kind_at = getelementptr i64, ptr @kinds, i64 %i
  %kind = load i64, ptr %kind_at
  switch i64 %kind, label %unknown [
    i64 $nothing, label %done
    i64 $whole, label %whole
    i64 $real, label %real
    i64 $text, label %words
    i64 $several, label %several
    i64 $numpy, label %numpy
    i64 $torch, label %torch
  ]
whole:
  %integer = call i64 @PyLong_AsLongLongAndOverflow(ptr %x, ptr %overflow)
  call void @push(ptr %s, i64 %integer)
  %over = load i32, ptr %overflow
  %small = icmp eq i32 %over, 0
  ret i1 %small
real:
  %number = call double @PyFloat_AsDouble(ptr %x)
  %bits = bitcast double %number to i64
  call void @push(ptr %s, i64 %bits)
  ret i1 true
words:
  %word_ok = call i1 @text(ptr %s, ptr %x)
  ret i1 %word_ok
several:
  %all_ok = call i1 @sequence(ptr %s, ptr %x)
  ret i1 %all_ok
numpy:
  %array_ok = call i1 @array(ptr %s, ptr %x)
  ret i1 %array_ok
torch:
  %tensor_ok = call i1 @tensor(ptr %s, ptr %x)
  ret i1 %tensor_ok
done:
  ret i1 true
unknown:
  ret i1 false
}
"""


def form_ir() -> str:
    """`@write`, and what teaches it constants, types and torch's functions: the first part of a module."""
    return Template(_TEXT + TENSORS).substitute(
        words=MOST_WORDS, tensors=MOST_TENSORS, types=MOST_TYPES, limit=MOST_WORDS - _ROOM - MOST_TENSORS,
        nothing=NOTHING, whole=WHOLE, real=REAL, text=TEXT, several=SEVERAL, numpy=NUMPY, torch=TORCH,
    )  # fmt: skip


__all__ = ["NOTHING", "NUMPY", "REAL", "SEVERAL", "TEXT", "TORCH", "WHOLE", "form_ir"]
