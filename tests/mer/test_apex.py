"""Onset and apex: ranges, sources, refusals; and what extract refuses before it begins."""

import numpy as np
import pytest

from merveil.mer.errors import InputError
from merveil.mer.features import apex as apexes
from merveil.mer.features.extract import Settings, extract, settings_from_meta

FILM = np.zeros((12, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize(
    "onset, apex, words",
    [
        (0, 12, "the apex is frame 12, but the clip has frames 0 to 11"),
        (12, 3, "the onset is frame 12, but"),
        (-1, 3, "the onset is frame -1"),
        (5, 5, "apex .frame 5. must come after the onset .frame 5."),
        (5, 2, "must come after"),
    ],
)
def test_annotated_frames_out_of_range_are_refused(onset: int, apex: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        apexes.choose(FILM, "annotated", onset, apex)


def test_the_source_is_recorded() -> None:
    assert apexes.choose(FILM, "annotated", None, 4).source == "annotated"
    middle = apexes.choose(FILM, "middle", 2, 9)
    assert (middle.onset, middle.apex, middle.source) == (2, 6, "middle")
    with pytest.raises(InputError, match="no annotated apex: use --apex spotted"):
        apexes.choose(FILM, "annotated", 0, None)
    with pytest.raises(InputError, match="unknown apex source 'guess'"):
        apexes.choose(FILM, "guess", 0, 1)


def test_spotting_needs_three_frames() -> None:
    with pytest.raises(InputError, match="at least 3 frames, and the clip has 2"):
        apexes.spot(FILM[:2])


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert np.allclose(apexes.smooth(np.full(7, 2.0)), 2.0)
    assert len(apexes.smooth(np.zeros(3))) == 3


@pytest.mark.parametrize(
    "film, words",
    [
        (FILM[:1], "at least 2 frames, and this one has 1"),
        (FILM.astype(np.float32), "frames must be uint8"),
        (FILM[..., None], "frames must be uint8"),
        (FILM[0], "frames must be uint8"),
    ],
)
def test_extract_refuses_what_is_no_clip(film: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        extract(film, settings=Settings(flow="dis", face="full"))


def test_an_onset_outside_the_clip_is_refused_before_the_face_is_sought() -> None:
    with pytest.raises(InputError, match="the onset is frame 40"):
        extract(FILM, onset=40, apex=41)


@pytest.mark.parametrize(
    "name, value",
    [("flow", "x"), ("light", "x"), ("normalise", "x"), ("rigid", "x"), ("face", "x"), ("unit", "x"),
     ("apex", "x"), ("crop", 64), ("crop", 4096), ("size", 4), ("size", 100)],
)  # fmt: skip
def test_every_wrong_setting_is_refused(name: str, value: object) -> None:
    with pytest.raises(InputError):
        Settings(**{name: value}).check()


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(flow="dis", light="none", rigid="similarity", face="full", unit="eyes"),
        Settings(normalise="ststnet-compat", crop=168, size=56),
    ],
)
def test_settings_are_read_back_from_the_meta_they_write(settings: Settings) -> None:
    flow, scale = settings.describe_flow(), settings.describe_normalisation()
    assert settings_from_meta(flow, scale, "annotated 12") == settings


@pytest.mark.parametrize(
    "flow, scale, words",
    [
        ("unknown", "unknown", "merveil's extractor did not make"),
        (Settings().describe_flow().replace("Tau=0.25", "Tau=0.2"), None, "another version"),
        (None, Settings().describe_normalisation().replace("merveil/2", "merveil/0"), "another version"),
    ],
)
def test_features_of_another_origin_are_refused(flow: str | None, scale: str | None, words: str) -> None:
    known = Settings()
    with pytest.raises(InputError, match=words):
        settings_from_meta(
            flow or known.describe_flow(), scale or known.describe_normalisation(), "spotted 3"
        )
