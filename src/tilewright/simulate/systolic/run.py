"""`simulate` on a systolic array: designed, lowered, counted in closed form, and stepped with values where it pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tilewright.design.default import default_design
from tilewright.design.design import Design
from tilewright.errors import ArgumentError
from tilewright.simulate.decoder import DECODERS
from tilewright.simulate.simulation import Chart, Job, Part, Series, Simulation, Value, design_given
from tilewright.simulate.systolic.closed import Account, account
from tilewright.simulate.systolic.judge import MOST_STEPPED, planned, stepped_cost, subject_on, verified
from tilewright.simulate.systolic.plan import Plan
from tilewright.simulate.systolic.scratchpads import Scratchpads, stalled

OPTIONS = {
    "values": "yes, no or auto: whether cells are stepped with values and checked (auto: where that is quick)",
    "layers": "KxN of a layer, several with commas: one product after the other instead of K and N",
    "design": "a design as JSON instead of the default one",
    "scratchpads": "KIBxELEMENTS: operands and results pass through scratchpads of that many KiB, each with so many "
    "elements a cycle to memory, as SCALE-Sim counts them (64x10)",
}
"""Options that an array takes, and what each says."""

BATCHES = tuple(2**n for n in range(13))

FLOWS = {"ws": "weights stand still", "os": "outputs stand still", "is": "inputs stand still"}


def simulate(job: Job) -> Simulation:
    """A product, or a chain of them, on an array; ArgumentError for options that it does not know."""
    if job.program in DECODERS:
        raise ArgumentError(
            f"an array multiplies matrices, and {job.program} is a whole model; take --machine sn40l or h200 for it, "
            f"or its products one after the other: simulate matmul M=64 --set layers=4096x4096,4096x14336"
        )
    _check_options(job.options)
    if job.chips != 1:
        raise ArgumentError(f"--chips {job.chips}: one array is simulated; leave it out, or take sn40l or h200")
    if "layers" in job.options:
        return _layers(job)
    return _with_charts(_one(job), job)


def _check_options(options: Mapping[str, str]) -> None:
    for name, value in options.items():
        if name not in OPTIONS:
            known = "; ".join(f"{n}: {says}" for n, says in OPTIONS.items())
            raise ArgumentError(f"an array has no option {name!r}; there are {known}")
        if name == "values" and value not in ("yes", "no", "auto"):
            raise ArgumentError(f"values={value}: takes yes, no or auto")


# ------------------------------------------------------------------------------------------ one product
def _one(job: Job) -> Simulation:
    subject = subject_on(job.machine, job.program, job.sizes, job.dtype)
    design = design_given(job) or default_design(subject.kernel, subject.facts)
    _, found = planned(subject, design)
    wanted = job.options.get("values", "auto")
    stepped = wanted == "yes" or (wanted == "auto" and stepped_cost(found) <= MOST_STEPPED)
    if stepped:
        verified(subject, design)
    return _told(job, found, _spent(job, found), design, stepped)


def _spent(job: Job, found: Plan) -> Account:
    """The cycles of a plan, behind scratchpads if the job says so."""
    given = job.options.get("scratchpads")
    if given is None:
        return account(found)
    kib, _, rate = given.partition("x")
    if not (kib.isdigit() and rate.isdigit() and int(kib) and int(rate)):
        raise ArgumentError(f"scratchpads={given}: write KIBxELEMENTS, each at least 1, as in 64x10")
    if found.overlaps or found.fetch_cycles or found.repeats > 1:
        raise ArgumentError(
            f"scratchpads={given}: they stand before an array that overlaps nothing, without a bandwidth of its own, "
            f"and one product; give one such as systolic:32x32:{found.flow}"
        )
    cycles, waited = stalled(found, Scratchpads(int(kib) * 1024, int(rate)))
    return replace(account(found), cycles=cycles, stalls=waited)


def _told(job: Job, found: Plan, spent: Account, design: Design, stepped: bool) -> Simulation:
    array = found.array
    seconds = spent.cycles / array.clock_hz
    tops = 2 * found.macs / seconds / 1e12
    numbers: list[tuple[str, Value, str]] = [
        ("dataflow", FLOWS[found.flow], ""), ("folds", found.folds, ""), ("achieved", tops, "TOPS"),
        ("peak", 2 * array.rows * array.columns * array.clock_hz / 1e12, "TOPS"),
        ("fetch of a tile", float(found.fetch_cycles), "cycles"), ("stalls", spent.stalls, "cycles"),
        ("values", "stepped cycle by cycle, and right" if stepped else "not computed", ""),
        ("design", design.to_json(), ""),
    ]  # fmt: skip
    return Simulation(
        job.program, job.machine.name, tuple(job.sizes.items()), seconds, spent.cycles,
        found.macs / (spent.cycles * array.rows * array.columns),
        tuple(Part(name, cycles / array.clock_hz, cycles) for name, cycles in spent.parts()),
        numbers=tuple(numbers), assumptions=_assumptions(found),
    )  # fmt: skip


def _assumptions(found: Plan) -> tuple[str, ...]:
    count = "cycles are numbered from 0 and the last one's number is given, as SCALE-Sim does"
    return (
        "the first tile lies ready when the array starts",
        "a tile is fetched whole, however few of its cells are used",
        "results leave beside what computes and never hold it up",
        *(() if found.overlaps else (count,)),
    )


# --------------------------------------------------------------------------------------------- layers
def _layers(job: Job) -> Simulation:
    """One product after the other: its rows are the job's, its weights those of each layer."""
    options = {n: v for n, v in job.options.items() if n != "layers"}
    done = []
    for text in job.options["layers"].split(","):
        depth, _, width = text.partition("x")
        if not (depth.isdigit() and width.isdigit()):
            raise ArgumentError(f"layers={text}: write KxN, several with commas, as in 2000x2000,2000x1000")
        sizes = {**job.sizes, "K": int(depth), "N": int(width)}
        done.append(_one(replace(job, sizes=sizes, options=options)))
    seconds, cycles = sum(s.seconds for s in done), sum(s.cycles or 0 for s in done)
    used = sum((s.utilisation or 0) * (s.cycles or 0) for s in done) / max(cycles, 1)
    parts = tuple(
        Part(p.name, sum(s.parts[n].seconds for s in done), sum(s.parts[n].cycles or 0 for s in done))
        for n, p in enumerate(done[0].parts)
    )
    whole = replace(done[0], sizes=tuple(job.sizes.items()), seconds=seconds, cycles=cycles, utilisation=used)
    return replace(whole, parts=parts, layers=tuple(done), numbers=(), charts=(_stacked(done),))


def _stacked(done: list[Simulation]) -> Chart:
    names = tuple(f"{n}: {dict(s.sizes)['K']}x{dict(s.sizes)['N']}" for n, s in enumerate(done, 1))
    series = tuple(
        Series(p.name, names, tuple(s.parts[n].cycles or 0.0 for s in done)) for n, p in enumerate(done[0].parts)
    )
    return Chart("where the cycles of each layer go", "layer", "cycles", series, kind="stacked")


# --------------------------------------------------------------------------------------------- charts
def _with_charts(told: Simulation, job: Job) -> Simulation:
    """The simulation with its parts, and with utilisation against batch where it has rows."""
    bars = Chart(
        "where the cycles go", "", "cycles",
        tuple(Series(p.name, (job.program,), (p.cycles or 0.0,)) for p in told.parts), kind="stacked",
    )  # fmt: skip
    return replace(told, charts=(bars, *([batches(job)] if "M" in job.sizes and "design" not in job.options else [])))


def batches(job: Job) -> Chart:
    """Utilisation and time of the same product for batches of 1 to 4096 rows."""
    used = []
    for rows in BATCHES:
        subject = subject_on(job.machine, job.program, {**job.sizes, "M": rows}, job.dtype)
        found = planned(subject, default_design(subject.kernel, subject.facts))[1]
        cells = found.array.rows * found.array.columns
        used.append(100 * found.macs / (account(found).cycles * cells))
    sizes = " ".join(f"{d}={n}" for d, n in job.sizes.items() if d != "M")
    name = f"{job.machine.name}, {sizes}"
    series = (Series(name, tuple(map(float, BATCHES)), tuple(used)),)
    return Chart("utilisation against batch", "rows that stream (batch)", "% of the multipliers", series, log_x=True)
