"""The host in the place of a GPU: arrays are held apart, so that nothing is seen but what was copied."""

from __future__ import annotations

import numpy as np

from tilewright.models.memory import Host


class FarArray:
    """As much of an array as `DeviceArray` has: elements are reached by the memory that it lies in, and by kernels."""

    def __init__(self, values):
        self.values = values
        self.shape, self.size, self.nbytes, self.dtype = values.shape, values.size, values.nbytes, values.dtype

    @property
    def tilewright_buffer(self):
        """What kernels are given."""
        from tilewright.runtime.buffer import Buffer

        return Buffer.of(self.values)

    def __len__(self):
        return len(self.values)

    def reshape(self, *shape):
        return FarArray(self.values.reshape(*shape))

    def transpose(self, *order):
        return FarArray(self.values.transpose(*order))

    def __getitem__(self, key):
        found = self.values[key]
        return FarArray(found)


class FarLanding:
    """Each read overwrites what the one before gave, as on a GPU."""

    def __init__(self):
        self._last = np.zeros(0)

    def read(self, array):
        self._last.fill(np.nan)
        self._last = array.values.copy()
        return self._last


class FarMemory(Host):
    """Memory that the host does not see; counts the passes that were recorded for replay."""

    remote = True
    grain = 64

    def __init__(self):
        self.recorded = 0

    def empty(self, shape, dtype):
        made = super().empty(shape, dtype)
        made.view(np.uint8)[...] = 0xFF  # NaN wherever nobody writes
        return FarArray(made)

    def zeros(self, shape, dtype):
        return FarArray(super().zeros(shape, dtype))

    def holding(self, values):
        return FarArray(values.copy())

    def reuse(self, array, shape, dtype):
        return FarArray(super().reuse(array.values, shape, dtype))

    def put(self, array, values):
        super().put(array.values, values)

    def read(self, array):
        return array.values.copy()

    def landing(self):
        return FarLanding()

    def copy(self, target, source):
        super().copy(target.values, source.values)

    def replayed(self, launches):
        self.recorded += 1
        return super().replayed(launches)

    def mailbox(self, arrays):
        return super().mailbox([a.values for a in arrays])


def far_llm(folder, monkeypatch, **options):
    """The model where a GPU would run it: tokens are chosen and fed back out of the host's sight."""
    from tilewright.engine.llm import LLM

    monkeypatch.setattr("tilewright.models.decoder.memory_of", lambda device: FarMemory())
    return LLM(folder, **{"max_batch": 4, **options})
