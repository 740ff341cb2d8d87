"""How compiled code writes down arrays and tensors: a part of `form_ir`, as LLVM IR text.

NumPy's arrays are read by their structure, torch's tensors by what torch exports; both give an address, which is noted
apart, and facts.
"""

from __future__ import annotations

TENSORS = """
; The tensor x at an address: noted for the caller.
define internal i1 @note(ptr %s, ptr %x, i64 %address) {
  %tensors_at = getelementptr %State, ptr %s, i32 0, i32 1
  %count = load i64, ptr %tensors_at
  %room = icmp ult i64 %count, $tensors
  br i1 %room, label %write, label %full
write:
  %object_at = getelementptr %State, ptr %s, i32 0, i32 5, i64 %count
  store ptr %x, ptr %object_at
  %address_at = getelementptr %State, ptr %s, i32 0, i32 6, i64 %count
  store i64 %address, ptr %address_at
  %more = add i64 %count, 1
  store i64 %more, ptr %tensors_at
  ret i1 true
full:
  ret i1 false
}

; Sizes and strides, at most sixteen of each.
define internal i1 @dimensions(ptr %s, i64 %rank, ptr %sizes, ptr %strides) {
entry:
  %fits = icmp ule i64 %rank, 16
  br i1 %fits, label %loop, label %many
loop:
  %d = phi i64 [0, %entry], [%d_next, %body]
  %more = icmp ult i64 %d, %rank
  br i1 %more, label %body, label %done
body:
  %size_at = getelementptr i64, ptr %sizes, i64 %d
  %size = load i64, ptr %size_at
  call void @push(ptr %s, i64 %size)
  %stride_at = getelementptr i64, ptr %strides, i64 %d
  %stride = load i64, ptr %stride_at
  call void @push(ptr %s, i64 %stride)
  %d_next = add i64 %d, 1
  br label %loop
done:
  ret i1 true
many:
  ret i1 false
}

; PyArrayObject: data at 16, rank 24, sizes 32, strides 40, descriptor 56, flags 64; kind, order and number of a dtype
; lie at 24 of its descriptor.
define internal i1 @array(ptr %s, ptr %x) {
  %data_at = getelementptr i8, ptr %x, i64 16
  %data = load i64, ptr %data_at
  %rank_at = getelementptr i8, ptr %x, i64 24
  %rank_32 = load i32, ptr %rank_at
  %rank = zext i32 %rank_32 to i64
  %sizes_at = getelementptr i8, ptr %x, i64 32
  %sizes = load ptr, ptr %sizes_at
  %strides_at = getelementptr i8, ptr %x, i64 40
  %strides = load ptr, ptr %strides_at
  %descriptor_at = getelementptr i8, ptr %x, i64 56
  %descriptor = load ptr, ptr %descriptor_at
  %dtype_at = getelementptr i8, ptr %descriptor, i64 24
  %dtype = load i64, ptr %dtype_at
  call void @push(ptr %s, i64 %dtype)
  %flags_at = getelementptr i8, ptr %x, i64 64
  %flags_32 = load i32, ptr %flags_at
  %flags = zext i32 %flags_32 to i64
  %high = shl i64 %flags, 32
  %both = or i64 %high, %rank
  call void @push(ptr %s, i64 %both)
  %low = and i64 %data, 63
  %at_line = icmp eq i64 %low, 0
  %place = zext i1 %at_line to i64
  call void @push(ptr %s, i64 %place)
  %written = call i1 @dimensions(ptr %s, i64 %rank, ptr %sizes, ptr %strides)
  br i1 %written, label %keep, label %many
keep:
  %kept = call i1 @note(ptr %s, ptr %x, i64 %data)
  ret i1 %kept
many:
  ret i1 false
}

; DLTensor: data at 0, device type 8, device 12, rank 16, dtype 20, sizes 24, strides 32, first byte 40.
define internal i1 @tensor(ptr %s, ptr %x) {
entry:
  %t = alloca [48 x i8], align 8
  %reader = load ptr, ptr @read_tensor
  %status = call i32 %reader(ptr %x, ptr %t)
  %answered = icmp eq i32 %status, 0
  br i1 %answered, label %read, label %unknown
read:
  %start = load i64, ptr %t
  %first_at = getelementptr i8, ptr %t, i64 40
  %first = load i64, ptr %first_at
  %data = add i64 %start, %first
  %rank_at = getelementptr i8, ptr %t, i64 16
  %rank_32 = load i32, ptr %rank_at
  %rank = zext i32 %rank_32 to i64
  %dtype_at = getelementptr i8, ptr %t, i64 20
  %dtype_32 = load i32, ptr %dtype_at
  %dtype = zext i32 %dtype_32 to i64
  %high = shl i64 %dtype, 32
  %both = or i64 %high, %rank
  call void @push(ptr %s, i64 %both)
  %device_at = getelementptr i8, ptr %t, i64 8
  %device = load i32, ptr %device_at
  switch i32 %device, label %unknown [
    i32 1, label %cpu
    i32 2, label %cuda
  ]
cpu:
  %low = and i64 %data, 63
  %at_line = icmp eq i64 %low, 0
  %cpu_place = zext i1 %at_line to i64
  br label %described
cuda:
  %id_at = getelementptr i8, ptr %t, i64 12
  %id_32 = load i32, ptr %id_at
  %id = sext i32 %id_32 to i64
  %gpu_at = getelementptr %State, ptr %s, i32 0, i32 2
  store i64 %id, ptr %gpu_at
  %negative = sub i64 0, %data
  %lowest = and i64 %data, %negative
  %gpu_place = and i64 %lowest, 127
  br label %described
described:
  %where = phi i64 [-1, %cpu], [%id, %cuda]
  %place = phi i64 [%cpu_place, %cpu], [%gpu_place, %cuda]
  call void @push(ptr %s, i64 %where)
  call void @push(ptr %s, i64 %place)
  %sizes_at = getelementptr i8, ptr %t, i64 24
  %sizes = load ptr, ptr %sizes_at
  %strides_at = getelementptr i8, ptr %t, i64 32
  %strides = load ptr, ptr %strides_at
  %written = call i1 @dimensions(ptr %s, i64 %rank, ptr %sizes, ptr %strides)
  br i1 %written, label %gradient, label %unknown
gradient:
  %attribute = load ptr, ptr @asks_name
  %found = call ptr @PyObject_GetAttr(ptr %x, ptr %attribute)
  %there = icmp ne ptr %found, null
  br i1 %there, label %compare, label %unknown
compare:
  call void @Py_DecRef(ptr %found)
  %yes = load ptr, ptr @yes
  %asking = icmp eq ptr %found, %yes
  %one = zext i1 %asking to i64
  %asks_at = getelementptr %State, ptr %s, i32 0, i32 3
  %asks = load i64, ptr %asks_at
  %now = or i64 %asks, %one
  store i64 %now, ptr %asks_at
  %kept = call i1 @note(ptr %s, ptr %x, i64 %data)
  ret i1 %kept
unknown:
  ret i1 false
}
"""

__all__ = ["TENSORS"]
