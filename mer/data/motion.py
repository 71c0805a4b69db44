"""Movements of a face: action-unit displacement fields, head motion, and the true flow between frames.

A frame is rendered by looking each of its pixels up in a still picture: frame(p) = still(p - D(p)) with
D(p) = head(p) + intensity * expression(p). Since D is known exactly, so is the flow between any two
frames, which is what tests compare estimates with. Fields are [h, w, 2] float32, x then y, in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from merveil.mer.features.opencv import opencv

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Landmarks:
    """Where a face is, in pixels of the still picture; lengths of the action units are in eye distances."""

    left_eye: tuple[float, float]  # the eye at the left of the picture
    right_eye: tuple[float, float]
    mouth: tuple[float, float]
    mouth_width: float

    @property
    def eye_distance(self) -> float:
        return float(np.hypot(*np.subtract(self.right_eye, self.left_eye)))


@dataclass(frozen=True)
class Patch:
    """One Gaussian patch of an action unit, mirrored to the other side of the face unless central.

    anchor: eyes | corner | mouth | nose; at, sigma, move: (x, y) in eye distances, x pointing outwards from
    the middle of the face, y down. `move` is the displacement at the centre for intensity 1.
    """

    anchor: str
    at: tuple[float, float]
    sigma: tuple[float, float]
    move: tuple[float, float]
    central: bool = False


# Directions after the Facial Action Coding System (Ekman, Friesen, Hager 2002); places and sizes are ours.
ACTION_UNITS: Mapping[str, tuple[Patch, ...]] = {
    "AU1+2": (
        Patch("eyes", (-0.15, -0.34), (0.28, 0.20), (0.0, -1.0)),
        Patch("eyes", (0.25, -0.32), (0.25, 0.20), (0.0, -0.8)),
    ),
    "AU4": (Patch("eyes", (-0.22, -0.30), (0.25, 0.18), (-0.55, 0.85)),),
    "AU5": (Patch("eyes", (0.0, -0.08), (0.20, 0.09), (0.0, -0.6)),),
    "AU6": (Patch("eyes", (0.12, 0.42), (0.28, 0.20), (-0.1, -0.65)),),
    "AU9": (Patch("nose", (0.14, -0.15), (0.14, 0.18), (0.0, -0.7)),),
    "AU10": (Patch("mouth", (0.18, -0.16), (0.18, 0.12), (0.0, -0.75)),),
    "AU12": (Patch("corner", (0.03, 0.0), (0.24, 0.22), (0.75, -0.75)),),
    "AU14": (Patch("corner", (0.0, 0.0), (0.16, 0.14), (0.55, 0.0)),),
    "AU15": (Patch("corner", (0.02, 0.05), (0.20, 0.20), (0.05, 0.85)),),
    "AU17": (Patch("mouth", (0.0, 0.36), (0.28, 0.16), (0.0, -0.7), central=True),),
    "AU26": (Patch("mouth", (0.0, 0.32), (0.42, 0.26), (0.0, 0.9), central=True),),
    "blink": (Patch("eyes", (0.0, -0.04), (0.18, 0.07), (0.0, 1.0)),),
}


@lru_cache(maxsize=4)
def _grid(shape: tuple[int, int]) -> tuple[Field, Field]:
    """x and y of every pixel, read-only and shared, since each frame of a clip asks for them."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def expression(
    shape: tuple[int, int], marks: Landmarks, units: Mapping[str, float], balance: float = 0.0
) -> Field:
    """Forward displacement of a mix of action units, [h, w, 2] pixels, at a face in `marks`.

    units: name -> peak displacement in pixels (of its unit-length moves). balance in [-1, 1] shifts
    strength from the left side of the picture to the right.
    """
    x, y = _grid(shape)
    axis = np.subtract(marks.right_eye, marks.left_eye) / marks.eye_distance  # the face's own x direction
    field = np.zeros((*shape, 2), dtype=np.float32)
    for name, strength in units.items():
        for patch in ACTION_UNITS[name]:
            for side in (1,) if patch.central else (-1, 1):
                share = 1.0 + side * balance
                field += strength * share * _bump(x, y, axis, marks, patch, side)
    return field


def _bump(x: Field, y: Field, axis: NDArray[np.float64], marks: Landmarks, patch: Patch, side: int) -> Field:
    unit = marks.eye_distance
    down = np.array([-axis[1], axis[0]])
    middle = np.add(marks.left_eye, marks.right_eye) / 2
    anchor = {
        "eyes": np.asarray(marks.right_eye if side > 0 else marks.left_eye),
        "nose": middle + 0.45 * (np.asarray(marks.mouth) - middle),
        "mouth": np.asarray(marks.mouth),
        "corner": np.asarray(marks.mouth) + side * axis * marks.mouth_width / 2,
    }[patch.anchor]
    centre = anchor + unit * (side * patch.at[0] * axis + patch.at[1] * down)
    across = ((x - centre[0]) * axis[0] + (y - centre[1]) * axis[1]) / (unit * patch.sigma[0])
    along = ((x - centre[0]) * down[0] + (y - centre[1]) * down[1]) / (unit * patch.sigma[1])
    weight = np.exp(-0.5 * (across**2 + along**2))
    move = side * patch.move[0] * axis + patch.move[1] * down
    return (weight[..., None] * move).astype(np.float32)


def rigid(shape: tuple[int, int], centre: tuple[float, float], pose: Sequence[float]) -> Field:
    """Forward displacement of a small head motion: pose = (shift x, shift y, turn in radians, growth)."""
    x, y = _grid(shape)
    dx, dy = x - centre[0], y - centre[1]
    shift_x, shift_y, turn, growth = (float(p) for p in pose)
    # Plain floats: a numpy float64 would turn the float32 pictures into float64.
    cos, sin = float((1 + growth) * np.cos(turn)), float((1 + growth) * np.sin(turn))
    return np.stack(
        [shift_x + (cos - 1) * dx - sin * dy, shift_y + sin * dx + (cos - 1) * dy], axis=-1
    ).astype(np.float32)


def render(still: NDArray[np.float32], displacement: Field) -> NDArray[np.float32]:
    """frame(p) = still(p - displacement(p)), bicubic; the border repeats. [h, w] -> [h, w]."""
    cv2 = opencv()
    height, width = still.shape
    x, y = _grid((height, width))
    return np.asarray(
        cv2.remap(
            still,
            x - displacement[..., 0],
            y - displacement[..., 1],
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        dtype=np.float32,
    )


def true_flow(first: Field, second: Field, rounds: int = 12) -> Field:
    """Exact flow between two rendered frames, from the displacements that rendered them.

    A point at p in the first frame shows still(p - first(p)); in the second it is at the q with
    q - second(q) = p - first(p), found by fixed-point iteration (contracts while gradients stay under 1;
    ours are under 0.2, so 12 rounds leave less than 1e-6 px).
    """
    cv2 = opencv()
    height, width = first.shape[:2]
    x, y = _grid((height, width))
    source_x, source_y = x - first[..., 0], y - first[..., 1]
    at = second
    for _ in range(rounds):
        at = cv2.remap(
            second,
            source_x + at[..., 0],
            source_y + at[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return np.stack([source_x + at[..., 0] - x, source_y + at[..., 1] - y], axis=-1).astype(np.float32)
