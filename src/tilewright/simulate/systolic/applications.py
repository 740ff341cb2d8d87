"""Six applications on Google's TPU v1, by what was published of them: predicted rates beside the measured ones.

Facts: Jouppi et al., In-Datacenter Performance Analysis of a Tensor Processing Unit, ISCA 2017, tables 1, 3 and 7. The
layers themselves are not published, so that no program can be made of them; occupancy and stalls are inputs here.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.machines.machine import Machine
from tilewright.simulate.systolic.plan import Array
from tilewright.simulate.systolic.tpu import bound


@dataclass(frozen=True)
class Application:
    """What table 3 counts of an application, as shares of all cycles, and what it measures.

    `rows` are the inputs that each weight meets (operations a weight byte of table 1). `active`: cycles in which the
    matrix unit works; `useful`: the same, times the share of its cells that hold weights; `weights`: cycles that wait
    for weights or shift them in; `idle`: all others. `hazards` and `inputs` are two causes of idle cycles, which may
    coincide. `tops` is the measured rate, `error` that of Google's own model (in cycles). `lacks` says what would be
    needed to predict it, where that is not published.

    `passes` are cycles of an input: 2 where 8-bit weights meet 16-bit inputs, which the unit takes at half its speed.
    Which applications do is not published. The LSTMs must: at one cycle an input LSTM0's useful cycles would give 7.5
    TOPS, and the memory bounds it at 4.35.
    """

    name: str
    rows: int
    active: float
    useful: float
    weights: float
    idle: float
    hazards: float
    inputs: float
    tops: float
    error: float
    passes: int = 1
    lacks: str = ""

    @property
    def occupancy(self) -> float:
        """The share of cells that hold weights while the matrix unit works."""
        return self.useful / self.active

    @property
    def unexplained(self) -> float:
        """The share of idle cycles that neither hazards nor inputs explain."""
        return max(0.0, self.idle - self.hazards - self.inputs)


_CNN1 = "four layers meet each weight 32 times and wait for it, the others often; their sizes are not published"

APPLICATIONS = (
    Application("MLP0", 200, 0.127, 0.125, 0.698, 0.175, 0.033, 0.061, 12.3, 0.068),
    Application("MLP1", 168, 0.106, 0.094, 0.576, 0.319, 0.084, 0.088, 9.7, 0.109),
    Application("LSTM0", 64, 0.082, 0.082, 0.739, 0.179, 0.146, 0.051, 3.7, 0.077, passes=2),
    Application("LSTM1", 96, 0.105, 0.063, 0.792, 0.103, 0.106, 0.024, 2.8, 0.054, passes=2),
    Application("CNN0", 2888, 0.782, 0.782, 0.0, 0.218, 0.035, 0.034, 86.0, 0.082),
    Application("CNN1", 1750, 0.462, 0.225, 0.351, 0.187, 0.228, 0.006, 14.1, 0.112, lacks=_CNN1),
)


def by_counters(machine: Machine, app: Application) -> float:
    """Operations a second where all stalls are given: the peak, for the cycles that are left, in the cells in use."""
    return _peak(machine, app) * (1 - app.weights - app.idle) * app.occupancy


def by_causes(machine: Machine, app: Application) -> float:
    """Operations a second where the stalls that have a cause are given, in the cells in use.

    Idle cycles that no counter explains are no part of the program's time: the rates were measured apart from the
    counters, with the time of the host left out, while the counters run on. That it is the host is inferred.
    """
    return by_counters(machine, app) / (1 - app.unexplained)


def by_machine(machine: Machine, app: Application) -> float:
    """Operations a second where the machine's memory says how long weights are awaited.

    Given are the occupancy, and the idle cycles that have a cause.
    """
    least = min(_peak(machine, app), bound(machine, app.rows))
    return least * app.occupancy * (1 - app.hazards - app.inputs)


def _peak(machine: Machine, app: Application) -> float:
    cells = machine.limit("rows") * machine.limit("columns")
    return 2.0 * cells * (machine.clock_hz or 0.0) / app.passes


def awaited(machine: Machine, app: Application) -> float:
    """The share of all cycles that wait for weights, predicted; idle cycles are given.

    Whole tiles are fetched while the one before is in use, as the array's schedule has it.
    """
    array = Array.of(machine)
    fetch = float(array.rows * array.columns * array.byte_cycles)
    used = app.rows * app.passes
    return (1 - app.idle) * (1 - used / max(used, fetch))


__all__ = ["APPLICATIONS", "Application", "awaited", "by_causes", "by_counters", "by_machine"]
