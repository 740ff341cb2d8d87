"""The cases of `tilewright bench llm`: which models, in which batches, and its jobs with about how long they take."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from tilewright.bench.cases import matches, none_fits
from tilewright.bench.checkpoint import Shape
from tilewright.bench.plan import Job, Step

FAMILIES = ("llm_prefill", "llm_decode", "llm_start")
MODELS = {
    "1B": Shape(),
    "8B": Shape(hidden=4096, layers=32, head_dim=128, intermediate=14336),
}
"""Llama 3.2 1B and the shape of Llama 3.1 8B (its output layer tied, which changes no time)."""

BATCHES = (1, 16)
PROMPT_TOKENS = 512
STEPS, ROUNDS = 8, 6
"""Tokens of one sample of decode, and the fewest samples: what is timed stays near a context of 512."""

EAGER, COMPILED = "eager", "compiled"
LIMIT = 240.0
"""Seconds after which the process of a job is ended."""
_START, _COMPILE, _FIRST = 25.0, 30.0, 12.0  # seconds: a process with its weights, torch.compile, a first token


@dataclass(frozen=True)
class LlmRequest:
    """What to measure: a pattern that names or families must fit, whether beside torch.compile, seconds of each."""

    only: str | None = None
    compiled: bool = True
    seconds: float = 3.0

    def wants(self, *names: str) -> bool:
        """Whether results of these names and families are asked for."""
        return self.only is None or matches(self.only, *names)


def prefill_name(model: str) -> str:
    """How a result of prefill is called."""
    return f"{model}, prefill of {PROMPT_TOKENS} tokens"


def decode_name(model: str, batch: int) -> str:
    """How a result of decode is called."""
    return f"{model}, decode, batch {batch}, after {PROMPT_TOKENS} tokens"


def start_name(model: str) -> str:
    """How a result of starting is called."""
    return f"{model}, first token after the start of a process"


def llm_jobs(request: LlmRequest) -> list[Job]:
    """The jobs that `request` asks for: a process for each model and batch; ArgumentError where nothing fits it."""
    jobs = [job for model in MODELS for job in _model_jobs(model, request)]
    if not jobs:
        raise none_fits(request.only, FAMILIES)
    return jobs


def _model_jobs(model: str, request: LlmRequest) -> list[Job]:
    """A process for each batch of a model: what fails, or takes too long, takes nothing else with it."""
    jobs = []
    for batch in BATCHES:
        steps = _steps(model, batch, request)
        if steps:
            options = {
                "model": model, "batch": batch, "parts": [s.family for s in steps], "compiled": request.compiled,
                "seconds": request.seconds,
            }  # fmt: skip
            jobs.append(Job("llm", 1, steps, options, limit=LIMIT))
    if model == "1B" and request.wants("llm_start", start_name(model)):
        shape = MODELS[model]
        options = {"model": model, "shape": asdict(shape)}
        steps = (Step("llm_start", start_name(model), 1, 60 + 4 * _FIRST),)
        jobs.append(Job("llm_start", 1, steps, options, shape, LIMIT))
    return jobs


def _steps(model: str, batch: int, request: LlmRequest) -> tuple[Step, ...]:
    """What is asked for of one model and batch."""
    steps = []
    if batch == 1 and request.wants("llm_prefill", prefill_name(model)):
        steps.append(Step("llm_prefill", prefill_name(model), 1, _START + request.seconds))
    if request.wants("llm_decode", decode_name(model, batch)):
        around = (0.0 if steps else _START) + (_COMPILE if request.compiled else 0.0)
        steps.append(Step("llm_decode", decode_name(model, batch), 1, around + request.seconds))
    return tuple(steps)


__all__ = [
    "BATCHES", "COMPILED", "EAGER", "FAMILIES", "LIMIT", "MODELS", "PROMPT_TOKENS", "ROUNDS", "STEPS",
    "LlmRequest", "decode_name", "llm_jobs", "prefill_name", "start_name",
]  # fmt: skip
