"""How far each way to share a model scales: where a step's time goes from 1 to 16 chips, and tokens/s to thousands."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.simulate.chips.collectives import Link
from tilewright.simulate.chips.plan import PLANS, Chip, Split, stops_at, sweep
from tilewright.simulate.decoder import Decoder
from tilewright.simulate.simulation import Chart, Series, Value

COUNTS = (1, 2, 4, 8, 16)
PAPER_COUNTS = (*COUNTS, 32, 64, 128, 256, 512, 1024, 2048, 4096)

_PARTS = {"GEMM": "gemm", "attention": "attention", "all-reduce": "all_reduce", "sync": "sync"}


@dataclass(frozen=True)
class Scaling:
    """A model on more and more chips of one kind, by plan; `splits` has a split for each of PAPER_COUNTS."""

    splits: dict[str, list[Split]]
    batch: int
    context: int

    def numbers(self) -> list[tuple[str, Value, str]]:
        """Where each plan stops to gain, and the fewest chips that hold the model."""
        found: list[tuple[str, Value, str]] = []
        for plan, splits in self.splits.items():
            found.append((f"{plan} parallel gains little beyond", stops_at(splits), "chips"))
            holds = next((s.chips for s in splits if s.fits), None)
            found.append((f"{plan} parallel fits from", holds if holds is not None else "no number of", "chips"))
        return found

    def charts(self) -> list[Chart]:
        """The time split of each plan from 1 to 16 chips, and the tokens/s of all up to thousands."""
        said = f"batch {self.batch}, context {self.context}"
        return [*(_stacked(f"{plan} parallel, {said}", self.splits[plan]) for plan in PLANS), self.lines(said)]

    def lines(self, said: str) -> Chart:
        """Tokens a second against chips, one line for each plan, on paper."""
        series = tuple(
            Series(f"{plan} parallel", tuple(map(float, PAPER_COUNTS)), tuple(s.tokens_per_second for s in splits))
            for plan, splits in self.splits.items()
        )
        return Chart(f"scaling on paper, {said}", "chips", "tokens per second", series, log_x=True, log_y=True)


def scaling(model: Decoder, chip: Chip, link: Link, *, batch: int, context: int, kernels: int) -> Scaling:
    """All plans at all counts; `kernels` as in `plan.decode`."""
    how = {"batch": batch, "context": context, "kernels": kernels}
    return Scaling({plan: sweep(model, chip, link, plan, PAPER_COUNTS, **how) for plan in PLANS}, batch, context)


def _stacked(title: str, splits: list[Split]) -> Chart:
    """Where the time of a step goes as chips grow."""
    few = [s for s in splits if s.chips in COUNTS]
    x = tuple(str(s.chips) for s in few)
    series = tuple(Series(label, x, tuple(1e6 * getattr(s, part) for s in few)) for label, part in _PARTS.items())
    return Chart(title, "chips", "us of a step", series, kind="stacked")


__all__ = ["COUNTS", "PAPER_COUNTS", "Scaling", "scaling"]
