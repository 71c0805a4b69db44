"""Magnification of known motion: larger, in the same direction, head motion left out, off at 1."""

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image (merveil[dev]) holds the photograph")

from merveil.mer.data.portrait import flow_in_square, portrait_clip
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings, extract
from merveil.mer.features.flow import flow
from merveil.mer.features.magnify import magnify
from merveil.mer.features.opencv import opencv
from merveil.mer.features.rigid import remove_rigid

INSIDE = np.s_[10:-10, 10:-10]


def along(field: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """Size along the true field in its units, and correlation with it."""
    a, b = field[INSIDE].ravel(), exact[INSIDE].ravel()
    return float(a @ b / (b @ b)), float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("label, seed", [(2, 4), (1, 2)])
def test_a_factor_of_two_magnifies_the_expression(label: int, seed: int) -> None:
    frames, onset, apex, truth = portrait_clip(label, seed, strength=0.5)
    sizes = {}
    for factor in (1.0, 2.0):
        settings = Settings(flow="dis", rigid="similarity", magnify=factor)
        made = extract(frames, onset, apex, settings)
        exact = remove_rigid(flow_in_square(truth.flow(onset, apex), made.box, 140), "similarity")
        sizes[factor], likeness = along(made.flow, exact)
        assert likeness > 0.85
    assert 1.3 < sizes[2.0] / sizes[1.0] < 2.2
    assert f"magnify={2:g}" in Settings(magnify=2.0).describe_flow()


def test_one_is_nothing_and_other_factors_are_refused() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    assert magnify(frame, frame[::-1].copy(), 1.0).tobytes() == frame[::-1].tobytes()
    for factor in (0.5, 21.0, float("nan")):
        with pytest.raises(InputError, match=r"--magnify must be 1 \(none\) to 20"):
            magnify(frame, frame, factor)


def test_head_motion_is_not_magnified() -> None:
    cv2 = opencv()
    frames, onset, _, _ = portrait_clip(2, 4)
    still = cv2.resize(frames[onset], (140, 140), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, 1.5], [0, 1, 0]], dtype=np.float32)
    moved = cv2.warpAffine(still, shift, (140, 140), borderMode=cv2.BORDER_REPLICATE)
    field = flow(still, magnify(still, moved, 8.0), "dis")[INSIDE]
    assert abs(float(np.median(field[..., 0]))) < 0.3
