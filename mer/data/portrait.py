"""A real photograph moved by known fields: clips whose true flow, strain, onset and apex are known.

The picture is `skimage.data.astronaut()`, NASA's portrait of Eileen Collins, in the public domain. It ships
inside scikit-image (merveil's extra `dev`), so nothing is downloaded and no picture is in this repository.
Used by tests and examples only.
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.motion import Landmarks
from merveil.mer.data.synthetic import Truth, animate, expose
from merveil.mer.extras import need
from merveil.mer.features.face import Box, levelling
from merveil.mer.features.opencv import opencv

LEFT, TOP, SIDE = 115, 4, 220  # the part of the photograph used, px
ENLARGE = 1.5
EYES, MOUTH, MOUTH_WIDTH = ((88.0, 97.0), (132.0, 99.0)), (109.0, 139.0), 40.0  # read off the photograph


def portrait() -> tuple[NDArray[np.float32], Landmarks]:
    """The still face, grey float32 [330, 330] in 0..255, and where its eyes and mouth are."""
    cv2 = opencv()
    photo = need("skimage.data", "dev").astronaut()
    part = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    still = cv2.resize(part, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    left, right = ((x * ENLARGE, y * ENLARGE) for x, y in EYES)
    marks = Landmarks(left, right, (MOUTH[0] * ENLARGE, MOUTH[1] * ENLARGE), MOUTH_WIDTH * ENLARGE)
    return still.astype(np.float32), marks


def head_mask(shape: tuple[int, int], marks: Landmarks) -> NDArray[np.float32]:
    """1 around the head, fading to 0 over a third of its radius: [h, w]."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    centre = np.add(marks.left_eye, marks.right_eye) / 2 + [0, 0.3 * marks.eye_distance]
    radius = np.hypot(x - centre[0], 0.85 * (y - centre[1])) / (2.1 * marks.eye_distance)
    return np.asarray(np.clip((1.3 - radius) / 0.3, 0, 1), dtype=np.float32)


def portrait_clip(
    label: int, seed: int = 0, *, strength: float = 1.5, noise: float = 1.0, drift: float = 0.01
) -> tuple[NDArray[np.uint8], int, int, Truth]:
    """One clip of the portrait with class `label`: frames uint8 [t, 330, 330], onset, apex, truth."""
    still, marks = portrait()
    rng = np.random.default_rng([seed, 21, label])
    moved, onset, apex, truth = animate(
        still, marks, head_mask(still.shape, marks), label, rng, strength=strength
    )
    return expose(moved, rng, noise=noise, drift=drift), onset, apex, truth


def flow_in_square(exact: NDArray[np.float32], box: Box, side: int) -> NDArray[np.float32]:
    """A true flow of whole frames, [h, w, 2] pixels, as seen in a face's level square: [side, side, 2].

    Vectors turn with the square and are in its pixels.
    """
    cv2 = opencv()
    matrix = levelling(box)
    square = cv2.warpAffine(exact, matrix, (box.side, box.side), borderMode=cv2.BORDER_REPLICATE)
    turned = square @ matrix[:, :2].T.astype(np.float32)
    return np.asarray(cv2.resize(turned * np.float32(side / box.side), (side, side)), dtype=np.float32)


def turn_film(frames: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """All frames turned clockwise about their middle, as by a camera held askew: uint8 [t, h, w]."""
    cv2 = opencv()
    height, width = frames.shape[1:]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    how = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    return np.stack([cv2.warpAffine(frame, turn, (width, height), **how) for frame in frames])
