"""Which frame is the onset and which the apex, and how that was decided.

An annotated apex is used when it is valid; else it is spotted (or, on request, the middle frame is taken,
as published work does for SMIC). What was used is returned and recorded, never guessed later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.flow import flow, make_solver
from merveil.mer.features.opencv import opencv
from merveil.mer.features.rigid import remove_rigid

Gray = NDArray[np.uint8]
CHOICES = ("auto", "annotated", "middle", "spotted")
SPOT_SIDE = 96  # px; frames are looked at in this size, which keeps a 40-frame clip under 0.1 s
RISE = 0.08  # the onset is the last frame before the apex below this share of the rise
# Face regions that express (rows, columns as shares of the square): both brows, cheeks, mouth. The eyes are
# left out, since a blink moves more than any micro-expression.
REGIONS = ((0.10, 0.32, 0.12, 0.88), (0.58, 0.95, 0.20, 0.80))
# Least rise of the movement, in percent of the face width. Measured on still drawn faces under camera noise
# of 1.5 to 4 grey levels: rises of .01 to .085, median .03. In a clip labelled as an expression the largest
# rise is taken however small, unless the frames are simply equal.
QUIET = 0.05
FROZEN = 0.001


@dataclass(frozen=True, eq=False)
class Spotted:
    """onset, apex: frame indices. source: annotated | middle | spotted. signal: [t] in percent of the face
    width, mean movement against the first frame; empty unless spotted."""

    onset: int
    apex: int
    source: str
    signal: NDArray[np.float64]


def check_range(onset: int, apex: int, frames: int) -> None:
    """InputError unless 0 <= onset < apex < frames."""
    if not 0 <= onset < frames:
        raise InputError(f"the onset is frame {onset}, but the clip has frames 0 to {frames - 1}")
    if not 0 <= apex < frames:
        raise InputError(f"the apex is frame {apex}, but the clip has frames 0 to {frames - 1}")
    if apex <= onset:
        raise InputError(f"the apex (frame {apex}) must come after the onset (frame {onset})")


def movement(faces: Gray) -> NDArray[np.float64]:
    """Mean speed-free movement of brows and mouth against frame 0: float64 [t], percent of the face width.

    faces: uint8 [t, side, side], cropped by one square. Head motion is removed per frame.
    """
    cv2 = opencv()
    small = [cv2.resize(f, (SPOT_SIDE, SPOT_SIDE), interpolation=cv2.INTER_AREA) for f in faces]
    solver = make_solver("dis")
    signal = np.zeros(len(small))
    for index in range(1, len(small)):
        field = remove_rigid(flow(small[0], small[index], "dis", solver), "similarity")
        size = np.hypot(field[..., 0], field[..., 1])
        parts = [size[_part(r)] for r in REGIONS]
        # The strongest fifth of a region: an expression moves part of it, noise moves all a little.
        signal[index] = max(float(np.sort(p, axis=None)[-p.size // 5 :].mean()) for p in parts)
    return signal * (100.0 / SPOT_SIDE)


def _part(region: Sequence[float]) -> tuple[slice, slice]:
    top, bottom, left, right = (round(SPOT_SIDE * r) for r in region)
    return slice(top, bottom), slice(left, right)


def smooth(signal: NDArray[np.float64], width: int = 5) -> NDArray[np.float64]:
    """Running mean over `width` frames (odd) with repeated ends."""
    padded = np.pad(signal, width // 2, mode="edge")
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def spot_apex(faces: Gray, onset: int, least: float = QUIET) -> Spotted:
    """The apex alone, where the onset is annotated: the largest movement against it.

    The running mean is at most half of what follows the onset, so that expressions of a few frames, as at 30
    frames a second, keep their peak. InputError as `spot` has it.
    """
    rest = faces[onset:]
    if len(rest) < 3:
        raise InputError(
            f"spotting an apex needs at least 3 frames from the onset on, and there are {len(rest)}"
        )
    signal = movement(rest)
    width = min(5, max(1, (len(rest) - 1) // 2))
    level = smooth(signal[1:], width - 1 + width % 2)
    apex = int(np.argmax(level)) + 1
    must_move(float(level[apex - 1]), least)
    whole = np.concatenate([np.zeros(onset), signal])
    return Spotted(onset, onset + apex, "spotted", whole)


def must_move(rise: float, least: float) -> None:
    """InputError where the largest rise of movement, percent of the face width, is under `least`."""
    if rise < least:
        raise InputError(
            f"nothing moves in this clip: the strongest movement is {max(rise, 0):.3f} % of the face width, "
            f"under the {least} % that flow tells from camera noise"
        )


@dataclass(frozen=True, eq=False)
class Course:
    """Movement of one film of faces: signal [t] and rise in percent of the face width, onset and apex."""

    signal: NDArray[np.float64]
    rise: float
    onset: int
    apex: int


def course(faces: Gray) -> Course:
    """Where the largest movement of a film of faces, uint8 [t >= 3, side, side], begins and peaks."""
    signal = movement(faces)
    level = smooth(signal[1:])  # frame 0 against itself is exactly 0 and would set a floor no frame has
    apex = int(np.argmax(level)) + 1
    floor = float(level[:apex].min())
    rise = float(level[apex - 1]) - floor
    below = np.flatnonzero(level[: apex - 1] <= floor + RISE * rise)
    return Course(signal, rise, int(below[-1]) + 1 if len(below) else 0, apex)


def spot(faces: Gray, least: float = QUIET) -> Spotted:
    """Onset and apex of one clip of cropped faces, uint8 [t, side, side], by the largest movement.

    least: smallest rise that counts as movement, percent of the face width.
    InputError when fewer than three frames are given or nothing moves.
    """
    if len(faces) < 3:
        raise InputError(f"spotting an apex needs at least 3 frames, and the clip has {len(faces)}")
    found = course(faces)
    must_move(found.rise, least)
    return Spotted(found.onset, found.apex, "spotted", found.signal)


def choose(faces: Gray, how: str, onset: int | None, apex: int | None, least: float = QUIET) -> Spotted:
    """Decide onset and apex: `how` is auto (annotated, else spotted), annotated, middle or spotted.

    A given onset stays the onset, whatever the source of the apex.
    """
    if how not in CHOICES:
        raise InputError(f"unknown apex source {how!r}: choose one of {', '.join(CHOICES)}")
    nothing = np.zeros(0)
    if how in ("auto", "annotated") and apex is not None:
        first = 0 if onset is None else onset
        check_range(first, apex, len(faces))
        return Spotted(first, apex, "annotated", nothing)
    if how == "annotated":
        raise InputError("this clip has no annotated apex: use --apex spotted or --apex middle")
    if how == "middle":
        first, apex = onset or 0, len(faces) // 2
        check_range(first, apex, len(faces))
        return Spotted(first, apex, "middle", nothing)
    return spot(faces, least) if onset is None else spot_apex(faces, onset, least)
