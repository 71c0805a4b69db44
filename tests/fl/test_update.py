"""Flat vectors: a frozen order, both ways, and refusal of anything else."""

import numpy as np
import pytest

from merveil.fl.update import Layout
from merveil.mer.errors import InputError

LAYOUT = Layout.of([("conv.weight", (2, 3)), ("conv.bias", (2,)), ("gain", ())])
STATE = {
    "gain": np.array(9.0, np.float32),
    "conv.bias": np.array([7, 8], np.float32),
    "conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
}


def test_the_order_is_the_layouts_not_the_dicts():
    assert LAYOUT.size == 9
    assert LAYOUT.flatten(STATE).tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_there_and_back():
    back = LAYOUT.unflatten(LAYOUT.flatten(STATE))
    assert {name: value.tolist() for name, value in back.items()} == {
        name: value.tolist() for name, value in STATE.items()
    }


def test_the_hash_sees_names_shapes_and_order():
    others = [
        [("conv.weight", (3, 2)), ("conv.bias", (2,)), ("gain", ())],
        [("conv.bias", (2,)), ("conv.weight", (2, 3)), ("gain", ())],
        [("conv.weight", (2, 3)), ("conv.bias", (2,)), ("scale", ())],
    ]
    assert len({LAYOUT.sha256, *(Layout.of(other).sha256 for other in others)}) == 4


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ({**STATE, "more": np.zeros(1)}, "'more'"),
        ({name: value for name, value in STATE.items() if name != "gain"}, "lacks the tensor 'gain'"),
        ({**STATE, "conv.bias": np.zeros(3)}, "'conv.bias' has shape"),
    ],
)
def test_another_state_is_refused(state, word):
    with pytest.raises(InputError, match=word):
        LAYOUT.flatten(state)


def test_another_length_is_refused():
    with pytest.raises(InputError, match="the layout needs"):
        LAYOUT.unflatten(np.zeros(8))
