"""Trials by a worker that misbehaves for some designs: what the tests with a GPU and those without one share."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import tilewright as tw
from tilewright.design.default import default_design
from tilewright.design.space import random_design
from tilewright.runtime import trial
from tilewright.runtime.subject import Subject


class Worker:
    """The worker of NVIDIA machines replaced by the module `name` in `folder`; `variable` says who misbehaves how."""

    def __init__(self, monkeypatch, cache: Path, folder: Path, name: str, variable: str):
        self._patch, self._variable = monkeypatch, variable
        monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(cache))
        monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
        monkeypatch.setitem(trial.WORKERS, "nvidia", name)
        self.misbehave({})

    def misbehave(self, behaviours):
        """How the kernels of some designs behave, by hash."""
        self._patch.setenv(self._variable, json.dumps(behaviours))


def softmax_designs(machine, sizes, count):
    """A softmax in f32 with its default design, and others drawn at random."""
    subject = Subject.of(tw.operators.softmax, sizes, "f32", machine=machine)
    found, rng = [default_design(subject.kernel, subject.facts)], random.Random(0)
    while len(found) < count:
        design = random_design(subject.kernel, subject.facts, rng)
        if design not in found:
            found.append(design)
    return subject, found


def outcomes(worker, subject, tried, how, seconds):
    """What became of `tried` where the second and those after it behave as `how` says; restarts; finals of the rest."""
    worker.misbehave(dict(zip([d.hash for d in tried[1 : len(how) + 1]], how, strict=True)))
    with trial.TrialRunner(subject, seconds_limit=seconds) as runner:
        found = runner.evaluate(tried)
        return found, runner.restarts, runner.compare([tried[0], *tried[len(how) + 1 :]])
