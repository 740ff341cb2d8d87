"""The process that measures: `python -m tilewright.bench.worker JOB`, where JOB is JSON; one JSON result a line.

A process of its own for each job: its thread count is fixed before any library starts, and its memory is its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tilewright.bench.result import Result
from tilewright.errors import TilewrightError


def operators(threads: int, only: str | None, quick: bool) -> Iterator[Result]:
    """Every operator case that is asked for, by the kernels that users get: shipped designs are verified here first."""
    from tilewright.bench import peers
    from tilewright.bench.cases import cpu_cases, select
    from tilewright.bench.operators import run_case
    from tilewright.bench.plan import budget
    from tilewright.bench.roof import Roof, open_roof
    from tilewright.runtime.adopt import adopt

    cases = select(cpu_cases(), only, quick)
    sizes = {tuple(sorted(dict(case.sizes).values())) for case in cases}
    adopt(wanted=lambda key: tuple(sorted(dict(key.sizes).values())) in sizes)
    # Opened before anything else starts threads, and kept: what it chose and touched serves every case.
    bounded: AbstractContextManager[Roof] = open_roof(threads) if any(c.streams for c in cases) else nullcontext({})
    with bounded as roof:
        peers.set_threads(threads)
        peers.keep_freed_memory()
        for case in cases:
            try:
                yield run_case(case, threads, roof, budget(case, quick))
            except TilewrightError as error:
                yield Result(case.family, case.name, threads, error=f"{type(error).__name__}: {error}")


def decoder(threads: int, folder: str, shape: dict[str, int], seconds: float, prefill: bool) -> Iterator[Result]:
    """The whole model beside transformers."""
    from tilewright.bench import peers
    from tilewright.bench.checkpoint import Shape
    from tilewright.bench.decoder import decoder_results
    from tilewright.bench.roof import open_roof

    with open_roof(threads, ("read",)) as roof:
        peers.set_threads(threads)
        yield from decoder_results(Path(folder), Shape(**shape), threads, roof, seconds, prefill=prefill)


def memory(threads: int, folder: str, shape: dict[str, int]) -> Iterator[Result]:
    """Peak memory of the whole model. Neither torch nor a roof is in this process: both would count."""
    from tilewright.bench.checkpoint import Shape
    from tilewright.bench.memory import memory_result

    yield memory_result(Path(folder), Shape(**shape), threads)


def compile_time(threads: int, repeats: int) -> Iterator[Result]:
    """How long kernels take to compile; that is the work of one thread."""
    from tilewright.bench.compile_time import compile_results

    assert threads == 1
    yield from compile_results(repeats)


def design_speed(threads: int, only: str | None, quick: bool, amx: bool, budget: str) -> Iterator[Result]:
    """Designed kernels beside torch."""
    from tilewright.bench import peers
    from tilewright.bench.design import DesignRequest
    from tilewright.bench.design_speed import speed_results
    from tilewright.design.book.store import Book

    peers.set_threads(threads)
    yield from speed_results(DesignRequest((threads,), only, quick, amx).speed(), threads, budget, Book.open())


def design_model(threads: int, only: str | None, quick: bool) -> Iterator[Result]:
    """The cost model beside grids that are measured whole."""
    from tilewright.bench.design import DesignRequest
    from tilewright.bench.design_cases import grids
    from tilewright.bench.design_model import model_results

    request = DesignRequest((threads,), only, quick)
    yield from model_results([g for g in grids(quick) if request.wants(g.case)], threads)


def design_race(threads: int, only: str | None, quick: bool, trials: int, seeds: int) -> Iterator[Result]:
    """Search against random designs."""
    from tilewright.bench.design import DesignRequest
    from tilewright.bench.design_cases import RACES
    from tilewright.bench.design_race import race_results

    request = DesignRequest((threads,), only, quick)
    yield from race_results([c for c in RACES if request.wants(c)], threads, trials, seeds)


def design_agree(threads: int, only: str | None, quick: bool, budget: str) -> Iterator[Result]:
    """Two searches of each key."""
    from tilewright.bench.design import DesignRequest
    from tilewright.bench.design_agree import agree_results

    yield from agree_results(DesignRequest((threads,), only, quick).agree(), threads, budget)


def gemm(threads: int, cases: Sequence[Sequence[str]], trials: int) -> Iterator[Result]:
    """Products on the GPU, searched and timed beside cuBLAS; `cases` are [family, name]."""
    from tilewright.bench.gemm import measure_gemm
    from tilewright.bench.gemm_cases import gemm_cases
    from tilewright.bench.gpu_case import Effort

    wanted = {(family, name) for family, name in cases}
    yield from measure_gemm([c for c in gemm_cases() if (c.family, c.name) in wanted], Effort(trials))


def gemm_search(threads: int, names: Sequence[str], trials: int, known: str) -> Iterator[Result]:
    """Searches beside the best designs known, which the file `known` holds."""
    from dataclasses import replace

    from tilewright.bench.gemm_cases import gemm_cases
    from tilewright.bench.gemm_search import FAMILY, measure_search
    from tilewright.bench.gpu_case import Effort

    cases = [replace(c, family=FAMILY) for c in gemm_cases() if not c.links and c.name in names]
    held = json.loads(Path(known).read_text()) if known else {}
    yield from measure_search(cases, held, Effort(trials))


def attention(threads: int, cases: Sequence[Sequence[str]], trials: int) -> Iterator[Result]:
    """Attention on the GPU, searched and timed beside cuDNN; `cases` are [family, name]."""
    from tilewright.bench.attention import measure_attention
    from tilewright.bench.attention_cases import attention_cases
    from tilewright.bench.gpu_case import Effort

    wanted = {(family, name) for family, name in cases}
    yield from measure_attention([c for c in attention_cases() if (c.family, c.name) in wanted], Effort(trials, 24))


def attention_packed(threads: int, names: Sequence[str]) -> Iterator[Result]:
    """Packed attention on the GPU, timed beside torch's."""
    from tilewright.bench.attention_packed import measure_packed
    from tilewright.bench.gpu_case import Effort
    from tilewright.bench.packed_cases import packed_cases

    yield from measure_packed([c for c in packed_cases() if c.name in names], Effort(rounds=24))


def attention_decode(threads: int, cases: Sequence[Sequence[str]], trials: int) -> Iterator[Result]:
    """Attention of one query a request on the GPU, searched and timed beside torch's; `cases` are [family, name]."""
    from tilewright.bench.attention_decode import measure_decode
    from tilewright.bench.decode_cases import decode_cases
    from tilewright.bench.gpu_case import Effort

    wanted = {(family, name) for family, name in cases}
    yield from measure_decode([c for c in decode_cases() if (c.family, c.name) in wanted], Effort(trials, 24))


def gemm_launch(threads: int) -> Iterator[Result]:
    """Host time of a dispatched call."""
    from tilewright.bench.gemm_launch import measure_launch

    yield measure_launch()


def gemm_ladder(threads: int) -> Iterator[Result]:
    """The ladder of a product on the GPU."""
    from tilewright.bench.gemm_ladder import measure_hgemm

    yield from measure_hgemm()


def rows(threads: int, cases: Sequence[Sequence[str]], trials: int) -> Iterator[Result]:
    """Row operators on the GPU, searched and timed beside torch; `cases` are [family, name]."""
    from tilewright.bench.gpu_case import Effort
    from tilewright.bench.rows import measure_rows
    from tilewright.bench.rows_cases import row_cases

    wanted = {(family, name) for family, name in cases}
    yield from measure_rows([c for c in row_cases() if (c.family, c.name) in wanted], Effort(trials, 30))


def serve_padding(threads: int, names: Sequence[str], quick: bool, device: str) -> Iterator[Result]:
    """Ragged batches beside padded ones."""
    from tilewright.bench.serve_padding import SETTINGS, padding_results

    yield from padding_results(SETTINGS[device], threads, names, quick)


def serve_dynamic(threads: int, names: Sequence[str], quick: bool, device: str) -> Iterator[Result]:
    """A served trace of lengths beside torch.compile; there is one case for each kind of device."""
    from tilewright.bench.serve_dynamic import SETTINGS, dynamic_results

    assert len(names) == 1
    yield from dynamic_results(SETTINGS[device], threads, quick)


def serve_learn(threads: int, names: Sequence[str], quick: bool, device: str) -> Iterator[Result]:
    """A served trace before, while and after the run time learns; there is one case for each kind of device."""
    from tilewright.bench.serve_learn import SETTINGS, learn_results

    assert len(names) == 1
    yield from learn_results(SETTINGS[device], quick)


def llm(threads: int, model: str, batch: int, parts: Sequence[str], compiled: bool, seconds: float) -> Iterator[Result]:
    """A whole model on the GPU beside transformers."""
    from tilewright.bench.llm import llm_results

    yield from llm_results(model, batch, parts, compiled, seconds)


def llm_start(threads: int, folder: str, model: str, shape: dict[str, int]) -> Iterator[Result]:
    """The wait for a first token, from a checkpoint on disk."""
    from tilewright.bench.llm import first_token

    yield from first_token(folder, model)


def serve_dispatch(threads: int, names: Sequence[str], quick: bool) -> Iterator[Result]:
    """What a call from Python costs beside its kernel."""
    from tilewright.bench.serve_dispatch import dispatch_results

    yield from dispatch_results(names, quick)


JOBS: dict[str, Callable[..., Iterator[Result]]] = {
    "operators": operators,
    "decoder": decoder,
    "memory": memory,
    "compile": compile_time,
    "design_speed": design_speed,
    "design_model": design_model,
    "design_race": design_race,
    "design_agree": design_agree,
    "attention": attention,
    "gemm": gemm,
    "gemm_search": gemm_search,
    "attention_packed": attention_packed,
    "attention_decode": attention_decode,
    "gemm_launch": gemm_launch,
    "gemm_ladder": gemm_ladder,
    "rows": rows,
    "llm": llm,
    "llm_start": llm_start,
    "serve_padding": serve_padding,
    "serve_dynamic": serve_dynamic,
    "serve_learn": serve_learn,
    "serve_dispatch": serve_dispatch,
}


def main(argument: str) -> None:
    """Run the job and print its results as they come."""
    job: dict[str, Any] = json.loads(argument)
    for result in JOBS[job.pop("job")](**job):
        print(json.dumps(result.to_json()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
