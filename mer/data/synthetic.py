"""Synthetic face clips: real video frames of a drawn face, moved by action units, with the truth known.

Every clip is a function of (seed, subject, clip) alone, so clips can be made in any order and in parallel.
Scores on these clips say that the code works; they say nothing about people.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.drawn_face import Identity, draw_face, draw_identity, head_mask, landmarks
from merveil.mer.data.motion import Field, Landmarks, expression, render, rigid, true_flow
from merveil.mer.errors import InputError

if TYPE_CHECKING:
    from merveil.mer.data.archive import Archive
    from merveil.mer.features.extract import Settings

VERSION = 1  # part of the cache key of features: raise it when a clip of the same seed changes
CLASSES = ("negative", "positive", "surprise")
SIDE = 192
DATASET = "synthetic"
SITES = ("lab-a", "lab-b")
# Eight labels in the proportions of the published composite (more negative than positive or surprise).
PROPORTIONS = (0, 1, 2, 0, 1, 0, 2, 0)
MAX_SUBJECTS, MAX_CLIPS = 10_000, 1_000
# class -> possible mixes of action units, weights for the strength of each.
RECIPES: Mapping[int, tuple[Mapping[str, float], ...]] = {
    0: (
        {"AU4": 1.0},
        {"AU4": 0.8, "AU15": 0.7},
        {"AU15": 0.9, "AU17": 0.6},
        {"AU9": 0.8, "AU10": 0.9},
        {"AU4": 0.7, "AU10": 0.6},
        {"AU14": 0.9, "AU10": 0.4},
    ),
    1: ({"AU12": 1.0}, {"AU12": 0.9, "AU6": 0.7}, {"AU12": 0.7, "AU6": 0.5, "AU14": 0.4}),
    2: ({"AU1+2": 1.0}, {"AU1+2": 0.9, "AU5": 0.7}, {"AU1+2": 0.6, "AU26": 0.9}),
}
NUISANCE = ("AU4", "AU6", "AU10", "AU12", "AU14", "AU15", "AU17", "AU1+2", "AU26")


@dataclass(frozen=True)
class Source:
    """What `synthetic[:subjects=24,clips=8,seed=0]` names."""

    subjects: int = 24
    clips: int = 8
    seed: int = 0

    def __str__(self) -> str:
        return f"synthetic:subjects={self.subjects},clips={self.clips},seed={self.seed}"


@dataclass(frozen=True, eq=False)
class Clip:
    """frames: uint8 [t, h, w], grey. onset, apex: the true frame indices. label: 0, 1, 2 of CLASSES."""

    frames: NDArray[np.uint8]
    onset: int
    apex: int
    label: int
    dataset: str
    subject: str
    clip: str
    site: str
    truth: "Truth"


@dataclass(frozen=True, eq=False)
class Truth:
    """How a clip was moved: enough for its exact flow between any two frames.

    mask [h, w]; poses [t, 4]; course [t], expression intensity 0..1; units [h, w, 2] at full intensity;
    blinks [t] and blink [h, w, 2] likewise; centre: of the head, in pixels.
    """

    mask: NDArray[np.float32]
    centre: tuple[float, float]
    poses: NDArray[np.float64]
    course: NDArray[np.float64]
    units: Field
    blinks: NDArray[np.float64]
    blink: Field

    def displacement(self, frame: int) -> Field:
        """D of one frame, [h, w, 2] in pixels (see merveil.mer.data.motion)."""
        head = rigid(self.mask.shape, self.centre, tuple(self.poses[frame]))
        field = self.mask[..., None] * head + np.float32(self.course[frame]) * self.units
        if self.blinks[frame]:
            field = field + np.float32(self.blinks[frame]) * self.blink
        return np.asarray(field, dtype=np.float32)

    def flow(self, first: int, second: int) -> Field:
        """The exact flow from one frame to another, head motion included: float32 [h, w, 2], pixels."""
        return true_flow(self.displacement(first), self.displacement(second))


def parse_source(text: str) -> Source:
    """Read `synthetic[:subjects=24,clips=8,seed=0]`; InputError names the word that is wrong."""
    name, _, rest = text.partition(":")
    if name != "synthetic":
        raise InputError(
            f"the synthetic source is written synthetic[:subjects=24,clips=8,seed=0], not {text!r}"
        )
    values: dict[str, int] = {}
    for word in filter(None, (w.strip() for w in rest.split(","))):
        match = re.fullmatch(r"(subjects|clips|seed)=(\d{1,9})", word)
        if match is None or match[1] in values:
            raise InputError(
                f"{word!r} in {text!r} is not one of subjects=N, clips=N, seed=N (whole numbers, each once)"
            )
        values[match[1]] = int(match[2])
    source = replace(Source(), **values)
    check_source(source)
    return source


def check_source(source: Source) -> None:
    if not 2 <= source.subjects <= MAX_SUBJECTS or not 1 <= source.clips <= MAX_CLIPS:
        raise InputError(
            f"{source} asks for {source.subjects} subjects of {source.clips} clips: "
            f"2 to {MAX_SUBJECTS} subjects and 1 to {MAX_CLIPS} clips can be made"
        )


def labels(source: Source) -> NDArray[np.int64]:
    """[subjects, clips]: fixed proportions overall, shuffled over people, so that some lack a class."""
    count = source.subjects * source.clips
    fixed = np.resize(np.array(PROPORTIONS, dtype=np.int64), count)
    return np.random.default_rng([source.seed, 11]).permutation(fixed).reshape(source.subjects, -1)


def names(subject: int, clip: int) -> tuple[str, str, str]:
    """Subject, clip and site name of person number `subject`, clip number `clip`, both from 0."""
    person = f"s{subject + 1:02d}"
    return person, f"{person}_{clip + 1:02d}", SITES[subject % len(SITES)]


def person_of(seed: int, subject: int) -> Identity:
    return draw_identity(np.random.default_rng([seed, 12, subject]))


def make_clip(source: Source, subject: int, clip: int) -> Clip:
    """Clip number `clip` of person number `subject`, both from 0."""
    label = int(labels(source)[subject, clip])
    person = person_of(source.seed, subject)
    site = subject % len(SITES)
    habit = float(np.random.default_rng([source.seed, 13, subject]).uniform(0.65, 1.4))  # expressiveness
    still = draw_face(person, SIDE)
    rng = np.random.default_rng([source.seed, 14, subject, clip])
    frames, onset, apex, truth = animate(
        still, landmarks(person, SIDE), head_mask(person, SIDE), label, rng, strength=habit
    )
    film = expose(frames, rng, noise=(1.6, 2.4)[site], drift=(0.01, 0.03)[site])
    who, which, where = names(subject, clip)
    return Clip(film, onset, apex, label, DATASET, who, which, where, truth)


def animate(
    still: NDArray[np.float32],
    marks: Landmarks,
    mask: NDArray[np.float32],
    label: int,
    rng: np.random.Generator,
    strength: float = 1.0,
) -> tuple[NDArray[np.float32], int, int, Truth]:
    """Move any still face: float32 frames [t, h, w] without camera noise, onset, apex, truth.

    still: grey [h, w] in 0..255. strength scales the median peak of 1.2 % of the eye distance.
    """
    rise, fall = int(rng.integers(7, 13)), int(rng.integers(8, 15))
    onset = int(rng.integers(3, 8))
    total = onset + rise + fall + int(rng.integers(2, 7))
    time = np.arange(total)
    up = np.clip((time - onset) / rise, 0, 1)
    down = np.clip((time - onset - rise) / fall, 0, 1)
    course = 0.25 * (1 - np.cos(np.pi * up)) * (1 + np.cos(np.pi * down))
    peak = 0.012 * marks.eye_distance * strength * float(np.exp(rng.normal(0, 0.5)))
    field = expression(still.shape, marks, _mix(label, rng, peak), float(rng.normal(0, 0.18)))
    blinks = np.zeros(total)
    if rng.random() < 0.25:
        blinks = np.exp(-0.5 * ((time - rng.uniform(0, total)) / 1.5) ** 2)
        blinks[blinks < 0.01] = 0
    centre = tuple(np.add(marks.left_eye, marks.right_eye) / 2 + [0, 0.9 * marks.eye_distance])
    truth = Truth(
        mask=mask,
        centre=(float(centre[0]), float(centre[1])),
        poses=_poses(total, marks.eye_distance, rng),
        course=course,
        units=field,
        blinks=blinks,
        blink=expression(still.shape, marks, {"blink": 0.10 * marks.eye_distance}),
    )
    frames = np.stack([render(still, truth.displacement(t)) for t in range(total)])
    return frames, onset, onset + rise, truth


def _mix(label: int, rng: np.random.Generator, peak: float) -> dict[str, float]:
    """Strengths in pixels: one recipe of the class, jittered, and sometimes an unrelated twitch."""
    recipe = RECIPES[label][int(rng.integers(len(RECIPES[label])))]
    units = {name: peak * weight * float(rng.uniform(0.7, 1.3)) for name, weight in recipe.items()}
    if rng.random() < 0.8:
        name = NUISANCE[int(rng.integers(len(NUISANCE)))]
        units[name] = units.get(name, 0.0) + peak * float(rng.uniform(0.2, 0.9))
    return units


def _poses(total: int, unit: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth small head motion [t, 4]: a start and one slow half swing of each part."""
    time = np.linspace(0, 1, total)[:, None]
    sizes = np.array([0.018 * unit, 0.018 * unit, 0.005, 0.003])
    start = rng.normal(0, 1, 4) * np.array([0.02 * unit, 0.02 * unit, 0.02, 0.01])
    phase, speed = rng.uniform(0, 2 * np.pi, 4), rng.uniform(1.5, 5.0, 4)
    swing = rng.normal(0, 1, 4) * sizes * (np.sin(phase + speed * time) - np.sin(phase))
    return np.asarray(start + swing)


def expose(
    frames: NDArray[np.float32], rng: np.random.Generator, *, noise: float, drift: float
) -> NDArray[np.uint8]:
    """The camera: slow lighting drift, sensor noise of `noise` grey levels, rounding to uint8."""
    total, height, width = frames.shape
    swing = drift * np.sin(rng.uniform(0, 6.28) + rng.uniform(0.5, 3.0) * np.linspace(0, 1, total))
    tilt = drift * float(rng.normal(0, 0.7)) * np.linspace(-0.5, 0.5, total)
    slope = np.linspace(-1, 1, width, dtype=np.float32)
    film = np.empty(frames.shape, dtype=np.uint8)
    for t in range(total):
        gain = (1 + swing[t] + tilt[t] * slope).astype(np.float32)
        lit = frames[t] * gain + np.float32(noise) * rng.standard_normal((height, width), dtype=np.float32)
        film[t] = np.clip(np.rint(lit), 0, 255)
    return film


def synthetic_clips(subjects: int = 24, clips: int = 8, seed: int = 0) -> Iterator[Clip]:
    """All clips of a source, person by person."""
    source = Source(subjects, clips, seed)
    check_source(source)
    for subject in range(subjects):
        for clip in range(clips):
            yield make_clip(source, subject, clip)


def synthetic_archive(
    subjects: int = 24,
    clips: int = 8,
    seed: int = 0,
    *,
    settings: "Settings | None" = None,
    workers: int = 1,
    cache: str | None = None,
) -> "Archive":
    """Clips -> face, flow, strain -> features -> Archive in memory, exactly as `merveil prepare` does.

    settings: by default DIS flow, which takes 5 s for 192 clips where TV-L1 (the default of `merveil
    prepare`) takes a minute, and no turning, since drawn faces are upright. workers > 1 starts that many
    processes, so the calling script needs the usual `__main__` guard.
    """
    from merveil.mer.features.extract import Settings
    from merveil.mer.prepare import prepare_archive

    text = str(Source(subjects, clips, seed))
    chosen = settings or Settings(flow="dis", align="none")
    return prepare_archive(text, "synthetic", settings=chosen, workers=workers, cache=cache)[0]
