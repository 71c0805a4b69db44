"""The generator: deterministic, honest about its truth, with a face in it and classes to tell apart."""

from functools import cache

import numpy as np
import pytest

from merveil.mer.baselines import kernel_ridge_predictions
from merveil.mer.data import synthetic
from merveil.mer.data.archive import Archive
from merveil.mer.data.motion import ACTION_UNITS, Landmarks, expression, render, rigid, true_flow
from merveil.mer.data.splits import loso
from merveil.mer.data.synthetic import Source, make_clip, parse_source, synthetic_archive
from merveil.mer.errors import InputError
from merveil.mer.features.face import detect
from merveil.mer.features.flow import flow
from merveil.mer.metrics import confusion, uf1

SMALL = Source(subjects=10, clips=6, seed=3)
MARKS = Landmarks((70.0, 85.0), (122.0, 85.0), (96.0, 140.0), 40.0)


@cache
def archive() -> Archive:
    return synthetic_archive(SMALL.subjects, SMALL.clips, SMALL.seed)


@pytest.mark.parametrize(
    "text, source",
    [
        ("synthetic", Source(24, 8, 0)),
        ("synthetic:subjects=5", Source(5, 8, 0)),
        ("synthetic:seed=7, clips=3,subjects=4", Source(4, 3, 7)),
    ],
)
def test_source_text(text: str, source: Source) -> None:
    assert parse_source(text) == source and parse_source(str(source)) == source


@pytest.mark.parametrize(
    "text",
    ["synth", "synthetic:subject=5", "synthetic:subjects=x", "synthetic:subjects=-3",
     "synthetic:seed=1,seed=2",
     "synthetic:subjects=1", "synthetic:clips=0", "synthetic:subjects=999999", "synthetic:clips=1.5"],
)  # fmt: skip
def test_wrong_source_text_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_source(text)


def test_a_clip_depends_on_its_own_numbers_only() -> None:
    one, again = make_clip(SMALL, 2, 1), make_clip(SMALL, 2, 1)
    assert (one.frames == again.frames).all() and (one.onset, one.apex) == (again.onset, again.apex)
    other_seed = make_clip(Source(10, 6, 4), 2, 1)
    assert other_seed.frames.shape != one.frames.shape or (other_seed.frames != one.frames).any()


def test_frames_are_video_of_a_face() -> None:
    for subject in range(0, 10, 3):
        clip = make_clip(SMALL, subject, 0)
        assert clip.frames.dtype == np.uint8 and clip.frames.shape[1:] == (192, 192)
        assert 0 < clip.onset < clip.apex < len(clip.frames) - 1
        assert detect(clip.frames[clip.onset]).side > 90


def test_labels_have_fixed_proportions_and_differ_between_people() -> None:
    table = synthetic.labels(Source(24, 8, 0))
    assert np.bincount(table.ravel()).tolist() == [96, 48, 48]
    assert len({tuple(np.bincount(row, minlength=3)) for row in table}) > 3


def test_truth_is_the_displacement_that_was_rendered() -> None:
    """Warping the onset by the true flow gives the apex, far better than not warping it."""
    shape = (192, 192)
    still = synthetic.draw_face(synthetic.person_of(0, 0), 192)
    first = rigid(shape, (96, 100), (0.4, -0.3, 0.01, 0.005))
    second = rigid(shape, (96, 100), (-0.6, 0.5, -0.01, 0)) + expression(
        shape, MARKS, {"AU12": 2.0, "AU4": 1.0}
    )
    exact = true_flow(first, second)
    y, x = np.mgrid[0:192, 0:192].astype(np.float32)
    import cv2

    back = cv2.remap(render(still, second), x + exact[..., 0], y + exact[..., 1], cv2.INTER_CUBIC)
    inside = np.s_[16:-16, 16:-16]
    error = np.abs(back - render(still, first))[inside].mean()
    unmoved = np.abs(render(still, second) - render(still, first))[inside].mean()
    assert error < 0.15 * unmoved
    assert np.abs(true_flow(first, first)).max() < 1e-3


def test_estimated_flow_agrees_with_the_truth_of_a_clip() -> None:
    clip = make_clip(SMALL, 1, 2)
    found = flow(clip.frames[clip.onset], clip.frames[clip.apex], "dis")
    exact = clip.truth.flow(clip.onset, clip.apex)
    inside = np.s_[50:160, 45:150]
    assert np.hypot(*(found - exact)[inside].transpose(2, 0, 1)).mean() < 0.2


@pytest.mark.parametrize(
    "unit, at, direction",
    [("AU12", (120, 140), (1, -1)), ("AU12", (72, 140), (-1, -1)), ("AU15", (120, 142), (0, 1)),
     ("AU1+2", (124, 68), (0, -1)), ("AU4", (110, 70), (-1, 1)), ("AU4", (82, 70), (1, 1)),
     ("AU26", (96, 157), (0, 1)), ("blink", (122, 83), (0, 1))],
)  # fmt: skip
def test_action_units_pull_the_right_way(unit: str, at: tuple[int, int], direction: tuple[int, int]) -> None:
    x, y = expression((192, 192), MARKS, {unit: 3.0})[at[1], at[0]]
    for value, sign in zip((x, y), direction):
        assert value * sign > 0.5 if sign else abs(value) < 0.5
    assert set(ACTION_UNITS) >= {u for mixes in synthetic.RECIPES.values() for m in mixes for u in m}


def test_archive_of_the_whole_chain() -> None:
    made = archive()
    assert made.x.shape == (60, 28, 28, 3) and made.x.dtype == np.float32
    assert made.meta.channels == ("strain", "v", "u") and made.meta.apex == "annotated 60"
    assert set(made.dataset) == {"synthetic"} and set(made.site) == {"lab-a", "lab-b"}
    assert len(made.persons()) == 10 and (made.x[..., 0] >= 0).all()


def test_same_seed_same_archive_and_another_seed_another() -> None:
    again = synthetic_archive(2, 3, SMALL.seed)
    assert again.sha256 == synthetic_archive(2, 3, SMALL.seed).sha256
    assert again.sha256 != synthetic_archive(2, 3, SMALL.seed + 1).sha256


def test_classes_can_be_told_apart_on_new_faces_but_not_perfectly() -> None:
    made = archive()
    predicted = kernel_ridge_predictions(made, loso(made)).argmax(axis=1)
    assert 0.45 < uf1(confusion(made.y, predicted, 3)) < 0.98  # chance is about .33, a majority vote .22
