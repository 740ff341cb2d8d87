import numpy as np
import pytest
import torch

from tilewright import ops
from tilewright.errors import ArgumentError, DTypeError
from tilewright.language.dtypes import f32, i32
from tilewright.runtime.buffer import Buffer


@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 3, 4), (2, 0, 3)])
def test_elementwise_ops_are_torch(generator, shape):
    x, up = torch.randn(2, *shape, generator=generator)
    functional = torch.nn.functional
    pairs = [
        (ops.silu(x), functional.silu(x.double())),
        (ops.gelu(x), functional.gelu(x.double())),
        (ops.gelu(x, approximate="tanh"), functional.gelu(x.double(), approximate="tanh")),
        (ops.geglu(x, up), functional.gelu(x.double()) * up.double()),
        (ops.geglu(x, up, approximate="tanh"), functional.gelu(x.double(), approximate="tanh") * up.double()),
        (ops.swiglu(x, up), functional.silu(x.double()) * up.double()),
        (ops.scale_add(x, 0.5, up), 0.5 * x.double() + up.double()),
    ]
    for ours, theirs in pairs:
        assert ours.shape == shape
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-6, atol=1e-6)


def test_any_operand_can_be_the_place_of_the_result(generator):
    gate, up = torch.randn(2, 3, 4, 5, generator=generator).transpose(1, 3)
    expected = ops.swiglu(gate, up)
    for place in (gate, up):
        operands = [gate.clone(), up.clone()]
        out = operands[0] if place is gate else operands[1]
        assert torch.equal(ops.swiglu(*operands, out=out), expected)


def test_a_shifted_view_of_an_operand_cannot_be():
    x = np.ones(9, np.float32)
    with pytest.raises(ArgumentError, match=r"silu: out of shape .* shares memory with x"):
        ops.silu(x[:8], out=x[1:])


def test_shapes_are_not_broadcast():
    with pytest.raises(ArgumentError, match=r"swiglu: up of shape \[4\] does not fit \[3, 4\] \(the shape of gate\)"):
        ops.swiglu(np.ones((3, 4), np.float32), np.ones(4, np.float32))
    with pytest.raises(ArgumentError, match=r"choose 'none' or 'tanh'"):
        ops.gelu(np.ones(3, np.float32), approximate="fast")


def test_embedding(generator):
    table = torch.randn(5, 4, generator=generator).bfloat16()
    ids = torch.tensor([[0, 4, 2], [1, 1, 3]])
    for kind in (torch.int32, torch.int64):
        assert torch.equal(ops.embedding(ids.to(kind), table), table[ids])
    assert torch.equal(ops.embedding(ids.T, table.float().T.contiguous().T), table.float()[ids.T])
    assert ops.embedding(torch.tensor(3), table).shape == (4,)
    assert ops.embedding(ids[:0], table).shape == (0, 3, 4)


@pytest.mark.parametrize("bad", [-1, 5])
def test_an_id_outside_the_table_is_named(bad):
    with pytest.raises(ArgumentError, match=rf"embedding: ids holds {bad}, outside \[0, 5\)"):
        ops.embedding(np.array([1, bad]), np.ones((5, 2), np.float32))
    with pytest.raises(DTypeError, match=r"ids of shape .* is f32, not one of i32, i64"):
        ops.embedding(np.ones(2, np.float32), np.ones((5, 2), np.float32))


def test_ids_on_a_gpu_need_a_row_to_name():
    """Nobody looks at them there: they name the nearest row, so there has to be one."""
    ids, table, out = (
        Buffer(1 << 30 << n, shape, strides, kind, "cuda:0")
        for n, (shape, strides, kind) in enumerate((((2,), (1,), i32), ((0, 4), (4, 1), f32), ((2, 4), (4, 1), f32)))
    )
    with pytest.raises(ArgumentError, match=r"embedding: ids of shape \[2\] cannot name any of the rows of table"):
        ops.embedding.bind(ids, table, out=out)
