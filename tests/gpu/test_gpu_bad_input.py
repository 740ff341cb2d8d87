"""Operands on a GPU that are wrong, or lie oddly: a typed error that names the fix or the right result, no fault."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tilewright import ops
from tilewright.errors import ArgumentError, TilewrightError

DEVICE = "cuda"


def normal(*shape):
    return torch.randn(*shape, device=DEVICE).bfloat16()


@pytest.fixture(autouse=True)
def no_fault():
    """What a kernel did wrong comes out at the latest here."""
    torch.manual_seed(0)
    yield
    torch.cuda.synchronize()


ROWS = {
    "softmax": (ops.softmax, lambda x: x.softmax(-1)),
    "silu": (ops.silu, torch.nn.functional.silu),
    "rmsnorm": (lambda x: ops.rmsnorm(x, weight_of(x), 1e-5), lambda x: x * (x.square().mean(-1, True) + 1e-5).rsqrt()),
    "layernorm": (
        lambda x: ops.layernorm(x, weight_of(x), torch.zeros_like(weight_of(x)), 1e-5),
        lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    ),
}
LAYOUTS = {
    "transposed": lambda: normal(96, 40).T,
    "every third row": lambda: normal(60, 96)[::3],
    "every second element": lambda: normal(20, 192)[:, ::2],
    "one row for all": lambda: normal(1, 96).expand(20, 96),
    "beside a multiple of sixteen bytes": lambda: normal(20 * 96 + 1)[1:].view(20, 96),
    "three dimensions, turned": lambda: normal(4, 96, 5).permute(2, 0, 1),
}


def weight_of(x):
    return torch.ones(x.shape[-1], device=DEVICE, dtype=x.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_any_strides_and_addresses_are_right(name, layout):
    x = LAYOUTS[layout]()
    before, (ours, exact) = x.clone(), ROWS[name]
    torch.testing.assert_close(ours(x).double(), exact(x.double()), rtol=2.0**-7, atol=2.0**-8)
    assert torch.equal(x, before)


@pytest.mark.parametrize("layout", ["transposed", "every second element", "beside a multiple of sixteen bytes"])
def test_results_go_where_they_are_wanted_and_nowhere_else(layout):
    x, room = normal(20, 96), torch.full((20 * 96 * 2 + 1,), -7.0, device=DEVICE, dtype=torch.bfloat16)
    places = {
        "transposed": room[: 20 * 96].view(96, 20).T,
        "every second element": room[:-1].view(20, 192)[:, ::2],
        "beside a multiple of sixteen bytes": room[1 : 1 + 20 * 96].view(20, 96),
    }
    y = places[layout]
    ops.softmax(x, out=y)
    torch.testing.assert_close(y.double(), x.double().softmax(-1), rtol=2.0**-7, atol=2.0**-8)
    y.fill_(-7.0)
    assert (room == -7.0).all()


MIXED = {
    "rmsnorm": lambda x, far: ops.rmsnorm(x, far[0]),
    "swiglu": ops.swiglu,
    "scale_add": lambda x, far: ops.scale_add(x, 0.5, far),
    "linear": ops.linear,
    "add_rmsnorm": lambda x, far: ops.add_rmsnorm(x, far, x[0]),
    "softmax": lambda x, far: ops.softmax(x, out=far),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_on_different_devices_are_named(name):
    with pytest.raises(TilewrightError, match=r"cpu") as told:
        MIXED[name](normal(8, 96), torch.randn(8, 96).bfloat16())
    assert "move" in str(told.value)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_different_gpus_are_named():
    with pytest.raises(TilewrightError, match=r"several devices.*cuda:0.*cuda:1.*move them to one"):
        ops.swiglu(normal(8, 96), normal(8, 96).to("cuda:1"))


WITHOUT = {
    "gelu": ops.gelu,
    "layernorm": lambda x: ops.layernorm(x, weight_of(x), weight_of(x)),
    "add_rmsnorm": lambda x: ops.add_rmsnorm(x, x.detach(), weight_of(x)),
    "linear": lambda x: ops.linear(x, x.detach()),
    "attention": lambda x: ops.attention(x[None, None], x.detach()[None, None], x.detach()[None, None]),
    "argmax": ops.argmax,
}


@pytest.mark.parametrize("name", WITHOUT)
def test_gradients_where_none_is_defined_are_refused(name):
    x = normal(8, 64).requires_grad_()
    with pytest.raises(ArgumentError, match=r"asks for a gradient.*x\.detach\(\)"):
        WITHOUT[name](x)


def test_ids_past_a_table_lead_nowhere():
    table, wrong = normal(50, 96), [2**31 - 1, -(2**31), -1, 50]
    ids = torch.tensor([3, *wrong, 49], device=DEVICE, dtype=torch.int32)
    got = ops.embedding(ids, table)
    assert torch.equal(got[[0, -1]], table[[3, 49]])


def test_positions_past_the_tables_lead_nowhere():
    x, angle = normal(1, 4, 2, 64), torch.rand(10, 32, device=DEVICE).repeat(1, 2)
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
    positions = torch.tensor([[9, 2**31 - 1, -5, 0]], device=DEVICE, dtype=torch.int32)
    right = ops.rope(x, cos, sin, positions=torch.tensor([[9, 1, 1, 0]], device=DEVICE, dtype=torch.int32))
    got = ops.rope(x, cos, sin, positions=positions)
    assert torch.equal(got[:, [0, 3]], right[:, [0, 3]])


def test_wrong_head_counts_and_widths_are_refused():
    q, k = normal(2, 6, 5, 64), normal(2, 4, 9, 64)
    with pytest.raises(ArgumentError, match="head"):
        ops.attention(q, k, k)
    with pytest.raises(ArgumentError):
        ops.attention(q, k[:, :2, :, :32], k[:, :2])
    with pytest.raises(ArgumentError):
        ops.rmsnorm(normal(8, 96), weight_of(normal(8, 95)))
