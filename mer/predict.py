"""One video to one label: the features a model was trained on, made from a clip, and what the model says.

Which model is a matter of the caller: this module gets its meta and a function from feature images to
probabilities, so it knows nothing of run folders.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.meta import Meta
from merveil.mer.data.video import read_clip
from merveil.mer.errors import InputError
from merveil.mer.features.extract import CHANNELS, Extraction, Settings, extract, settings_from_meta

Predictor = Callable[[NDArray[Any]], NDArray[np.float64]]  # [n, h, w, c] -> probabilities [n, K]


@dataclass(frozen=True, eq=False)
class Prediction:
    """probabilities: float64 [K], sum 1. frames: number in the clip."""

    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    made: Extraction
    settings: Settings
    frames: int

    @property
    def label(self) -> str:
        return self.classes[int(np.argmax(self.probabilities))]


def settings_of(meta: Meta) -> Settings:
    """How to treat a video for a model trained on an archive with this meta; InputError where unknown."""
    if meta.channels != CHANNELS:
        raise InputError(
            f"the model reads channels {', '.join(meta.channels)}, and a video gives {', '.join(CHANNELS)}"
        )
    return settings_from_meta(meta.flow, meta.normalisation, meta.apex)


def predict_clip(path: str | Path, meta: Meta, predictor: Predictor) -> Prediction:
    """Read a clip, make the model's features, and ask the model.

    InputError names the clip: unreadable, no face, no movement, or features of another shape than the
    model reads.
    """
    settings = settings_of(meta)
    frames = read_clip(path)
    try:
        made = extract(frames, settings=settings)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    probabilities = np.asarray(predictor(made.x[None]), dtype=np.float64)[0]
    return Prediction(meta.classes, probabilities, made, settings, len(frames))
