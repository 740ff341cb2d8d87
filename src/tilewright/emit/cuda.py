"""Scheduled program -> CUDA C++: a head that says what was decided, then one path through the program for each role."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.emit.abi import TensorLayout
from tilewright.emit.cuda_abi import CudaModule, args_struct, overlaps
from tilewright.emit.cuda_chain import ChainText, is_chain
from tilewright.emit.cuda_chain_values import chain_layouts, joint
from tilewright.emit.cuda_copies import leaving
from tilewright.emit.cuda_grid import grid_of, tile_counts
from tilewright.emit.cuda_plan import Plan, Team, c_type
from tilewright.emit.cuda_roles import RoleText
from tilewright.emit.cuda_sync import begin, declare, drain, let_begin, open_turns, peers, set_up
from tilewright.emit.cuda_text import Text, cname
from tilewright.language import ir
from tilewright.machines.machine import Machine


def emit_cuda(
    scheduled: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], machine: Machine
) -> CudaModule:
    """The CUDA C++ of a scheduled program; `sizes` are those that are part of the kernel, and become literals."""
    if not any(isinstance(s, ir.Role) for s in ir.walk(scheduled.body)):
        from tilewright.emit.cuda_simt import emit_simt

        return emit_simt(scheduled, layouts, sizes, machine)
    return _Module(scheduled, layouts, sizes, machine).module()


class _Module:
    def __init__(
        self, kernel: ir.Kernel, layouts: Mapping[str, TensorLayout], sizes: Mapping[str, int], machine: Machine
    ) -> None:
        self.kernel, self.machine, self.text = kernel, machine, Text()
        self.plan = Plan(kernel, layouts, sizes)
        self.entry = f"{kernel.name}_{ir.note(kernel.notes, 'design', 'plain')}"
        self.chained = is_chain(kernel)
        self.grid_loop = next(s for s in kernel.body if isinstance(s, ir.Loop))

    def module(self) -> CudaModule:
        plan = self.plan
        self.head()
        bounds, parameter = f"__launch_bounds__({plan.threads}, 1)", "const __grid_constant__ Args args"
        opening = f'extern "C" __global__ void {bounds} {self.entry}({parameter})'
        with self.text.block(opening):
            self.prologue()
            self.roles()
        return CudaModule(
            self.text.text(),
            self.entry,
            plan.threads,
            grid_of(plan, self.grid_loop),
            plan.maps,
            plan.shared_bytes,
            plan.scratch,
            overlaps(self.machine),
        )

    def head(self) -> None:
        """Comment, headers, and the parameter."""
        line = self.text.line
        line(f"// {self.kernel.name} for {self.machine.name}, design {ir.note(self.kernel.notes, 'design')}")
        more = {"wgmma_along": self.plan.along_only, "chain": self.chained}
        for name in ("roles", *(name for name, wanted in more.items() if wanted)):
            line(f'#include "tw/{name}.cuh"')
        line("using namespace tw;")
        if self.chained:
            line("")
            with self.text.block("namespace axis"):
                for row in chain_layouts(self.plan).declare():
                    line(row)
            line("")
        for row in args_struct(len(self.plan.maps), self.plan.words.count).splitlines():
            line(row)
        line("")

    def prologue(self) -> None:
        """Sizes, tensors, buffers and barriers by name; who am I."""
        plan, line = self.plan, self.text.line
        line("let_next_start();  // the next kernel may begin, and waits where it has to")
        line("extern __shared__ __align__(1024) unsigned char shared[];")
        for dim in self.kernel.dims:
            if dim not in plan.sizes:
                line(f"const int {cname(dim)} = int(args.words[{plan.words.dim(dim)}]);")
        for p in self.kernel.params:
            if p.dims is None:
                kind = c_type(p.dtype.name)
                line(f"const {kind} {cname(p.name)} = *(const {kind}*)&args.words[{plan.words.scalar(p.name)}];")
        line("const int warp = __shfl_sync(0xFFFFFFFF, threadIdx.x / 32, 0), lane = threadIdx.x % 32;")
        if plan.cluster > 1:
            line("const unsigned rank = cluster_rank();")
        for name, ring in plan.rings.items():
            if name not in plan.leaving:
                type_, what = f"Ring<{ring.slots}, {ring.slot_bytes}>", ", ".join(map(str, ring.alloc.dims))
                line(f"const {type_} {cname(name)}{{shared + {ring.offset}}};  // {ring.alloc.dtype}[{what}]")
        leaving(plan, self.text)
        declare(plan, self.text)
        if any(s.zeroed for s in plan.scratch):
            line(f"unsigned* const flag = (unsigned*)(shared + {plan.shared_bytes - 16});")
        tile_counts(plan, self.text, self.grid_loop)
        if not self.reads_early:
            self.tensors()

    @property
    def reads_early(self) -> bool:
        """Whether the producer reads constant tensors before the last kernel has ended; that of a chain does not."""
        return bool(self.plan.early) and not self.chained

    def tensors(self) -> None:
        """From here on what earlier kernels wrote can be read."""
        plan, line = self.plan, self.text.line
        line("wait_for_last();  // what earlier kernels wrote is there from here on")
        direct = {r.buffer for s in plan.statements for r in _direct(s)}
        for p in self.kernel.params:
            if p.dims is not None and p.name in direct:
                kind = c_type(p.dtype.name)
                line(f"{kind}* const {cname(p.name)} = from_here(({kind}*)args.words[{plan.words.tensor(p.name)}]);")

    def roles(self) -> None:
        """The producer starts at once; consumers wait until barriers are there."""
        plan, line = self.plan, self.text.line
        producer = next(t for t in plan.teams.values() if t.name == "producer")
        spread = self.meets_cluster
        told = f"The producer: a thread of warp {producer.first} sends for tiles as soon as slots are free."
        with self.text.block(f"if (warp >= {producer.first})", told):
            if producer.registers:
                line(f"fewer_registers<{producer.registers}>();")
            set_up(plan, self.text, producer.first)
            self.start(spread)
            alone = "" if self.chained and joint(plan) else " && elected()"
            with self.text.block(f"if (warp == {producer.first}{alone})"):
                self.path(producer)
            line("__syncwarp();")
            if self.split_cluster:
                line("cluster_wait();")
        others = [t for t in plan.teams.values() if t.name != "producer"]
        for n, team in enumerate(others):
            last = n == len(others) - 1
            who = "a warpgroup multiplies" if team.warps == 4 else f"{team.warps // 4} warpgroups multiply"
            opening = "else" if last else f"else if (warp < {team.first + team.warps})"
            with self.text.block(opening, f"Consumers: {who} what has arrived; then come the results."):
                if team.registers:
                    line(f"more_registers<{team.registers}>();")
                line("const int group = warp / 4;")
                line("const Team<128> team{int(threadIdx.x % 128)};")
                peers(plan, self.text)
                self.start(spread, wait=True)
                if self.reads_early:
                    self.tensors()
                self.path(team)

    @property
    def meets_cluster(self) -> bool:
        """Whether blocks of a cluster write into one another's memory from the start."""
        return self.plan.cluster > 1 and not self.split_cluster

    @property
    def split_cluster(self) -> bool:
        """Whether parts of a sum are joined in a cluster."""
        return self.plan.split is not None and ir.note(self.plan.split.notes, "bind") == "cluster"

    def start(self, spread: bool, wait: bool = False) -> None:
        """Barriers are ready: for the block, or for the whole cluster."""
        if spread:
            self.text.line("cluster_meet();")
            return
        apart = "_apart" if self.split_cluster else ""  # blocks of a cluster begin without one another
        self.text.line(f"{'meet' if wait else 'pass'}{apart}(0, {self.plan.threads});")

    def path(self, team: Team) -> None:
        """The statements of a role."""
        if self.chained:
            ChainText(self.plan, team, self.text).write()
            return
        rings = [s for s in self.plan.statements if isinstance(s, ir.Loop) and ir.note(s.notes, "stages")]
        if rings:
            self.text.line(f"Slot<{ir.note(rings[0].notes, 'stages')}> slot;")
        if team.name != "producer":
            open_turns(self.plan, self.text)
            begin(self.plan, self.text)
        leaves = self.plan.leaving if team.name != "producer" else ()
        if leaves:
            self.text.line("unsigned leaving = 0;")
        RoleText(self.plan, team, self.text).block(self.kernel.body)
        if team.name != "producer":
            let_begin(self.plan, self.text)
        elif self.meets_cluster:
            drain(self.plan, self.text)
        for name in sorted(leaves):
            self.text.line(f"{cname(name)}.end();")


def _direct(stmt: ir.Stmt) -> tuple[ir.Ref, ...]:
    match stmt:
        case ir.Let(expr=ir.Load(ref)) | ir.Store(ref=ref):
            return (ref,)
    return ()


__all__ = ["emit_cuda"]
