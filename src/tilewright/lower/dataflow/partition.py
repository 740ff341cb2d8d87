"""Which statements of a block form which stage: by who needs whose whole tile, and who owns what is carried.

A stage ends where a value needs all of a tile: at a sum, a loop, a load, and at what the design buffers. Loads stand
one stage before their first use. What a loop carries from one iteration to the next has one owner: all that reads
or writes it is one stage; or it lies in a buffer outside the loop, where many stages read it (`buffered`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tilewright.language import ir
from tilewright.lower.dataflow.items import Item


@dataclass(frozen=True)
class Group:
    """Items that are one stage, at place `level` of the pipeline."""

    level: int
    items: tuple[Item, ...]


@dataclass
class Block:
    """The items of a block. `cheap` values are computed again wherever they are needed, and cross no stage."""

    items: list[Item]
    buffered: frozenset[str] = frozenset()
    explicit: frozenset[str] = frozenset()
    home: dict[str, int] = field(init=False)
    cheap: dict[str, ir.Let] = field(init=False)

    def __post_init__(self) -> None:
        self.home = {name: i for i, each in enumerate(self.items) for name in each.made}
        self.assigned = frozenset(n for each in self.items for n in each.assigned)
        self.cheap = {}
        for each in self.items:
            if each.let is not None and self._is_cheap(each.let):
                self.cheap[each.let.name] = each.let

    @property
    def carried(self) -> frozenset[str]:
        """Values from outside that the block updates."""
        return self.assigned - set(self.home)

    def _is_cheap(self, let: ir.Let) -> bool:
        if let.name in self.assigned:
            return False
        match let.expr:
            case ir.Full() | ir.Coord():
                return True
            case ir.Map("cast", (arg,)) if arg in self.home and self.items[self.home[arg]].loads:
                return True
            case ir.Map(_, args):
                return all(a in self.cheap or (a not in self.home and a not in self.assigned) for a in args)
            case _:
                return False

    def needs(self, each: Item) -> Iterator[str]:
        """Values of other items that an item reads, through those that are cheap."""
        yield from self._through(each.read, set())

    def _through(self, names: frozenset[str] | tuple[str, ...], seen: set[str]) -> Iterator[str]:
        for name in sorted(set(names) - seen):
            seen.add(name)
            if name in self.cheap:
                yield from self._through(ir.operands(self.cheap[name].expr), seen)
            elif name in self.home:
                yield name

    def solid(self) -> list[int]:
        """Items that are not cheap."""
        return [i for i, each in enumerate(self.items) if not each.made & set(self.cheap)]

    # ------------------------------------------------------------------------------------------- edges
    def edges(self) -> set[tuple[int, int, int]]:
        """(before, after, distance): `after` needs `before`, at least `distance` stages later."""
        found = set()
        for i in self.solid():
            for name in self.needs(self.items[i]):
                j = self.home[name]
                if i != j:
                    far = self.items[j].sums or self.items[j].loads or name in self.explicit
                    found.add((j, i, int(far)))
        return found | set(self._memory_order()) | set(self._carried_order())

    def _memory_order(self) -> Iterator[tuple[int, int, int]]:
        for j in self.solid():
            for i in (i for i in self.solid() if i > j):
                both = {t for t, _ in self.items[i].tensors} & {t for t, _ in self.items[j].tensors}
                if any((t, True) in self.items[i].tensors | self.items[j].tensors for t in both):
                    yield j, i, 1

    def _carried_order(self) -> Iterator[tuple[int, int, int]]:
        for name in self.buffered:
            for j in self.solid():
                for i in (i for i in self.solid() if i > j):
                    one, two = self.items[j], self.items[i]
                    if name in one.assigned | two.assigned and name in one.read and name in two.read:
                        yield j, i, int(name in one.assigned)

    def forced(self) -> Iterator[tuple[int, int]]:
        """Pairs of items that must be one stage: sharers of a carried value, a loop and its first values."""
        for name in self.assigned - self.buffered:
            those = [i for i in self.solid() if name in self.items[i].assigned]
            those += [self.home[name]] if name in self.home else []
            if name not in self.home:
                those += [i for i in self.solid() if name in set(self._reads_of(i))]
            yield from ((those[0], other) for other in those[1:])

    def _reads_of(self, i: int) -> Iterator[str]:
        names = set(self.items[i].read)
        yield from names
        for name in names & set(self.cheap):
            yield from ir.operands(self.cheap[name].expr)


def partition(block: Block) -> list[Group]:
    """The stages of a block, in the order of their levels."""
    sets = _Sets(block.solid())
    for one, other in block.forced():
        sets.join(one, other)
    edges = block.edges()
    _close(sets, edges)
    owners = {sets.of(i) for i in sets.parent if len(sets.members(i)) > 1}
    levels = _levels(sets, edges, owners)
    _late_loads(block, sets, edges, levels)
    for j, i, far in edges:
        if sets.of(j) != sets.of(i) and not far and levels[sets.of(j)] == levels[sets.of(i)]:
            level = levels[sets.of(j)]
            sets.join(j, i)
            levels[sets.of(j)] = level
    _close(sets, edges)
    return _groups(block, sets, levels)


def _groups(block: Block, sets: _Sets, levels: dict[int, int]) -> list[Group]:
    roots = sorted({sets.of(i) for i in sets.parent}, key=lambda r: (levels[r], min(sets.members(r))))
    rank = {level: n for n, level in enumerate(sorted({levels[r] for r in roots}))}
    return [Group(rank[levels[r]], tuple(block.items[i] for i in sorted(sets.members(r)))) for r in roots]


class _Sets:
    """Disjoint sets of items."""

    def __init__(self, items: list[int]) -> None:
        self.parent = {i: i for i in items}

    def of(self, i: int) -> int:
        """The set that holds an item, by the least of its members."""
        return self.parent[i]

    def members(self, i: int) -> list[int]:
        """All that are in one set with an item."""
        return [j for j, root in self.parent.items() if root == self.parent[i]]

    def join(self, i: int, j: int) -> None:
        """Make the sets of two items one."""
        root, both = min(self.of(i), self.of(j)), self.members(i) + self.members(j)
        self.parent.update(dict.fromkeys(both, root))


def _close(sets: _Sets, edges: set[tuple[int, int, int]]) -> None:
    """Join what lies on a way from a set back to itself: a stage cannot wait for what waits for it."""
    while True:
        after: dict[int, set[int]] = {sets.of(i): set() for i in sets.parent}
        for j, i, _ in edges:
            if sets.of(j) != sets.of(i):
                after[sets.of(j)].add(sets.of(i))
        reach = {root: _reach(root, after) for root in after}
        pair = next(((a, b) for a in reach for b in reach[a] if a != b and a in reach[b]), None)
        if pair is None:
            return
        sets.join(*pair)


def _reach(root: int, after: dict[int, set[int]]) -> set[int]:
    seen: set[int] = set()
    stack = [root]
    while stack:
        for each in after[stack.pop()] - seen:
            seen.add(each)
            stack.append(each)
    return seen


def _levels(sets: _Sets, edges: set[tuple[int, int, int]], owners: set[int]) -> dict[int, int]:
    """The earliest level of each set: the longest way to it. An owner's results are there when it is done."""
    level = {sets.of(i): 0 for i in sets.parent}
    for _ in level:
        for j, i, far in edges:
            before, after = sets.of(j), sets.of(i)
            if before != after:
                level[after] = max(level[after], level[before] + (1 if before in owners else far))
    return level


def _late_loads(block: Block, sets: _Sets, edges: set[tuple[int, int, int]], levels: dict[int, int]) -> None:
    """Loads move to the stage before their first use, last ones first."""
    for i in sorted(sets.parent, reverse=True):
        users = [levels[sets.of(b)] for a, b, _ in edges if a == i and sets.of(b) != sets.of(i)]
        if block.items[i].loads and len(sets.members(i)) == 1 and users:
            levels[sets.of(i)] = min(users) - 1
