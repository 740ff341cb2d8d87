"""Vectors taken apart, joined and transposed by shuffles of two registers."""

from __future__ import annotations

from tilewright.emit.llvm_builder import Builder

# Bits of the pieces of a register inside which a processor unpacks; wider registers exchange whole pieces.
_PIECE = 128
_BITS = {"i1": 1, "i8": 8, "i16": 16, "half": 16, "i32": 32, "float": 32, "i64": 64, "double": 64}


def pieces(b: Builder, vector: str, element: str, width: int, total: int) -> list[str]:
    """A vector of `total` lanes cut into vectors of `width`: registers, to a machine that has no wider ones."""
    if total == width:
        return [vector]
    ty = f"<{total} x {element}>"
    cuts = [", ".join(f"i32 {first + n}" for n in range(width)) for first in range(0, total, width)]
    return [b.hoist(f"shufflevector {ty} {vector}, {ty} poison, <{width} x i32> <{cut}>", vector) for cut in cuts]


def concat(b: Builder, vectors: list[str], element: str, width: int) -> str:
    """Vectors of `width` lanes (a power of two of them) end to end."""
    while len(vectors) > 1:
        ty, lanes = f"<{width} x {element}>", list(range(2 * width))
        vectors = [_shuffle(b, ty, vectors[n], vectors[n + 1], lanes) for n in range(0, len(vectors), 2)]
        width *= 2
    return vectors[0]


def transposed(b: Builder, rows: list[str], element: str, width: int) -> list[str]:
    """The columns of a block of `len(rows)` vectors of `width` lanes (both powers of two)."""
    return b.once(f"transposed {element} {width} {' '.join(rows)}", lambda: _columns(b, rows, element, width), *rows)


def _columns(b: Builder, rows: list[str], element: str, width: int) -> list[str]:
    if len(rows) < width:  # a wide block from few rows: the missing ones do not matter
        return _columns_of_few(b, rows, element, width)
    blocks = [_square(b, rows[n : n + width], element, width) for n in range(0, len(rows), width)]
    if len(blocks) == 1:
        return blocks[0]
    return [concat(b, [block[column] for block in blocks], element, width) for column in range(width)]


def _columns_of_few(b: Builder, rows: list[str], element: str, width: int) -> list[str]:
    count = len(rows)
    full = _square(b, rows + ["poison"] * (width - count), element, width)
    wide, narrow = f"<{width} x {element}>", ", ".join(f"i32 {n}" for n in range(count))
    if count == 1:
        return [b.hoist(f"extractelement {wide} {v}, i64 0", v) for v in full]
    return [b.hoist(f"shufflevector {wide} {v}, {wide} poison, <{count} x i32> <{narrow}>", v) for v in full]


def _square(b: Builder, rows: list[str], element: str, width: int) -> list[str]:
    """log2(width) passes over pairs of rows; pass p turns bit p of the row number into bit p of the lane.

    Every shuffle is one that processors have as an instruction without a table: inside pieces of 128 bits lanes of
    both rows alternate (unpack), which leaves the columns in bit-reversed order; whole pieces are then exchanged.
    """
    inside = min(width, _PIECE // _BITS[element]).bit_length() - 1
    ty = f"<{width} x {element}>"
    for bit in range(width.bit_length() - 1):
        both = [_picks(width, bit, inside, high) for high in (0, 1)]
        result = list(rows)
        for low in range(width):
            if not low >> bit & 1:
                high = low + (1 << bit)
                result[low], result[high] = (_shuffle(b, ty, rows[low], rows[high], picks) for picks in both)
        rows = [_fenced(b, ty, row) for row in result] if bit + 1 == inside and width > 1 << inside else result
    return [rows[_reversed(c, inside)] for c in range(width)]


def _fenced(b: Builder, ty: str, vector: str) -> str:
    """`vector`, which LLVM may not look through: its search for a shuffle of shuffles costs more than all else."""
    if ty.endswith("float>"):
        lanes = ty.removeprefix("<").partition(" ")[0]
        name = f"@llvm.arithmetic.fence.v{lanes}f32"
        b.declare(f"declare {ty} {name}({ty})")
        return b.hoist(f"call {ty} {name}({ty} {vector})", vector)
    if ty.endswith("i32>"):
        floats = ty.replace("i32", "float")
        fenced = _fenced(b, floats, b.hoist(f"bitcast {ty} {vector} to {floats}", vector))
        return b.hoist(f"bitcast {floats} {fenced} to {ty}", fenced)
    return vector


def _picks(width: int, bit: int, inside: int, high: int) -> list[int]:
    """Where each lane comes from (below `width`: from the first row) in the pass for `bit`.

    Inside a piece, lane bit `bit` says which row, the bits above it move up by one, and the topmost is `high`.
    Among pieces the topmost bit says which row, the others move down, and the lowest is `high`.
    """
    if bit < inside:
        low, top = (1 << bit) - 1, 1 << inside
        return [
            (n & low) | (n >> bit & 1) * width | (n % top >> bit + 1 << bit) | high * (top >> 1) | n // top * top
            for n in range(width)
        ]
    piece, half = 1 << inside, width >> 1
    return [n % piece | (n % half // piece * 2 + high) * piece | n // half * width for n in range(width)]


def _reversed(column: int, bits: int) -> int:
    """`column` with its lowest `bits` bits in reverse order."""
    return column >> bits << bits | sum((column >> n & 1) << (bits - 1 - n) for n in range(bits))


def _shuffle(b: Builder, ty: str, x: str, y: str, lanes: list[int]) -> str:
    if x == y == "poison":
        return "poison"
    picks = ", ".join(f"i32 {n}" for n in lanes)
    return b.hoist(f"shufflevector {ty} {x}, {ty} {y}, <{len(lanes)} x i32> <{picks}>", x, y)
