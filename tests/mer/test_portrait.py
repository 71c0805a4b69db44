"""The real photograph moved by known fields: face, flow, strain and apex against the truth."""

from functools import cache

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image (merveil[dev]) holds the photograph")

from merveil.mer.data.portrait import flow_in_square, portrait, portrait_clip
from merveil.mer.data.synthetic import Truth
from merveil.mer.errors import InputError
from merveil.mer.features import apex as apexes
from merveil.mer.features import face as faces
from merveil.mer.features.extract import Settings, extract
from merveil.mer.features.rigid import remove_rigid
from merveil.mer.features.strain import optical_strain

POSITIVE, SURPRISE = 1, 2
INSIDE = np.s_[10:-10, 10:-10]  # flow at the very border of the square has nothing to hold on to


@cache
def clip(label: int, seed: int, drift: float = 0.01) -> tuple[np.ndarray, int, int, Truth]:
    return portrait_clip(label, seed, drift=drift)


def test_the_face_is_found_where_it_is() -> None:
    still, marks = portrait()
    box = faces.detect(still.astype(np.uint8))
    for x, y in (marks.left_eye, marks.right_eye, marks.mouth):
        assert box.x < x < box.x + box.side and box.y < y < box.y + box.side
    assert 2.0 < box.side / marks.eye_distance < 2.5
    square = faces.crop(still.astype(np.uint8)[None], box, 140)[0]
    assert faces.eye_distance(square) == pytest.approx(marks.eye_distance * 140 / box.side, rel=0.12)


@pytest.mark.parametrize("method, bound", [("tvl1", 0.10), ("tvl1-quick", 0.10), ("dis", 0.13)])
def test_end_point_error_is_a_tenth_of_a_pixel(method: str, bound: float) -> None:
    frames, onset, apex, truth = clip(SURPRISE, 4)
    made = extract(frames, onset, apex, Settings(flow=method, rigid="none"))
    exact = flow_in_square(truth.flow(onset, apex), made.box, 140)
    error = np.hypot(*(made.flow - exact)[INSIDE].transpose(2, 0, 1))
    assert np.hypot(*exact.transpose(2, 0, 1)).max() > 1.0  # there is something to be wrong about
    assert error.mean() < bound


def test_a_lamp_ruins_tvl1_unless_the_light_is_flattened() -> None:
    frames, onset, apex, truth = clip(SURPRISE, 4, 0.05)
    error = {}
    for light in ("flat", "none"):
        made = extract(frames, onset, apex, Settings(rigid="none", light=light))
        exact = flow_in_square(truth.flow(onset, apex), made.box, 140)
        error[light] = float(np.hypot(*(made.flow - exact)[INSIDE].transpose(2, 0, 1)).mean())
    assert error["flat"] < 0.11 and error["none"] > 1.5 * error["flat"]


def test_feature_image_follows_the_true_movement() -> None:
    """v and u of the 28x28 image correlate with the truth, strain with the strain of the true field."""
    frames, onset, apex, truth = clip(POSITIVE, 2)
    made = extract(frames, onset, apex, Settings(flow="dis", rigid="similarity"))
    exact = remove_rigid(flow_in_square(truth.flow(onset, apex), made.box, 140), "similarity")
    percent = 100 / 140
    wanted = (optical_strain(exact) * 100, exact[..., 1] * percent, exact[..., 0] * percent)
    for channel, (full, least) in enumerate(zip(wanted, (0.55, 0.9, 0.9))):
        small = full.reshape(28, 5, 28, 5).mean(axis=(1, 3))[2:-2, 2:-2]
        found = made.x[2:-2, 2:-2, channel]
        assert np.corrcoef(small.ravel(), found.ravel())[0, 1] > least
    assert made.x.shape == (28, 28, 3) and made.x.dtype == np.float32
    assert made.spotted.source == "annotated"


@pytest.mark.parametrize("label, seed", [(POSITIVE, 0), (SURPRISE, 1), (SURPRISE, 5), (0, 5)])
def test_apex_is_spotted_within_two_frames(label: int, seed: int) -> None:
    frames, onset, apex, _ = clip(label, seed)
    found = extract(frames, settings=Settings(flow="dis")).spotted
    assert found.source == "spotted" and abs(found.apex - apex) <= 2 and abs(found.onset - onset) <= 4


def test_a_still_film_is_refused() -> None:
    still, _ = portrait()
    noise = np.random.default_rng(0).normal(0, 1.0, (20, *still.shape))
    film = np.clip(np.rint(still + noise), 0, 255).astype(np.uint8)
    with pytest.raises(InputError, match="nothing moves in this clip"):
        extract(film, settings=Settings(flow="dis"))
    with pytest.raises(InputError, match="nothing moves"):
        extract(np.repeat(film[:1], 9, axis=0), settings=Settings(flow="dis"), least=apexes.FROZEN)


def test_no_face_is_an_error_and_full_skips_the_search() -> None:
    frames, onset, apex, _ = clip(SURPRISE, 1)
    sky = frames[:, -60:, :]  # the suit, below the chin
    with pytest.raises(InputError, match=r"no face was found on the onset frame.*--face full"):
        extract(sky, onset, apex, Settings(flow="dis"))
    square = faces.crop(frames, faces.detect(frames[onset]), 140)
    made = extract(square, onset, apex, Settings(flow="dis", face="full"))
    assert made.box == faces.Box(0, 0, 140) and (made.onset_face == square[onset]).all()
