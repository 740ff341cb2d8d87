"""Registers of a thread listing: which element lies where, and the loads and stores that move it.

The rules are those of `llvm_values` and `llvm_memory`; what they make LLVM text of is written here as
`a0 = load(a, (m, k), vec=16)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilewright.emit.listing_page import Names, Page, element, several, shifted
from tilewright.emit.llvm_places import Place, axis_dims, neighbouring
from tilewright.emit.llvm_values import Context, Key, Tile
from tilewright.language import ir


@dataclass
class Scene:
    """Where the listing stands: axes and values (`cx`), the page, names in use, and where tensors lie."""

    cx: Context
    page: Page = field(default_factory=Page)
    names: Names = field(default_factory=Names)
    places: dict[str, Place] = field(default_factory=dict)
    dealt: tuple[str, ...] = ()  # axes of the loop whose tiles are dealt to threads

    def point(self, axes: tuple[str, ...], key: Key) -> dict[str, int]:
        """The key of a part by axis."""
        return dict(zip(axes, key, strict=True))

    def parts(self, type_: ir.TileType, lane: str | None, root: str, home: Tile | None) -> Callable[[Key], str]:
        """Where parts of a new value go: registers of `home` if it has the same form, else new ones."""
        if home is not None and home.lane == lane and not home.spread:
            back = [type_.axes.index(a) for a in home.axes]
            return lambda key: home.part(tuple(key[n] for n in back))
        width = self.cx.width(lane)
        return lambda _key: self.names.new(root, width)


def accumulators(tile: Tile, key: Key) -> list[str]:
    """The registers that a part of a spread sum is split over: one, or as many as the loop's split says."""
    return list(tile.source[key]) if isinstance(tile.source, dict) else [tile.part(key)]


# ------------------------------------------------------------------------------------------------ reading
def read(scene: Scene, tile: Tile, point: dict[str, int], lane: str | None) -> str:
    """The elements of `tile` at `point` along `lane`, as `llvm_values.read` takes them; scalars broadcast silently."""
    cx = scene.cx
    if tile.same is not None:
        return tile.same
    if tile.lane == lane:
        return tile.part(tuple(point[a] for a in tile.axes))
    if lane is None or lane not in tile.axes:
        return _scalar(cx, tile, point)
    state = cx.axes[lane]
    first, width = point[lane] * state.width, state.width
    if tile.lane is None:
        rows = [_row(tile, point, lane, first + n) for n in range(min(width, state.extent - first))]
        return rows[0] if width == 1 else f"pack({several(rows)})"
    chunk, column = divmod(point[tile.lane], cx.width(tile.lane))
    at = {**point, tile.lane: chunk}
    rows = list(dict.fromkeys(_row(tile, at, lane, min(first + n, state.extent - 1)) for n in range(width)))
    return f"transpose({several(rows)})[{column}]"


def _row(tile: Tile, point: dict[str, int], lane: str, n: int) -> str:
    return tile.part(tuple(n if a == lane else point[a] for a in tile.axes))


def _scalar(cx: Context, tile: Tile, point: dict[str, int]) -> str:
    if tile.lane is None:
        return tile.part(tuple(point[a] for a in tile.axes))
    width = cx.width(tile.lane)
    chunk, inside = divmod(point[tile.lane], width)
    register = tile.part(tuple(chunk if a == tile.lane else point[a] for a in tile.axes))
    return register if width == 1 else element(register, inside)


# ------------------------------------------------------------------------------------------------ addresses
def place_text(scene: Scene, ref: ir.Ref, point: dict[str, int]) -> str:
    """`buffer, (index, ...)` of the element at `point` (positions within each axis)."""
    place = scene.places[ref.buffer]
    indices = ", ".join(_index(scene, place, d, i, point) for d, i in enumerate(ref.index))
    comma = "," if len(ref.index) == 1 else ""
    return f"{ref.buffer}, ({indices}{comma})"


def _index(scene: Scene, place: Place, dim: int, index: str | int, point: dict[str, int]) -> str:
    if isinstance(index, int):
        return str(index)
    if index not in scene.cx.axes:
        value = scene.cx.values[index]
        return read(scene, value, {a: point[a] for a in value.axes}, None)
    state = scene.cx.axes[index]
    origin = place.origin[dim] if place.origin else None
    base = state.base if origin is None else f"{state.base} - {scene.cx.axes[origin].base}"
    return shifted(base, 0 if state.each else point.get(index, 0) * state.apart)


def _positions(scene: Scene, axes: tuple[str, ...], lane: str | None, key: Key) -> dict[str, int]:
    return {a: k * scene.cx.axes[a].width if a == lane else k for a, k in zip(axes, key, strict=True)}


def _ends(scene: Scene, lane: str | None, key: Key, axes: tuple[str, ...], rows: bool) -> list[str]:
    """Axes whose end an access checks: its lanes where they may run out, and its row where `rows` are guarded."""
    found = []
    for axis, k in zip(axes, key, strict=True):
        state = scene.cx.axes[axis]
        if axis == lane:
            checked = state.count is not None or (k + 1) * state.width > state.extent
        else:
            checked = rows and state.count is not None and not state.each
        if checked:
            found.append(axis)
    return found


def _clamped(scene: Scene, lane: str | None, key: Key, axes: tuple[str, ...]) -> str:
    """`, clamp=m` where a row may lie past the end of m, and the last one is read instead."""
    states = (scene.cx.axes[a] for a, k in zip(axes, key, strict=True) if a != lane and k)
    return _listed("clamp", [s.name for s in states if s.count is not None and not s.each])


def _listed(keyword: str, names: list[str]) -> str:
    if not names:
        return ""
    return f", {keyword}={names[0]}" if len(names) == 1 else f", {keyword}=({', '.join(names)})"


def _options(vec: int, notes: ir.Notes, ends: list[str], nontemporal: bool = False) -> str:
    """The keyword arguments of an access."""
    cache = "cs" if nontemporal else ir.note(notes, "cache")
    parts = [f"cache={cache}"] if cache else []
    return ", ".join([*parts, f"vec={vec}"]) + _listed("mask", ends)


# ------------------------------------------------------------------------------------------------ loads, stores
def load(scene: Scene, let: ir.Let, home: Tile | None = None, *, rows: bool = False) -> Tile:
    """The tile that `let` loads; each part is listed when it is first read. `rows`: missing rows are not touched."""
    assert isinstance(let.expr, ir.Load)
    ref, type_, notes = let.expr.ref, let.type, let.notes
    cx, place = scene.cx, scene.places[ref.buffer]
    lane = load_lane(cx, place, ref, type_)
    known: dict[Key, str] = {}
    register = scene.parts(type_, lane, let.name, home)
    prefetch = ir.note(notes, "prefetch")
    ahead = f", prefetch={prefetch}" if prefetch and set(scene.dealt) & set(ref.index) else ""

    def part(key: Key) -> str:
        if key not in known:
            known[key] = register(key)
            ends = [] if place.padded else _ends(scene, lane, key, type_.axes, rows)
            last = "" if place.padded or rows else _clamped(scene, lane, key, type_.axes)
            at = place_text(scene, ref, _positions(scene, type_.axes, lane, key))
            scene.page.line(f"{known[key]} = load({at}, {_options(cx.width(lane), notes, ends)}{last}{ahead})")
        return known[key]

    return Tile(type_, lane, part, source=ref)


def load_lane(cx: Context, place: Place, ref: ir.Ref, type_: ir.TileType) -> str | None:
    """The axis along which a load takes vectors: one with unit stride, or that of the panel's blocks."""
    dims, lane = axis_dims(cx, ref), cx.lane_of(type_.axes)
    unit = neighbouring(cx, place, dims, type_.axes)
    if place.panel is not None:  # neighbours of a panel lie along its block, one by one
        return lane if place.panel.pair == 1 and dims.get(str(lane)) == place.panel.dim else None
    if lane is None or lane in unit:
        return lane
    return next((a for a in unit if a in cx.lanes and cx.axes[a].width > 1), None)


def store(scene: Scene, stmt: ir.Store, value: Tile) -> None:
    """Every part of `value` to its place."""
    place = scene.places[stmt.ref.buffer]
    local = any(o is not None for o in place.origin)
    nontemporal = bool(ir.note(stmt.notes, "nontemporal", False))
    write(scene, stmt.ref, value, stmt.notes, pad=place.padded or local, nontemporal=nontemporal)


def write(scene: Scene, ref: ir.Ref, value: Tile, notes: ir.Notes, *, pad: bool, nontemporal: bool = False) -> None:
    """`store(buffer, (index, ...), register, ...)` for each part; `pad`: elements past the end are written too."""
    cx, place = scene.cx, scene.places[ref.buffer]
    lane = _store_lane(cx, place, ref, value)
    for key in cx.keys(value.axes, lane):
        text = read(scene, value, scene.point(value.axes, key), lane)
        text = text if value.dtype == place.dtype else f"{place.dtype}({text})"
        ends = [] if pad else _ends(scene, lane, key, value.axes, True)
        at = place_text(scene, ref, _positions(scene, value.axes, lane, key))
        scene.page.line(f"store({at}, {text}, {_options(cx.width(lane), notes, ends, nontemporal)})")


def _store_lane(cx: Context, place: Place, ref: ir.Ref, value: Tile) -> str | None:
    dims = axis_dims(cx, ref)
    unit = [a for a in neighbouring(cx, place, dims, value.axes) if cx.axes[a].width > 1]
    if place.panel is not None:
        unit = [a for a in value.axes if dims.get(a) == place.panel.dim and place.panel.pair == 1]
    return value.lane if value.lane in unit else (unit[0] if unit else None)


def copy(scene: Scene, node: ir.Copy) -> None:
    """A copy into a panel: rows are loaded, turned into lanes, and stored in the order of use."""
    cx, place, source = scene.cx, scene.places[node.dst.buffer], scene.places[node.src.buffer]
    axes = tuple(i for i in node.src.index if isinstance(i, str) and i in cx.axes and not cx.axes[i].each)
    type_ = ir.TileType(source.dtype, axes)
    if place.panel is not None and place.panel.pair > 1:
        _copy_groups(scene, node, type_, place)
        return
    value = load(scene, ir.Let(node.src.buffer, type_, ir.Load(node.src), node.notes), rows=place.padded)
    write(scene, node.dst, value, (), pad=place.padded)


def _copy_groups(scene: Scene, node: ir.Copy, type_: ir.TileType, place: Place) -> None:
    """Neighbours of the depth axis travel together: rows are read along it and stored `pair` at a time."""
    cx, panel = scene.cx, place.panel
    assert panel is not None
    lane, depth = str(node.dst.index[panel.dim]), str(node.dst.index[panel.depth])
    rows, columns = cx.axes[lane], cx.axes[depth]
    ends = [a for a in (lane, depth) if cx.axes[a].count is not None]
    named = {}
    for n in range(rows.extent):
        named[n] = scene.names.new(node.src.buffer, columns.extent)
        at = place_text(scene, node.src, {lane: n, depth: 0})
        scene.page.line(f"{named[n]} = load({at}, {_options(columns.extent, node.notes, ends)})")
    if panel.pair >= columns.extent:
        for n, register in named.items():
            at = place_text(scene, node.dst, {lane: n, depth: 0})
            scene.page.line(f"store({at}, {register}, vec={columns.extent})")
        return
    for chunk in range(rows.chunks):
        first = chunk * rows.width
        block = several([named[n] for n in range(first, min(first + rows.width, rows.extent))])
        for k in range(0, columns.extent, panel.pair):
            at = place_text(scene, node.dst, {lane: first, depth: k})
            turned = f"transpose({block})[{k} .. {k + panel.pair - 1}]"
            scene.page.line(f"store({at}, {turned}, vec={rows.width * panel.pair})")
