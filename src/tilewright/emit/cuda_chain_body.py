"""The statements of a step of a chain by what they do: operands, first products, what is computed of them, sums."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.emit.cuda_plan import Plan, number
from tilewright.language import ir


@dataclass(frozen=True)
class Sum:
    """A second product: `buffer` = addend + a b; `a` was computed, `b` lies in shared memory."""

    dot: ir.Let
    a: str
    b: ir.Let
    addend: str
    add: str
    buffer: str
    full: ir.Sync
    empty: ir.Sync | None


@dataclass(frozen=True)
class Body:
    """The statements of a step by what they do."""

    rows: ir.Loop
    loads: dict[str, ir.Let]  # operands in shared memory
    scores: tuple[ir.Let, ...]
    sums: tuple[Sum, ...]
    waits: tuple[ir.Sync, ...]  # before the scores
    frees: tuple[ir.Sync, ...]  # after the scores
    turn: bool
    between: tuple[ir.Stmt, ...]  # computed of the scores
    rescale: tuple[ir.Let, ...]  # computed of the sums so far
    behind: bool
    split: frozenset[str]  # buffers of which each thread keeps its own part

    @staticmethod
    def of(ring: ir.Loop, plan: Plan) -> Body:
        """The parts of the loop over columns."""
        role = next(s for s in ring.body if isinstance(s, ir.Role) and s.name == "consumer")
        rows = next(s for s in role.body if isinstance(s, ir.Loop))
        return _Reader(rows, plan).body()


class _Reader:
    def __init__(self, rows: ir.Loop, plan: Plan) -> None:
        self.rows, self.plan = rows, plan
        self.lets = {s.name: s for s in rows.body if isinstance(s, ir.Let)}
        self.loads = {
            n: s for n, s in self.lets.items() if isinstance(s.expr, ir.Load) and s.expr.ref.buffer in plan.rings
        }

    def body(self) -> Body:
        dots = [s for s in self.lets.values() if isinstance(s.expr, ir.Dot)]
        scores = tuple(d for d in dots if set(ir.operands(d.expr)) <= set(self.loads))
        sums = tuple(self.sum(d) for d in dots if d not in scores)
        late = {s.full for s in sums} | {s.empty for s in sums}
        syncs = [s for s in self.rows.body if isinstance(s, ir.Sync) and s not in late]
        staged = [s for s in syncs if ir.note(s.notes, "stage") is not None]
        special = {*(d.name for d in dots), *self.loads, *(s.add for s in sums), *(s.a for s in sums)}
        held = {s.buffer for s in sums}
        now = {n for n, s in self.lets.items() if isinstance(s.expr, ir.Load) and s.expr.ref.buffer in held}
        rescale: list[ir.Let] = []
        between: list[ir.Stmt] = []
        for s in self.rows.body:
            if isinstance(s, ir.Sync) or (isinstance(s, ir.Let) and s.name in special | now):
                continue
            if isinstance(s, ir.Store) and s.ref.buffer in held:
                continue
            read = ir.operands(s.expr) if isinstance(s, ir.Let) else ()
            if isinstance(s, ir.Let) and set(read) & (now | {r.name for r in rescale}):
                rescale.append(s)
            else:
                between.append(s)
        return Body(
            self.rows, self.loads, scores, sums,
            tuple(s for s in staged if s.action == "wait"), tuple(s for s in staged if s.action == "arrive"),
            any(ir.note(s.notes, "stage") is None for s in syncs), tuple(between), tuple(rescale),
            any(number(s.dot, "behind", 0) for s in sums), self.split(),
        )  # fmt: skip

    def split(self) -> frozenset[str]:
        """Buffers to which parts of reductions are added."""
        parts = {
            n for n, s in self.lets.items() if isinstance(s.expr, ir.Reduce) and ir.note(s.notes, "how") == "split"
        }
        adds = {n for n, s in self.lets.items() if parts & set(ir.operands(s.expr))}
        return frozenset(s.ref.buffer for s in self.rows.body if isinstance(s, ir.Store) and s.value in adds)

    def sum(self, dot: ir.Let) -> Sum:
        a, b = ir.operands(dot.expr)
        if a in self.loads:
            a, b = b, a
        add = next(s for s in self.lets.values() if isinstance(s.expr, ir.Map) and dot.name in s.expr.args)
        addend = next(x for x in ir.operands(add.expr) if x != dot.name)
        store = next(s for s in self.rows.body if isinstance(s, ir.Store) and s.value == add.name)
        load = self.loads[b]
        assert isinstance(load.expr, ir.Load)
        mine = [
            s for s in self.rows.body if isinstance(s, ir.Sync) and ir.note(s.notes, "guards") == load.expr.ref.buffer
        ]
        full = next(s for s in mine if s.action == "wait")
        empty = next((s for s in mine if s.action == "arrive"), None)
        return Sum(dot, a, load, addend, add.name, store.ref.buffer, full, empty)


__all__ = ["Body", "Sum"]
