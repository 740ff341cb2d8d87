"""Horizontal batching: several small equal kernels become one, as a transformation of the tile program.

Two ways, both with their rules:

- `stacked`: n instances over a new dimension that is visited one position at a time (`each`). Every tensor that the
  instances do not share gets the dimension in front; shared ones are read by all.
- `joined`: instances that differ only along one dimension, as the projections q, k and v of one x along their rows,
  become one instance whose dimension is as long as theirs together. The program stays as it is; what is laid end to
  end, and where each instance then lies, is the plan.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from tilewright.errors import ArgumentError
from tilewright.language import ir, structure
from tilewright.language.verifier import check


# ------------------------------------------------------------------------------------------- stacked
def stacked(kernel: ir.Kernel, shared: Collection[str] = (), dim: str = "Z") -> ir.Kernel:
    """The program of as many instances as `dim` is long; tensors in `shared` are the same for all of them.

    before:  for m in M, n in N parallel { ... load x[m, k] ... load w[n, k] ... store y[m, n] = acc }
    after:   for each z in Z, m in M, n in N parallel { ... load x[m, k] ... load w[z, n, k] ... store y[z, m, n] = .. }

    Raises ArgumentError for a shared tensor that is written or unknown, and for programs with statements outside their
    parallel loops.
    """
    taken = structure.names(kernel)
    name, position = structure.fresh(dim, taken), structure.fresh(dim.lower(), taken)
    separate = _separate(kernel, shared)
    params = tuple(replace(p, dims=(name, *p.dims)) if p.dims and p.name in separate else p for p in kernel.params)
    axis = ir.Axis(position, name, each=True)
    body = tuple(_instance(s, axis, separate) for s in kernel.body)
    return check(replace(kernel, name=f"{kernel.name}_stacked", params=params, body=body, lines=()))


def _separate(kernel: ir.Kernel, shared: Collection[str]) -> frozenset[str]:
    """Tensors that each instance has for itself."""
    tensors = [p.name for p in kernel.params if p.dims is not None]
    if unknown := [t for t in shared if t not in tensors]:
        raise ArgumentError(f"{kernel.name} has no tensor {unknown[0]}; it has {', '.join(tensors)}")
    written = {s.ref.buffer for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
    if clash := sorted(written & set(shared)):
        raise ArgumentError(f"every instance writes {clash[0]}, so they cannot share it; leave it out of `shared`")
    return frozenset(t for t in tensors if t not in shared)


def _instance(stmt: ir.Stmt, axis: ir.Axis, separate: frozenset[str]) -> ir.Stmt:
    """A top-level loop over all instances."""
    if not isinstance(stmt, ir.Loop) or not stmt.parallel:
        raise ArgumentError("a statement stands outside the parallel loops; only whole parallel loops become batches")
    (inside,) = structure.rewrite((stmt,), lambda s: _at(s, axis.name, separate))
    assert isinstance(inside, ir.Loop)
    return replace(inside, axes=(axis, *inside.axes))


def _at(stmt: ir.Stmt, position: str, separate: frozenset[str]) -> ir.Stmt:
    """A statement with its places in separate tensors at the instance's position."""

    def placed(ref: ir.Ref) -> ir.Ref:
        return replace(ref, index=(position, *ref.index)) if ref.buffer in separate else ref

    match stmt:
        case ir.Let(_, _, ir.Load(ref)):
            return replace(stmt, expr=ir.Load(placed(ref)))
        case ir.Store(ref):
            return replace(stmt, ref=placed(ref))
        case _:
            return stmt


# -------------------------------------------------------------------------------------------- joined
@dataclass(frozen=True)
class Joined:
    """Instances laid end to end along `dim`: which tensors, in which of their dimensions, and where each begins."""

    kernel: ir.Kernel
    dim: str
    along: tuple[tuple[str, int], ...]  # (tensor, its dimension)
    starts: tuple[int, ...]
    size: int


def joined(kernel: ir.Kernel, dim: str, lengths: Sequence[int]) -> Joined:
    """The plan by which instances of these lengths along `dim` are one; their other operands are shared.

    Raises ArgumentError unless `dim` is an axis that a parallel loop deals out and that nothing is summed, reduced or
    compared along: then a point of it depends on no other, and what is laid end to end stays apart.
    """
    axes = [a for nest in structure.nests(kernel) if nest.loop.parallel for a in nest.loop.axes if a.over == dim]
    if not axes:
        raise ArgumentError(f"{dim} is no range of a parallel loop of {kernel.name}; its points are not independent")
    names = {a.name for a in axes}
    for let in structure.lets(kernel).values():
        crossed = {dim, *names}
        match let.expr:
            case ir.Reduce(_, _, axis) | ir.Dot(_, _, axis) if axis in crossed:
                raise ArgumentError(f"{let.name} is summed along {dim}, and would mix what is laid end to end")
            case ir.Coord(axis) if axis in crossed:
                raise ArgumentError(f"{let.name} is a position along {dim}, which would count from the first instance")
            case ir.Full(value) if value == dim:
                raise ArgumentError(f"{let.name} is the size of {dim}, which would be that of all instances")
    along = [(p.name, d) for p in kernel.params for d, at in enumerate(p.dims or ()) if at == dim]
    starts = tuple(sum(lengths[:n]) for n in range(len(lengths)))
    return Joined(kernel, dim, tuple(along), starts, sum(lengths))


__all__ = ["Joined", "joined", "stacked"]
