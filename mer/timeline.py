"""A picture of a whole video: how much the face moves over time, and what a model says of each window."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.features.apex import QUIET
from merveil.mer.features.opencv import opencv
from merveil.mer.predict import NOT_SURE, Prediction
from merveil.mer.preview import HIGHLIGHT, INK, PALE, PAPER, Picture, write_text
from merveil.mer.windows import BLIND, RETURN, Window

LEFT, RIGHT, TOP = 60, 14, 34  # px of margin
CURVE, BAND, FOOT = 110, 90, 40  # px: movement, probabilities, axis
BACK_INK = (205, 180, 160)  # of windows in which a face only returns to rest
COLOURS = ((176, 92, 28), (60, 150, 60), (40, 60, 200), (150, 60, 140), (40, 150, 190), (120, 120, 120))


def timeline(found: Prediction, width: int) -> Picture:
    """Movement of every window over time above, the class probabilities of each moving window below.

    uint8 [h, width, 3], BGR. Grey ground where no face was found; a mark at the apex of each candidate.
    """
    area = np.full((TOP + CURVE + BAND + FOOT, width, 3), PAPER, dtype=np.uint8)
    total = len(found.film.frames)
    scale = (width - LEFT - RIGHT) / max(total - 1, 1)
    write_text(area, _legend(found), (10, 18))
    _curves(area, found, scale)
    _bands(area, found, scale)
    for answer in found.answers:
        x = LEFT + round(answer.window.apex * scale)
        ink = HIGHLIGHT if answer.sure else INK
        opencv().line(area, (x, TOP), (x, TOP + CURVE + BAND), ink, 1, opencv().LINE_AA)
        at = min(max(x - 30, 2), width - 90)
        write_text(area, answer.word, (at, TOP + CURVE + BAND + 14), 0.38, ink)
    _axis(area, found, scale, total)
    return area


def _legend(found: Prediction) -> str:
    blind = sum(w.state == BLIND for w in found.windows)
    text = f"movement, % of face (dashed: {QUIET})"
    return text + (f"; no face in {blind} of {len(found.windows)} windows" if blind else "")


def _curves(area: Picture, found: Prediction, scale: float) -> None:
    cv2 = opencv()
    floor = TOP + CURVE
    highest = max((float(w.signal.max()) for w in found.windows if len(w.signal)), default=1.0)
    highest = max(highest, 2 * QUIET)
    for window in found.windows:
        if window.state == BLIND:
            first, last = (LEFT + round(n * scale) for n in (window.start, window.stop - 1))
            cv2.rectangle(area, (first, TOP), (last, floor), PALE, -1)
    quiet = floor - round(CURVE * QUIET / highest)
    for x in range(LEFT, area.shape[1] - RIGHT, 8):
        cv2.line(area, (x, quiet), (x + 3, quiet), PALE, 1)
    for window in found.windows:
        if len(window.signal):
            ink = BACK_INK if window.state == RETURN else HIGHLIGHT
            cv2.polylines(area, [_points(window, scale, floor, highest)], False, ink, 1, cv2.LINE_AA)
    write_text(area, f"{highest:.2f}", (8, TOP + 10), 0.38)
    write_text(area, "0", (44, floor), 0.38)


def _points(window: Window, scale: float, floor: int, highest: float) -> NDArray[Any]:
    x = LEFT + (window.start + np.arange(len(window.signal))) * scale
    return np.stack([x, floor - CURVE * window.signal / highest], axis=1).round().astype(np.int32)


def _bands(area: Picture, found: Prediction, scale: float) -> None:
    """One row a class; each moving window's probability as the darkness of its colour over its frames."""
    row = BAND // len(found.classes)
    for index, name in enumerate(found.classes):
        top = TOP + CURVE + 4 + index * row
        colour = np.array(COLOURS[index % len(COLOURS)], dtype=np.float32)
        deepest: dict[int, float] = {}
        for answer in found.course:
            share = float(answer.probabilities[index])
            middle = answer.window.apex
            half = max((answer.window.stop - answer.window.start) // 4, 1)
            for frame in range(
                max(middle - half, answer.window.start), min(middle + half, answer.window.stop)
            ):
                deepest[frame] = max(deepest.get(frame, 0.0), share)
        for frame, share in deepest.items():
            x, end = LEFT + round(frame * scale), LEFT + round((frame + 1) * scale)
            area[top : top + row - 3, x : max(end, x + 1)] = np.rint(255 + share * (colour - 255))
        write_text(area, name[:9], (2, top + row // 2 + 2), 0.34)


def _axis(area: Picture, found: Prediction, scale: float, total: int) -> None:
    base = area.shape[0] - 8
    fps = found.film.fps
    for frame in np.linspace(0, total - 1, min(8, total)).round().astype(int).tolist():
        text = f"{frame}" if fps is None else f"{frame / fps:.2f} s"
        write_text(area, text, (min(LEFT + round(frame * scale) - 8, area.shape[1] - 60), base), 0.36)
    if any(a.word == NOT_SURE for a in found.answers):
        write_text(area, "not sure: under the model's threshold", (area.shape[1] - 270, 18), 0.38)
