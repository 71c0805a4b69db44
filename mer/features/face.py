"""Find the face on the onset frame, and cut one square, turned level, out of every frame of the clip.

Detecting on each frame anew would add jitter larger than a micro-expression. The detector is OpenCV's Haar
cascade, shipped with the wheel: no download. It finds upright frontal faces; merveil.mer.features.align finds
how far a face is turned.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.opencv import cascade_path, opencv

Gray = NDArray[np.uint8]
# Tried in this order until one finds a face: strict first, so that an easy face is not a loose match.
ATTEMPTS = (
    ("haarcascade_frontalface_alt2.xml", 4),
    ("haarcascade_frontalface_default.xml", 4),
    ("haarcascade_frontalface_alt2.xml", 1),
)
SCALE_STEP = 1.05
EYE_STEP = 1.1  # of the search for eyes, whose size in a square is known: half the time
MIN_FACE = 40  # px; a smaller face has movements of a tenth of a pixel, below what flow resolves
EYE_ROW = 0.38  # height of the eyes in the square, as a share of its side (Viola-Jones training crops)
EYE_GAP = 0.42  # distance of the eye centres, likewise


@dataclass(frozen=True)
class Box:
    """A square in frame pixels: left, top and side before it is turned by `angle` degrees about its centre.

    A positive angle is clockwise as seen: the eye at the right of the picture is the lower one.
    """

    x: int
    y: int
    side: int
    angle: float = 0.0

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2


@lru_cache(maxsize=8)
def _cascade(name: str) -> Any:
    return opencv().CascadeClassifier(str(cascade_path(name)))


def detect(gray: Gray) -> Box:
    """The largest frontal face of one grey frame, as an upright square; InputError when there is none.

    gray: uint8 [h, w].
    """
    box = seek(gray)
    if box is None:
        raise no_face(gray)
    return box


def least(gray: Gray) -> int:
    """Side in pixels of the smallest face that is looked for."""
    return max(MIN_FACE, min(gray.shape) // 8)


def no_face(gray: Gray) -> InputError:
    return InputError(
        f"no face was found on the onset frame ({gray.shape[1]}x{gray.shape[0]} px, smallest face looked "
        f"for: {least(gray)} px): use an upright frontal face, or pass --face full for frames already cropped"
    )


def seek(gray: Gray, limit: int | None = None) -> Box | None:
    """The largest frontal face of a frame, upright, or None; limit: side of the smallest looked for, px."""
    limit = least(gray) if limit is None else limit
    for name, neighbours in ATTEMPTS:
        found = _cascade(name).detectMultiScale(
            gray, scaleFactor=SCALE_STEP, minNeighbors=neighbours, minSize=(limit, limit)
        )
        if len(found):
            x, y, width, height = max((tuple(map(int, row)) for row in found), key=lambda r: (r[2], r))
            return Box(x, y, max(width, height))
    return None


def whole(gray: Gray) -> Box:
    """The largest centred square of a frame that is already a face crop."""
    height, width = gray.shape
    side = min(height, width)
    return Box((width - side) // 2, (height - side) // 2, side)


def crop(frames: Gray, box: Box, side: int) -> Gray:
    """Cut the same square out of every frame and resize it: uint8 [t, h, w] -> uint8 [t, side, side].

    A turned square is turned level at full size first, so that shrinking still takes area means. Parts of the
    square outside the frame repeat the border.
    """
    cv2 = opencv()
    if box.angle:
        turn, size = levelling(box), (box.side, box.side)
        frames = np.stack(
            [
                cv2.warpAffine(f, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
                for f in frames
            ]
        )
        box = Box(0, 0, box.side)
    height, width = frames.shape[1:]
    pad = max(0, -box.x, -box.y, box.x + box.side - width, box.y + box.side - height)
    how = cv2.INTER_AREA if box.side > side else cv2.INTER_CUBIC
    out = np.empty((len(frames), side, side), dtype=np.uint8)
    for index, frame in enumerate(frames):
        if pad:
            frame = cv2.copyMakeBorder(frame, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        top, left = box.y + pad, box.x + pad
        part = np.ascontiguousarray(frame[top : top + box.side, left : left + box.side])
        out[index] = part if box.side == side else cv2.resize(part, (side, side), interpolation=how)
    return out


def levelling(box: Box) -> NDArray[np.float64]:
    """The 2x3 matrix that maps frame pixels to pixels of the level square, its scale kept."""
    x, y = box.centre
    turn = np.asarray(opencv().getRotationMatrix2D((x, y), box.angle, 1.0), dtype=np.float64)
    turn[:, 2] += box.side / 2 - np.array([x, y])
    return turn


def eyes(square: Gray) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Centres (x, y) of the two eyes of a cropped face, left of the picture first; None where not found.

    One eye is looked for in each upper quarter; the pair must be roughly level (20 degrees) and plausibly far
    apart.
    """
    side = square.shape[0]
    centres = []
    for left in (0, side // 2):
        top, bottom = int(0.2 * side), int(0.55 * side)
        found = _cascade("haarcascade_eye.xml").detectMultiScale(
            np.ascontiguousarray(square[top:bottom, left : left + side // 2]),
            scaleFactor=EYE_STEP,
            minNeighbors=2,
            minSize=(side // 10, side // 10),
            maxSize=(side // 2, side // 3),
        )
        if not len(found):
            return None
        x, y, w, h = max((tuple(map(int, row)) for row in found), key=lambda r: (r[2], r))
        centres.append((left + x + w / 2, top + y + h / 2))
    gap = float(np.hypot(centres[1][0] - centres[0][0], centres[1][1] - centres[0][1]))
    level = abs(centres[1][1] - centres[0][1]) < 0.15 * side
    return (centres[0], centres[1]) if level and 0.25 * side < gap < 0.65 * side else None


def eye_distance(square: Gray) -> float:
    """Distance of the two eye centres in a cropped face, in its pixels; InputError when not found."""
    pair = eyes(square)
    if pair is None:
        raise InputError("the two eyes were not found in the face: use --unit face, which needs no eyes")
    return float(np.hypot(pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]))
