"""An array that counts what is read of it."""

from __future__ import annotations

import numpy as np


class Counted(np.ndarray):
    """An array that counts the elements that are read from it."""

    read = 0

    def __getitem__(self, at):
        found = np.asarray(self)[at]
        Counted.read += np.size(found)
        return found
