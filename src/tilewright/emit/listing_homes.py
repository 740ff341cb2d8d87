"""Registers that carried values of a thread listing keep through a loop, whatever a pass makes of the values."""

from __future__ import annotations

from dataclasses import dataclass, field

from tilewright.emit.listing_page import several
from tilewright.emit.listing_values import Scene, read
from tilewright.emit.llvm_values import Tile, table
from tilewright.language import ir
from tilewright.language.accumulate import uses


@dataclass
class Homes:
    """The registers of each value that a loop carries (`of`): where a pass finds it, and where it has to leave it."""

    scene: Scene
    of: dict[str, Tile] = field(default_factory=dict)

    def carry(self, body: tuple[ir.Stmt, ...]) -> list[str]:
        """Give every value that `body` changes registers of its own, and its value so far."""
        names = [n for n in dict.fromkeys(s.name for s in ir.walk(body) if isinstance(s, ir.Assign))
                 if n in self.scene.cx.values]  # fmt: skip
        for name in names:
            tile, home = self.scene.cx.values[name], self.of.get(name)
            if home is None or tile is not home:
                self.of[name] = self.scene.cx.values[name] = tile if tile.spread else self._registers(name, tile)
        return names

    def _registers(self, name: str, tile: Tile) -> Tile:
        """New registers, filled with what the value holds now."""
        cx = self.scene.cx
        lane = cx.lane_of(tile.axes)
        keys = list(cx.keys(tile.axes, lane))
        before = [read(self.scene, tile, self.scene.point(tile.axes, k), lane) for k in keys]
        parts = {key: self.scene.names.new(name, cx.width(lane)) for key in keys}
        if tile.same is not None:
            self.scene.page.line(f"{several(list(parts.values()))} = {tile.same}")
        else:
            for register, value in zip(parts.values(), before, strict=True):
                self.scene.page.line(f"{register} = {value}")
        return table(tile.type, lane, parts)

    def settle(self, names: list[str]) -> None:
        """Move values that ended up elsewhere back into the registers of what they update."""
        for name in names:
            home, tile = self.of[name], self.scene.cx.values[name]
            if tile is not home and not home.spread:
                for key in self.scene.cx.keys(home.axes, home.lane):
                    now = read(self.scene, tile, self.scene.point(home.axes, key), home.lane)
                    if now != home.part(key):
                        self.scene.page.line(f"{home.part(key)} = {now}")
            self.scene.cx.values[name] = home

    def free(self, body: tuple[ir.Stmt, ...], at: int, let: ir.Let) -> Tile | None:
        """The registers of the carried value that `let` becomes, if nothing still needs what they hold."""
        later = body[at + 1 :]
        end = next((n for n, s in enumerate(later) if isinstance(s, ir.Assign) and s.value == let.name), None)
        if end is None:
            return None
        target = later[end]
        assert isinstance(target, ir.Assign)
        home, rest = self.of.get(target.name), later[end + 1 :]
        again = next((n for n, s in enumerate(rest) if isinstance(s, ir.Assign) and s.name == target.name), len(rest))
        unused = (
            home is not None
            and set(home.axes) == set(let.type.axes)
            and not uses(later[:end])[target.name]
            and not any(isinstance(s, ir.Assign) and s.name == target.name for s in ir.walk(later[:end]))
            and not uses(rest[again:])[let.name]
        )
        return home if unused else None


__all__ = ["Homes"]
