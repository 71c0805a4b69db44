"""Spotting over a longer film: where the face moves, where it only returns to rest, where there is none."""

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image (merveil[dev]) holds the photograph")

from merveil.mer.calibration import Answering
from merveil.mer.data.meta import Meta
from merveil.mer.data.portrait import portrait_clip, turn_film
from merveil.mer.errors import InputError
from merveil.mer.features.extract import Settings
from merveil.mer.features.opencv import opencv
from merveil.mer.predict import predict_clip
from merveil.mer.windows import BLIND, RETURN, candidates, features_of, length_of, look

DIS = Settings(flow="dis")
META = Meta(flow=DIS.describe_flow(), normalisation=DIS.describe_normalisation(), apex="spotted 3")


def rest(frame: np.ndarray, count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (count, *frame.shape))
    return np.clip(np.rint(frame + noise), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def film() -> tuple[np.ndarray, int, int]:
    """A face at rest, an expression, rest again, a scene without a face; the expression's onset and apex."""
    frames, onset, apex, _ = portrait_clip(2, 4)
    blank = np.random.default_rng(1).integers(90, 140, (30, *frames.shape[1:]), dtype=np.uint8)
    parts = [rest(frames[0], 20, 0), frames, rest(frames[-1], 14, 2), blank]
    return np.concatenate(parts), 20 + onset, 20 + apex


def save(path, frames: np.ndarray):  # type: ignore[no-untyped-def]
    cv2 = opencv()
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), 25.0, frames.shape[:0:-1])
    if not out.isOpened():
        pytest.skip("this OpenCV cannot write FFV1 videos")
    for frame in frames:
        out.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    out.release()
    return path


def test_one_expression_is_one_candidate(film: tuple[np.ndarray, int, int]) -> None:
    frames, onset, apex = film
    windows = look(frames, DIS, 16)
    assert windows[0].start == 0 and windows[-1].stop == len(frames)
    assert any(w.state == RETURN for w in windows)  # windows that begin within the expression
    assert windows[-1].state == BLIND
    strong = [w for w in candidates(windows, 16) if w.rise > 0.3]
    assert len(strong) == 1 and abs(strong[0].apex - apex) <= 2 and abs(strong[0].onset - onset) <= 4
    made = features_of(frames, strong[0], DIS)
    assert made.spotted.apex == strong[0].apex and made.x[4:12, :, 1].mean() < -0.2  # brows go up
    with pytest.raises(ValueError, match="no face"):
        features_of(frames, windows[-1], DIS)


def test_predict_finds_the_same_and_may_be_not_sure(film: tuple[np.ndarray, int, int], tmp_path) -> None:  # type: ignore[no-untyped-def]
    frames, _, apex = film
    path = save(tmp_path / "a.avi", frames[: 20 + 40])
    seen: list[int] = []

    def model(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return np.tile([0.2, 0.2, 0.6], (len(x), 1))

    found = predict_clip(path, META, model, answering=Answering(1.0, 0.7, 0.75, 40))
    assert found.best.word == "not sure" and found.best.label == "surprise"
    assert abs(found.best.window.apex - apex) <= 2
    assert found.film.fps == 25 and len(seen) == 1 and len(found.course) == seen[0] >= len(found.answers)
    sharp = predict_clip(path, META, model, answering=Answering(0.5, 0.7, 0.75, 40))
    # .6^2 / (.6^2 + 2 * .2^2)
    assert sharp.best.word == "surprise" and sharp.best.confidence == pytest.approx(0.36 / 0.44)


def test_a_camera_held_askew_gives_the_same_features(film: tuple[np.ndarray, int, int], tmp_path) -> None:  # type: ignore[no-untyped-def]
    frames = film[0][16:50]
    images = []

    def model(x: np.ndarray) -> np.ndarray:
        images.append(x[0])
        return np.tile([0.5, 0.3, 0.2], (len(x), 1))

    for degrees in (0, 15):
        path = save(tmp_path / f"{degrees}.avi", turn_film(frames, degrees) if degrees else frames)
        found = predict_clip(path, META, model)
        assert abs(found.made.box.angle - degrees - 2.6) < 3
    first, second = (image[2:-2, 2:-2, 1:].ravel() for image in images)
    assert np.corrcoef(first, second)[0, 1] > 0.95


def test_window_lengths() -> None:
    assert length_of(25.0, 500) == 25 and length_of(200.0, 900) == 200 and length_of(1000.0, 900) == 250
    assert length_of(5.0, 500) == 12 and length_of(None, 500) == 50
    assert length_of(25.0, 37) == 37 and length_of(25.0, 38) == 25 and length_of(None, 400, 30) == 30
    with pytest.raises(InputError, match="--window must be at least 3 frames, not 2"):
        length_of(25.0, 100, 2)


def test_no_face_and_no_movement_are_said(film: tuple[np.ndarray, int, int], tmp_path) -> None:  # type: ignore[no-untyped-def]
    frames = film[0]
    with pytest.raises(InputError, match="no face was found"):
        look(frames[-28:], DIS, 12)
    with pytest.raises(InputError, match="at least 3 frames"):
        look(frames[:2], DIS, 12)
    path = save(tmp_path / "still.avi", frames[:18])
    with pytest.raises(InputError, match=r"still\.avi: nothing moves in this clip"):
        predict_clip(path, META, lambda x: np.ones((len(x), 3)) / 3)
