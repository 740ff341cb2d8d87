"""What `tilewright design --operator-list` designs for a GPU is what the passes of the model then ask the book for."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from tilewright.cli_design import _wanted
from tilewright.design.book.key import Key
from tilewright.language.dtypes import bf16, f16
from tilewright.language.dtypes import dtype as to_dtype
from tilewright.machines.machine import Machine
from tilewright.models.config import ModelConfig, Rope
from tilewright.models.decoder import Decoder, Want
from tilewright.models.memory import Host
from tilewright.models.shapes import met_by
from tilewright.models.weights import Weights, layer_weights
from tilewright.runtime.buffer import Buffer
from tilewright.runtime.cuda import dispatch, driver
from tilewright.runtime.cuda.arrays import DeviceArray
from tilewright.runtime.cuda.kernel import layout_on_gpu
from tilewright.runtime.cuda.recording import Recording
from tilewright.runtime.subject import Subject

H200 = Machine.named("h200")
MODEL = ModelConfig(
    "LlamaForCausalLM", 1024, 256, 512, 2, 8, 2, 64, 4096, 1e-6, Rope(), False, False, False, False, True, (None,) * 2
)


class Described(Host):
    """A GPU's memory that is described and not there; launches are recorded and never settled."""

    remote, grain = True, 1024

    def __init__(self):
        self.places = itertools.count(1 << 30, 1 << 24)

    def empty(self, shape, dtype):
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return DeviceArray(Buffer(next(self.places), tuple(shape), strides, to_dtype(np.dtype(dtype)), "cuda:0"))

    zeros = empty

    def holding(self, values):
        return self.empty(values.shape, values.dtype)

    def sealed(self, array):
        return DeviceArray(replace(array.tilewright_buffer, writable=False))

    def reuse(self, array, shape, dtype):
        made = self.empty(shape, dtype).tilewright_buffer
        return DeviceArray(replace(made, pointer=array.tilewright_buffer.pointer))

    def copy(self, target, source):
        pass

    def recording(self):
        recording = Recording(0)
        recording.settle = lambda: None
        return recording


class Reader:
    """Weights that lie nowhere."""

    def __init__(self, memory, dtype):
        self.memory, self.dtype = memory, dtype

    def take(self, name, shape):
        return self.memory.sealed(self.memory.empty(shape, self.dtype.numpy))

    def stack(self, parts):
        return self.take("", (sum(shape[0] for _, shape in parts), *parts[0][1][1:]))


def asked(config, dtype, batch, tokens):
    """The keys by which the book is asked for each launch of a pass."""
    memory = Described()
    reader = Reader(memory, dtype)
    embedding = reader.take("", (config.vocab, config.hidden))
    layers = tuple(layer_weights(reader, config, i) for i in range(config.layers))
    weights = Weights(dtype, embedding, layers, reader.take("", (config.hidden,)), embedding)
    decoder = Decoder(config, weights, memory=memory)
    cache = decoder.new_cache(batch, 4096)
    decoder.reserve(cache, batch, 600)
    for launch in decoder.plan(cache, 0, batch, tokens, Want.BEST).launches:
        layouts = tuple((n, layout_on_gpu(b)) for n, b in launch.buffers.items())
        facts = dispatch.facts_of(layouts, launch.sizes, H200, launch.sizes)
        yield Key.of(launch.program.kernel, facts, threads=1)


@pytest.mark.parametrize("dtype", [bf16, f16])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_launch_of_a_pass_finds_what_was_designed(batch, dtype, monkeypatch):
    monkeypatch.setattr(dispatch, "machine", lambda _: H200)
    monkeypatch.setattr(driver, "inside", lambda _: nullcontext())
    designed = set()
    for met in met_by(MODEL, dtype, prompt=512, batch=batch, context=1024, chosen_there=True):
        wanted = _wanted(met)
        sizes = {d: n for d, n in wanted.items() if d not in ("operator", "dtype", "options", "present")}
        subject = Subject.of(
            met.operator, sizes, wanted["dtype"], options=wanted["options"], present=wanted["present"], machine=H200
        )
        designed.add(subject.key())
    for tokens, rows in ((1, batch), (512, 1)):
        keys = set(asked(MODEL, dtype, rows, tokens))
        missing = [(k.operator, dict(k.sizes)) for k in keys - designed]
        assert not missing
