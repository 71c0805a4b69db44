"""A coalition sees the frames that touched it and its own states, and nothing else."""

import pytest

from merveil.protocols.frame import Frame
from merveil.protocols.params import Params
from merveil.protocols.transcript import Transcript

FRAMES = tuple(
    Frame(0, k, bytes(16), s, t, b"") for k, (s, t) in enumerate([(1, 0), (2, 0), (0, 1), (0, 2), (3, 0)])
)
WHOLE = Transcript(Params("plain", 3, 1), b"c", FRAMES, {0: {}, 1: {"codes": 1}, 2: {"codes": 2}}, (1, 2), 3)


@pytest.mark.parametrize(
    ("corrupted", "kinds", "states"),
    [
        (set(), [], set()),
        ({0}, [0, 1, 2, 3, 4], {0}),
        ({1}, [0, 2], {1}),
        ({2}, [1, 3], {2}),
        ({1, 2}, [0, 1, 2, 3], {1, 2}),
        ({0, 2}, [0, 1, 2, 3, 4], {0, 2}),
        ({4}, [], set()),
    ],
)
def test_views(corrupted: set[int], kinds: list[int], states: set[int]) -> None:
    view = WHOLE.view(frozenset(corrupted))
    assert [f.kind for f in view.frames] == kinds
    assert set(view.states) == states and view.corrupted == corrupted
    assert (view.total, view.survivors, view.context) == (3, (1, 2), b"c")


def test_printing_a_view_prints_no_inputs() -> None:
    secret = Transcript(Params("plain", 1, 1), b"c", FRAMES, {1: {"codes": "SECRET"}}, (), "SECRET")
    assert "SECRET" not in repr(secret) + repr(secret.view(frozenset({1})))
