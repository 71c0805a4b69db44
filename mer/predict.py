"""A video to a label: where something moves, the features a model was trained on, and what the model says.

Which model is a matter of the caller: this module gets its meta and a function from feature images to
probabilities, so it knows nothing of run folders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.calibration import Answering
from merveil.mer.data.meta import Meta
from merveil.mer.data.video import Film, read_film
from merveil.mer.errors import InputError
from merveil.mer.features.apex import QUIET, must_move
from merveil.mer.features.extract import CHANNELS, Extraction, Settings, settings_from_meta
from merveil.mer.windows import MOVING, Window, candidates, features_of, length_of, look

Predictor = Callable[[NDArray[Any]], NDArray[np.float64]]  # [n, h, w, c] -> probabilities [n, K]
NOT_SURE = "not sure"


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model says of one window. probabilities: float64 [K], sum 1, at the model's temperature."""

    window: Window
    probabilities: NDArray[np.float64]
    label: str
    confidence: float
    sure: bool

    @property
    def word(self) -> str:
        """The label, or `not sure`."""
        return self.label if self.sure else NOT_SURE


@dataclass(frozen=True, eq=False)
class Prediction:
    """answers: the candidate windows in time. best: the one that moves most, with its features `made`.

    windows: all that were looked at; course: every moving one with its probabilities, for the timeline.
    """

    classes: tuple[str, ...]
    answers: tuple[Answer, ...]
    best: Answer
    made: Extraction
    settings: Settings
    film: Film
    windows: tuple[Window, ...]
    course: tuple[Answer, ...]
    answering: Answering | None


def settings_of(meta: Meta) -> Settings:
    """How to treat a video for a model trained on an archive with this meta; InputError where unknown."""
    if meta.channels != CHANNELS:
        raise InputError(
            f"the model reads channels {', '.join(meta.channels)}, and a video gives {', '.join(CHANNELS)}"
        )
    return settings_from_meta(meta.flow, meta.normalisation, meta.apex)


def predict_clip(
    path: str | Path,
    meta: Meta,
    predictor: Predictor,
    *,
    answering: Answering | None = None,
    window: int | None = None,
    fps: float | None = None,
) -> Prediction:
    """Read a video, look for movement, make features of each window that moves, and ask the model.

    answering: below its threshold an answer is not sure. window: frames; fps: frames a second where the file
    does not say or is wrong.
    InputError names the clip: unreadable, no face, no movement, or features of another shape than the model
    reads.
    """
    settings = settings_of(meta)
    film = read_film(path)
    if fps is not None and not fps > 0:
        raise InputError(f"--fps must be positive, not {fps:g}")
    film = film if fps is None else Film(film.frames, fps, film.scale)
    try:
        length = length_of(film.fps, len(film.frames), window)
        windows = look(film.frames, settings, length)
        moving = [w for w in windows if w.state == MOVING]
        if not moving:
            must_move(max(w.rise for w in windows), QUIET)
            raise InputError("what moves in this clip only returns to rest: begin it before the expression")
        made = [features_of(film.frames, w, settings) for w in moving]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    said = np.asarray(predictor(np.stack([m.x for m in made])), dtype=np.float64)
    course = tuple(_answer(w, p, meta.classes, answering) for w, p in zip(moving, said, strict=True))
    chosen = candidates(windows, length)
    answers = tuple(course[next(i for i, w in enumerate(moving) if w is c)] for c in chosen)
    best = max(answers, key=lambda a: a.window.rise)
    features = made[next(i for i, w in enumerate(moving) if w is best.window)]
    return Prediction(
        meta.classes, answers, best, features, settings, film, tuple(windows), course, answering
    )


def _answer(
    window: Window, probabilities: NDArray[np.float64], classes: tuple[str, ...], answering: Answering | None
) -> Answer:
    calibrated, sure = probabilities, True
    if answering is not None:
        rows, judged = answering.judge(probabilities[None])
        calibrated, sure = rows[0], bool(judged[0])
    first = int(np.argmax(calibrated))
    return Answer(window, calibrated, classes[first], float(calibrated[first]), sure)
