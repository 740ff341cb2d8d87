"""The registry: every operator in it is a program that follows the rules, for every dtype and option."""

import inspect
import itertools

import pytest

from tilewright.language import Tensor
from tilewright.language.parser import parse
from tilewright.language.printer import show
from tilewright.language.verifier import verify
from tilewright.operators import OPERATORS
from tilewright.operators.activation import ACTIVATIONS

INTEGERS = {"ids", "positions", "slots", "lengths", "page_table", "index", "q_from", "q_to", "k_from", "k_to"}
CHOICES = {"activation": (None, *ACTIVATIONS), "causal": (False, True), "window": (None, 4)}
CHOICES |= {"inverse": (False, True), "single": (False, True), "k": (1, 3), "precision": (None, "tf32")}


def traces(operator, element):
    """The program with and without its optional operands, under every combination of options."""
    signature = operator.kernel.signature
    names = [name for name, _ in signature.options]
    for values in itertools.product(*(CHOICES[name] for name in names)):
        if "tf32" in values and element != "f32":
            continue
        for full in (False, True):
            given = [p for p in signature.params if isinstance(p.spec, Tensor) and p.spec.dtype is None]
            tensors = [p.name for p in given if full or not p.optional]
            dtypes = {name: "i64" if name in INTEGERS else element for name in tensors}
            yield operator.kernel.trace(dtypes, options=dict(zip(names, values, strict=True)))


@pytest.mark.parametrize("name", OPERATORS)
def test_name_outputs_and_reference_fit_the_program(name):
    operator = OPERATORS[name]
    params = {p.name for p in operator.kernel.signature.params}
    assert operator.name == name
    assert set(operator.updates) <= set(operator.outputs) <= params
    reads = params - set(operator.outputs) | set(operator.updates)
    options = {option for option, _ in operator.kernel.signature.options}
    assert set(inspect.signature(operator.reference).parameters) == reads | options
    assert inspect.getdoc(operator.reference)


@pytest.mark.parametrize("element", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_trace_follows_the_rules_and_survives_as_text(name, element):
    for kernel in traces(OPERATORS[name], element):
        assert verify(kernel) == []
        assert parse(show(kernel)) == kernel
