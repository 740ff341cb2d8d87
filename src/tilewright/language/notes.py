"""Every schedule decision that may be noted on a node of the IR: one table.

A note never changes what a program computes, only how a machine goes about it: the interpreter ignores all of
them. A decision that has a shape of its own is not a note but structure: tile sizes and coarsening are the steps
of axes, loop order is nesting, a stationary operand is the buffer that stays while others stream.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tilewright.language import ir

# Kinds of values that are not words: how each is spelled in NoteKey.values, and in a message.
_KINDS = {
    "int>0": "a positive integer",
    "int>=0": "an integer, 0 or more",
    "bool": "true or false",
    "name": "the name of an axis or buffer",
    "names": "names in parentheses",
    "text": "a word",
}


@dataclass(frozen=True)
class NoteKey:
    """A decision: its key, the nodes that carry it, and what it may say.

    `on` holds class names of the IR; a Let carries what its expression (Load, Dot, Reduce ...) does.
    `values` holds the allowed words, or kinds: "int>0", "int>=0", "bool", "name", "names", "text".
    """

    name: str
    on: tuple[str, ...]
    values: tuple[str, ...]
    doc: str


_TABLE = (
    # ------------------------------------------------------------------------------------ the whole
    NoteKey("machine", ("Kernel",), ("text",), "the machine it was scheduled for"),
    NoteKey("design", ("Kernel",), ("text",), "hash of the design it was lowered from"),
    NoteKey("threads", ("Kernel", "Role"), ("int>0",), "threads of the team, block or role"),
    NoteKey("resident", ("Kernel",), ("int>0",), "blocks that share a unit at the same time"),
    # --------------------------------------------------------------------------------- bind and order
    NoteKey(
        "bind",
        ("Loop",),
        ("thread", "core", "grid", "cluster", "warpgroup", "warp", "lane", "stage"),
        "the units its iterations are dealt to: CPU threads, cores or unit groups, blocks, blocks of one cluster, "
        "warpgroups, warps, lanes, copies of a pipeline stage",
    ),
    NoteKey("order", ("Loop",), ("row", "grouped", "hilbert"), "the order in which tiles are dealt out"),
    NoteKey(
        "drawn", ("Loop",), ("bool",), "a worker draws its next tile when it is free, instead of having them dealt"
    ),
    NoteKey(
        "dealt",
        ("Loop",),
        ("runs", "turns"),
        "how tiles are dealt to threads beforehand: a run of neighbours for each, or one by one in turn",
    ),
    NoteKey("descending", ("Loop",), ("bool",), "tiles of the last axis are dealt out from its end"),
    NoteKey("group", ("Loop",), ("int>0",), "rows of tiles that a grouped order walks together"),
    NoteKey("turns", ("Loop",), ("int>0",), "so many warps take the steps of the loop around it in turns, one each"),
    NoteKey("persistent", ("Loop",), ("bool",), "as many workers as the machine holds; each takes tile after tile"),
    NoteKey(
        "free",
        ("Loop", "Map"),
        ("names", "bool"),
        "on a loop, the positions between which its masks hold everywhere; on a select, that it is such a mask",
    ),
    NoteKey("unroll", ("Loop",), ("int>0",), "iterations written out in one pass; the remainder runs one by one"),
    NoteKey(
        "lanes",
        ("Kernel", "Dot", "Reduce", "Map", "Load", "Store", "Copy"),
        ("name", "names"),
        "the axis that lies across vector lanes; on a kernel, axes by priority",
    ),
    # --------------------------------------------------------------------------- pipelines and roles
    NoteKey("stages", ("Loop", "Alloc"), ("int>0",), "iterations in flight; copies of the buffer they rotate through"),
    NoteKey("stage", ("Role", "Sync"), ("int>=0", "name"), "place of a role in its pipeline; axis that picks the slot"),
    NoteKey("warps", ("Role",), ("int>0",), "warps that execute the role (a warpgroup is 4)"),
    NoteKey("registers", ("Role",), ("int>0",), "registers a thread of the role holds"),
    NoteKey("stagger", ("Role",), ("int>0",), "steps of its loop after which the next of its warpgroups begins"),
    NoteKey("units", ("Role",), ("int>0",), "compute units of a dataflow machine that execute the role"),
    NoteKey(
        "scope",
        ("Sync",),
        ("warp", "warpgroup", "block", "cluster", "grid", "team", "stage"),
        "who takes part in the barrier",
    ),
    NoteKey("guards", ("Sync",), ("name", "names"), "the buffers whose slots the barrier hands over"),
    NoteKey("count", ("Sync",), ("int>0",), "arrivals, one a warp, that complete one phase of the barrier"),
    # ------------------------------------------------------------------------------ place and layout
    NoteKey(
        "place",
        ("Alloc",),
        ("register", "scratch", "panel", "shared", "cluster", "pmu", "array", "accumulator", "memory"),
        "where it lies: registers, a private scratchpad, packed panels, a block's shared memory, the shared memories "
        "of a cluster, memory units of a dataflow machine, cells or accumulators of an array, main memory",
    ),
    NoteKey(
        "layout",
        ("Alloc",),
        ("row", "panel", "pair", "quad", "tile", "swizzle32", "swizzle64", "swizzle128"),
        "order of its elements: row by row; one tile of the copy that fills it after the other; the same with 2 or 4 "
        "neighbours of the reduced axis side by side; tiles of 32 such neighbours; rows XOR-swizzled within 32, 64 or "
        "128 bytes",
    ),
    NoteKey("pad", ("Alloc",), ("int>0",), "elements added to each row so that rows start in different banks"),
    # ------------------------------------------------------------------------- loads, stores, copies
    NoteKey(
        "cache",
        ("Load", "Store", "Copy"),
        ("ca", "cg", "cs", "evict_first", "evict_last", "strong"),
        "cache at all levels, at L2 only, stream through, first or last to be evicted, or a strong load of what nobody "
        "writes, which the assembler leaves where it stands",
    ),
    NoteKey("vec", ("Load", "Store", "Copy"), ("int>0",), "neighbouring elements that one instruction moves"),
    NoteKey("prefetch", ("Load",), ("int>0",), "iterations of the enclosing loop that it is fetched ahead"),
    NoteKey("ahead", ("Load",), ("int>0",), "tiles of the serial loop around it that it is fetched ahead, into L2"),
    NoteKey("nontemporal", ("Store",), ("bool",), "written around the caches"),
    NoteKey(
        "engine", ("Load", "Copy", "Store"), ("plain", "cp_async", "tma", "dma", "registers"), "what moves the data"
    ),
    NoteKey("box", ("Copy",), ("int>0",), "rows that one instruction of the copy engine moves; else as many as it can"),
    NoteKey("multicast", ("Copy",), ("int>0",), "blocks of the cluster that receive it from one read"),
    NoteKey(
        "inflight", ("Copy", "Dot"), ("int>=0",), "asynchronous groups still running when the next statement starts"
    ),
    NoteKey("behind", ("Dot",), ("int>0",), "iterations that it lags: issued after the first products of the next one"),
    NoteKey("own", ("Loop",), ("bool",), "each warpgroup takes the steps that its own rows need, not those of all"),
    NoteKey("direction", ("Copy", "Loop"), ("push", "pull"), "who moves partial data: its owner, or who needs it"),
    # ---------------------------------------------------------------------- arithmetic and reductions
    NoteKey(
        "atom",
        ("Dot",),
        ("fma", "bf16x2", "vnni", "amx_bf16", "amx_int8", "mma", "wgmma", "systolic"),
        "the instruction that multiplies",
    ),
    NoteKey("swap", ("Dot",), ("bool",), "operands change places: the transposed product is computed"),
    NoteKey(
        "how",
        ("Reduce", "Loop"),
        ("serial", "tree", "split", "cluster", "atomic", "two_pass"),
        "how parts are joined: one after the other, a tree over lanes and warps, several accumulators, over a cluster, "
        "by atomics, or through partial results summed by whoever finishes last; on a loop, its carried sums",
    ),
    NoteKey("split", ("Reduce", "Loop"), ("int>0",), "independent accumulators, joined at the end"),
)

NOTE_KEYS: dict[str, NoteKey] = {key.name: key for key in _TABLE}

# What a Sync may do to its barrier.
SYNC_ACTIONS: dict[str, str] = {
    "barrier": "arrive, and wait for all of the scope",
    "arrive": "count one arrival and go on",
    "expect": "count one arrival and announce the bytes of the copies that follow",
    "wait": "wait until the phase is complete",
    "fence": "make plain writes visible to the copy engine and the matrix units",
}


def node_kinds(node: ir.Stmt | ir.Kernel) -> tuple[str, ...]:
    """The class names under which `node` looks up its notes: its own, and that of a Let's expression."""
    if isinstance(node, ir.Let):
        return ("Let", type(node.expr).__name__)
    return (type(node).__name__,)


def check_note(node: ir.Stmt | ir.Kernel, key: str, value: ir.Note) -> str | None:
    """Why `node` may not carry the note `key=value`; None if it may."""
    entry = NOTE_KEYS.get(key)
    kinds = node_kinds(node)
    if entry is None:
        near = difflib.get_close_matches(key, NOTE_KEYS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"a {kinds[-1]} takes {_allowed_keys(kinds)}"
        return f"no decision is called {key!r}; {hint}"
    if not set(kinds) & set(entry.on):
        return f"{key!r} belongs on {', '.join(entry.on)}, not on a {kinds[-1]}, which takes {_allowed_keys(kinds)}"
    if not any(_fits(value, allowed) for allowed in entry.values):
        wanted = ", ".join(_KINDS.get(allowed, allowed) for allowed in entry.values)
        return f"{key}={value!r}: takes {wanted}"
    return None


def _fits(value: ir.Note, allowed: str) -> bool:
    match allowed:
        case "int>0":
            return isinstance(value, int) and not isinstance(value, bool) and value > 0
        case "int>=0":
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0
        case "bool":
            return isinstance(value, bool)
        case "name" | "text":
            return isinstance(value, str) and bool(value)
        case "names":
            return isinstance(value, tuple) and bool(value) and all(isinstance(v, str) for v in value)
        case word:
            return value == word


def _allowed_keys(kinds: tuple[str, ...]) -> str:
    keys = [k.name for k in _TABLE if set(kinds) & set(k.on)]
    return ", ".join(keys) if keys else "no notes"
