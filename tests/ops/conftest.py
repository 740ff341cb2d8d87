import interpreted_backend
import pytest

from tilewright import ops


@pytest.fixture(autouse=True)
def interpreted():
    """Every op of a test runs in the interpreter."""
    with ops.using(interpreted_backend.bind):
        yield


@pytest.fixture
def generator():
    """A seeded source of torch's random numbers."""
    import torch

    return torch.Generator().manual_seed(0)
