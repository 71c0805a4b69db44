"""Candidate expressions in an ordinary video: windows of about a second, each with its own face and movement.

In each window the face is found and levelled anew on its first frame, so that a head may wander over the
video, and is one square within the window, so that no jitter is added. Nothing here knows of a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features import apex as apexes
from merveil.mer.features.extract import Extraction, Settings, extract_pair, find_face
from merveil.mer.features.face import Box, crop

Gray = NDArray[np.uint8]
SECONDS = 1.0  # of a window: a micro-expression, at most half a second, with what comes before and after
SHORTEST, LONGEST, UNKNOWN = 12, 250, 50  # frames of a window; the last where no frame rate is known
QUIET, BLIND, MOVING, RETURN = "quiet", "no face", "moving", "return"
ASTRAY = 0.35  # of the face's side: a face further from its window's square is another, or has turned away
BACK = 0.5  # a face is back where it was when less than this share of the movement is left


@dataclass(frozen=True, eq=False)
class Window:
    """Frames start to stop - 1 and what is in them: state moving | quiet | no face | return (a face
    that relaxes from an expression which an earlier window shows).

    rise: movement in percent of the face width (0 where no face). signal: [stop - start] likewise, empty
    where there is no face. onset, apex: frame numbers of the film, where something moves.
    """

    start: int
    stop: int
    state: str
    rise: float
    signal: NDArray[np.float64]
    onset: int = -1
    apex: int = -1
    source: str = "spotted"
    box: Box | None = None
    aligned: str = "none"


def length_of(fps: float | None, frames: int, wanted: int | None = None) -> int:
    """Frames of a window: as wanted, else one second; a film of up to one and a half is one window."""
    if wanted is not None:
        if wanted < 3:
            raise InputError(f"--window must be at least 3 frames, not {wanted}")
        length = wanted
    else:
        length = UNKNOWN if fps is None else min(max(round(SECONDS * fps), SHORTEST), LONGEST)
    return frames if frames <= 1.5 * length else length


def look(film: Gray, settings: Settings, length: int, least: float = apexes.QUIET) -> list[Window]:
    """Overlapping windows over a film, uint8 [t, h, w], half a window apart; the last one ends with the film.

    least: smallest rise that counts as movement, percent of the face width.
    InputError: no face in any window (with the detector's reason), or fewer than 3 frames.
    """
    if len(film) < 3:
        raise InputError(f"spotting an apex needs at least 3 frames, and the clip has {len(film)}")
    last = max(len(film) - length, 0)
    starts = sorted({*range(0, last + 1, max(length // 2, 1)), last})
    windows, why = [], None
    for start in starts:
        stop = min(start + length, len(film))
        try:
            box, aligned = find_face(film[start], settings)
        except InputError as error:
            why = why or error
            windows.append(Window(start, stop, BLIND, 0.0, np.zeros(0)))
            continue
        windows.append(_window(film[start:stop], start, box, aligned, settings, least))
    if why is not None and all(w.state == BLIND for w in windows):
        raise why
    windows = [_face_stays(film, w, settings) for w in windows]
    back = [any(_returns(film, w, u, settings) for u in windows) for w in windows]
    return [replace(w, state=RETURN) if b else w for w, b in zip(windows, back, strict=True)]


def _face_stays(film: Gray, window: Window, settings: Settings) -> Window:
    """A moving window whose face is still there at the apex; else it is one without a face: a cut, or a head
    that turns away, moves more than any expression."""
    if window.state != MOVING or window.box is None:
        return window
    try:
        now, _ = find_face(film[window.apex], settings)
    except InputError:
        return replace(window, state=BLIND, rise=0.0, signal=np.zeros(0))
    gone = np.hypot(*np.subtract(now.centre, window.box.centre)) > ASTRAY * window.box.side
    return replace(window, state=BLIND, rise=0.0, signal=np.zeros(0)) if gone else window


def _returns(film: Gray, window: Window, earlier: Window, settings: Settings) -> bool:
    """Whether a window's movement is the way back of an expression that an earlier, overlapping one shows.

    A window that begins within an expression takes it for the face at rest, and relaxing for a movement. At
    its apex the face is then nearly as it was at the earlier onset.
    """
    if window.state != MOVING or earlier.state != MOVING or earlier.box is None:
        return False
    if not (earlier.start < window.start < earlier.stop and earlier.apex < window.apex):
        return False
    pair = crop(film[[earlier.onset, window.apex]], earlier.box, settings.crop)
    level = apexes.smooth(earlier.signal)[1 : earlier.apex - earlier.start + 1]
    left = float(apexes.movement(pair)[1]) - float(level.min())
    return left < BACK * earlier.rise


def _window(frames: Gray, start: int, box: Box, aligned: str, settings: Settings, least: float) -> Window:
    stop = start + len(frames)
    found = apexes.course(crop(frames, box, settings.crop))
    state = MOVING if found.rise >= least else QUIET
    onset, apex, source = found.onset, found.apex, "spotted"
    if settings.apex == "middle":
        onset, apex, source = 0, len(frames) // 2, "middle"
    return Window(
        start, stop, state, found.rise, found.signal, start + onset, start + apex, source, box, aligned
    )


def candidates(windows: Sequence[Window], length: int) -> list[Window]:
    """The moving windows, without those whose apex is within half a window of a stronger one's; in time."""
    kept: list[Window] = []
    for window in sorted((w for w in windows if w.state == MOVING), key=lambda w: -w.rise):
        if all(abs(window.apex - other.apex) >= max(length // 2, 1) for other in kept):
            kept.append(window)
    return sorted(kept, key=lambda w: w.apex)


def features_of(film: Gray, window: Window, settings: Settings) -> Extraction:
    """The features of a moving window, its frames numbered as in the film."""
    if window.box is None or window.state != MOVING:
        raise ValueError(f"a {window.state} window has no features")
    spotted = apexes.Spotted(window.onset, window.apex, window.source, window.signal)
    pair = film[[window.onset, window.apex]]
    return extract_pair(pair, window.box, window.aligned, spotted, settings)
