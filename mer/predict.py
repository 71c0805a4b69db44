"""A video to a label: where something moves, the features a model was trained on, and what the model says.

Which model is a matter of the caller: this module gets its meta and a function from feature images to
probabilities, so it knows nothing of run folders.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.meta import Meta
from merveil.mer.data.video import Film, read_film
from merveil.mer.errors import InputError
from merveil.mer.features.apex import QUIET, must_move
from merveil.mer.features.extract import CHANNELS, Extraction, Settings, settings_from_meta
from merveil.mer.windows import MOVING, Window, candidates, features_of, length_of, look

Predictor = Callable[[NDArray[Any]], NDArray[np.float64]]  # [n, h, w, c] -> probabilities [n, K]
NOT_SURE = "not sure"


@dataclass(frozen=True)
class Abstain:
    """When to say nothing: below `threshold` of the largest probability after division of the logits by
    `temperature`; `coverage` is the share of training persons' clips that are then answered."""

    threshold: float
    coverage: float
    temperature: float = 1.0

    @classmethod
    def read(cls, value: Mapping[str, Any] | None) -> "Abstain | None":
        """From a model's JSON, None where it has none; InputError for values out of range."""
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise InputError(f"the model's `abstain` must be an object, not {value!r}: train it anew")
        numbers = {}
        for name, default in (("threshold", None), ("coverage", None), ("temperature", 1.0)):
            number = value.get(name, default)
            if isinstance(number, bool) or not isinstance(number, int | float) or not np.isfinite(number):
                raise InputError(f"the model's `abstain` has {name} {number!r}, not a number: train it anew")
            numbers[name] = float(number)
        if (
            not 0 <= numbers["threshold"] <= 1
            or not 0 < numbers["coverage"] <= 1
            or numbers["temperature"] <= 0
        ):
            raise InputError(f"the model's `abstain` is out of range: {numbers}: train it anew")
        return cls(**numbers)


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
    abstain: Abstain | None


def settings_of(meta: Meta) -> Settings:
    """How to treat a video for a model trained on an archive with this meta; InputError where unknown."""
    if meta.channels != CHANNELS:
        raise InputError(
            f"the model reads channels {', '.join(meta.channels)}, and a video gives {', '.join(CHANNELS)}"
        )
    return settings_from_meta(meta.flow, meta.normalisation, meta.apex)


def temper(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Softmax of the logits over `temperature`, from softmax at 1: p^(1/T) over its sum, [n, K]."""
    logs = np.log(np.maximum(probabilities, 1e-300)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def predict_clip(
    path: str | Path,
    meta: Meta,
    predictor: Predictor,
    *,
    abstain: Abstain | None = None,
    window: int | None = None,
    fps: float | None = None,
) -> Prediction:
    """Read a video, look for movement, make features of each window that moves, and ask the model.

    window: frames; fps: frames a second where the file does not say or is wrong.
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
    course = tuple(_answer(w, p, meta.classes, abstain) for w, p in zip(moving, said, strict=True))
    chosen = candidates(windows, length)
    answers = tuple(course[next(i for i, w in enumerate(moving) if w is c)] for c in chosen)
    best = max(answers, key=lambda a: a.window.rise)
    features = made[next(i for i, w in enumerate(moving) if w is best.window)]
    return Prediction(meta.classes, answers, best, features, settings, film, tuple(windows), course, abstain)


def _answer(
    window: Window, probabilities: NDArray[np.float64], classes: tuple[str, ...], abstain: Abstain | None
) -> Answer:
    tempered = temper(probabilities[None], abstain.temperature if abstain else 1.0)[0]
    first = int(np.argmax(tempered))
    confidence = float(tempered[first])
    sure = abstain is None or confidence >= abstain.threshold
    return Answer(window, tempered, classes[first], confidence, sure)
