"""Steps of decode on a GPU, kernel by kernel, and as a whole without what hides launches: python tools/try_llm.py OUT.

For each model and batch: a profile (`tilewright.bench.llm_profile`), the step with programmatic launches switched off,
and the engine's own steps, whose difference from the graph is what the host costs. JSON goes to the folder OUT.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from tilewright.bench import llm_profile
from tilewright.bench.llm import Ours
from tilewright.bench.llm_cases import MODELS, PROMPT_TOKENS, STEPS
from tilewright.errors import TilewrightError
from tilewright.models import decoder as decoders
from tilewright.models import plan as plans
from tilewright.models.config import ModelConfig
from tilewright.models.decoder import Decoder, Want
from tilewright.runtime.cuda import dispatch
from tilewright.runtime.cuda.gpu import Gpu


def without_pdl(launches):
    """Copies of bound launches that start when the one before has ended."""
    plain = []
    for later in launches:
        launch = later.launch.inner.detached()
        launch._call._facts = (*launch._call._facts[:-1], False)
        launch._call = launch._call.copy()
        plain.append(launch)
    return plain


def toggles(clock: llm_profile.Clock, launches) -> dict[str, float]:
    """Microseconds of a step in which one kind of kernel starts when the one before it has ended."""
    found = {}
    for kind in llm_profile.kinds(launches):
        plain = dict(zip(map(id, kind), without_pdl(kind), strict=True))
        sizes = " ".join(f"{d}={n}" for d, n in kind[0].sizes.items())
        name = f"no early start of {kind[0].program.kernel.name} {sizes}"
        found[name] = clock.seconds([plain.get(id(x), x) for x in launches]) * 1e6
    return found


VARIANTS = {
    "rope_cache": [{"warps": w, "tile.iq": 32} for w in (4, 8, 16)],
    "add_rmsnorm": [{"warps": w} for w in (4, 16, 32)],
    "attention": [{"part.t": t} for t in (32, 64, 128, 256)],
}


def variants(clock: llm_profile.Clock, launches) -> dict[str, float]:
    """Microseconds of a step in which one kind of kernel has another design."""
    found = {}
    for kind in llm_profile.kinds(launches):
        for changes in VARIANTS.get(kind[0].program.kernel.name, ()):
            request = replace(kind[0].request, design=kind[0].request.design.with_(**changes))
            name = f"{kind[0].program.kernel.name} {changes}"
            try:
                kernel = dispatch.loaded(request, 0)
            except TilewrightError as error:
                found[f"{name}: {str(error).splitlines()[-1][:90]}"] = 0.0
                continue
            other = {id(x): kernel.bind(x.buffers, x.scalars, x.sizes) for x in kind}
            found[name] = clock.seconds([other.get(id(x), x) for x in launches]) * 1e6
    return found


def choices(decoder: Decoder, gpu: Gpu, batch: int) -> dict[str, float]:
    """Microseconds of a step by how tokens are chosen, filters with several numbers of levels and passes."""
    cache, found = decoder.new_cache(batch, 4096), {}
    decoder.reserve(cache, batch, PROMPT_TOKENS + 1)
    ways = [(Want.BEST, 64, 5, 64), (Want.DRAWN, 64, 5, 64)]
    ways += [(Want.FILTERED, *way) for way in ((32, 6, 64), (64, 5, 64), (16, 8, 64), (32, 6, 32), (32, 6, 128))]
    for want, levels, passes, parts in ways:
        plans.LEVELS = decoders.LEVELS = levels
        plans.LEVEL_PASSES, plans._LEVEL_PARTS = passes, parts
        decoder._plans.clear()
        plan = decoder.plan(cache, 0, batch, 1, want)
        name = f"{want.value} {levels} levels, {passes} passes, {parts} parts" if want is Want.FILTERED else want.value
        found[name] = llm_profile.Clock(gpu, plan).seconds(plan.launches) * 1e6
    return found


def tried(model: str, batch: int, gpu: Gpu, decoder: Decoder) -> tuple[llm_profile.Profile, dict[str, object]]:
    """All figures of one model and batch."""
    begun = time.perf_counter()
    cache = decoder.new_cache(batch, 4096)
    decoder.reserve(cache, batch, PROMPT_TOKENS + 1)
    plan = decoder.plan(cache, 0, batch, 1, Want.BEST)
    ready = time.perf_counter() - begun
    clock = llm_profile.Clock(gpu, plan)
    profile, found = clock.profile(model, batch), {"ready_s": ready}
    found["step_without_pdl_us"] = clock.seconds(without_pdl(plan.launches)) * 1e6
    found["toggles_us"] = toggles(clock, plan.launches)
    found["toggles_us"] |= variants(clock, plan.launches)
    found["step_again_us"] = clock.seconds(plan.launches) * 1e6
    found["choices_us"] = choices(decoder, gpu, batch) if model == "1B" else {}
    ours = Ours(decoder, batch)
    ours.prefill([[(7 * n + i) % 1000 + 3 for i in range(PROMPT_TOKENS)] for n in range(batch)])
    ours.steps(STEPS)
    samples = []
    for _ in range(10):
        begun = time.perf_counter()
        ours.steps(STEPS)
        samples.append((time.perf_counter() - begun) / STEPS * 1e6)
    found["engine_us"] = sorted(samples)
    return profile, found


def brief(gpu: Gpu, decoder: Decoder, batch: int) -> dict[str, float]:
    """Microseconds of a step as it is, without early starts, and without those of some kinds of kernels."""
    cache = decoder.new_cache(batch, 4096)
    decoder.reserve(cache, batch, PROMPT_TOKENS + 1)
    plan = decoder.plan(cache, 0, batch, 1, Want.BEST)
    clock = llm_profile.Clock(gpu, plan)
    found = {"step": clock.seconds(plan.launches) * 1e6}
    kinds = {}
    for kind in llm_profile.kinds(plan.launches):
        sizes = kind[0].sizes
        down = sizes.get("K", 0) > sizes.get("N", 0)
        kinds["down" if down else kind[0].program.kernel.name + str(sizes.get("N", ""))] = kind
    names, down, norm = list(kinds), "down", "add_rmsnorm"
    gate = next(n for n in names if n.startswith("gate_up"))
    for off in ([down], [norm], [down, norm], [gate, down], names):
        plain = {id(x): p for n in off for x, p in zip(kinds[n], without_pdl(kinds[n]), strict=True)}
        found["without " + "+".join(off if off is not names else ["any"])] = (
            clock.seconds([plain.get(id(x), x) for x in plan.launches]) * 1e6
        )
    found["again"] = clock.seconds(plan.launches) * 1e6
    return found


def main(out: str, cases: list[str]) -> None:
    """`cases` such as 1B:1 8B:16; `brief` first for steps alone."""
    gpu, decoders = Gpu(0), {}
    short = cases[0] == "brief"
    for case in cases[short:]:
        model, batch = case.split(":")
        if model not in decoders:
            config = ModelConfig.from_dict(MODELS[model].config())
            weights = llm_profile.drawn_weights(MODELS[model], config)
            decoders = {model: Decoder(config, weights, memory=gpu)}
        if short:
            times = brief(gpu, decoders[model], int(batch))
            Path(out, f"brief-{model}-{batch}.json").write_text(json.dumps(times, indent=1))
            print(model, batch, " ".join(f"{name}: {us:.1f}" for name, us in times.items()), flush=True)
            continue
        profile, found = tried(model, int(batch), gpu, decoders[model])
        Path(out, f"step-{model}-{batch}.json").write_text(json.dumps({**profile.to_dict(), **found}, indent=1))
        print(llm_profile.table(profile))
        print(
            f"    {found['step_without_pdl_us']:.1f} us without PDL, engine {found['engine_us'][5]:.1f} us, "
            f"ready in {found['ready_s']:.1f} s",
        )
        print(f"    {found['step_again_us']:.1f} us again", flush=True)
        for name, us in found["toggles_us"].items():
            print(f"    {us:.1f} us, {name}")
        for name, us in found["choices_us"].items():
            print(f"    {us:.1f} us, tokens {name}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
