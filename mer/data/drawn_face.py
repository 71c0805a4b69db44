"""A drawn grey face with shading, brows, eyes, nose, mouth, hair and skin texture; identity varies by seed.

It is a stand-in for tests and the demo, so that real video frames run through detection, flow and features
without any person's picture. It is no model of how people look.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from merveil.mer.data.motion import Landmarks
from merveil.mer.features.opencv import opencv

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Identity:
    """Lengths in shares of the picture's side; greys 0..255."""

    face_width: float
    face_height: float
    eye_gap: float
    eye_row: float
    eye_size: float
    brow_lift: float
    brow_weight: float
    brow_tilt: float
    nose_width: float
    mouth_row: float
    mouth_width: float
    lip_weight: float
    skin: float
    hair: float
    iris: float
    light: tuple[float, float]
    texture_seed: int


def draw_identity(rng: np.random.Generator) -> Identity:
    """One person; every draw is independent of the others' order only through this fixed list."""
    u = rng.uniform
    return Identity(
        face_width=u(0.26, 0.295),
        face_height=u(0.36, 0.41),
        eye_gap=u(0.245, 0.285),
        eye_row=u(0.435, 0.465),
        eye_size=u(0.050, 0.062),
        brow_lift=u(0.062, 0.082),
        brow_weight=u(0.011, 0.019),
        brow_tilt=u(-0.15, 0.15),
        nose_width=u(0.045, 0.062),
        mouth_row=u(0.715, 0.755),
        mouth_width=u(0.175, 0.225),
        lip_weight=u(0.014, 0.024),
        skin=u(135, 195),
        hair=u(25, 75),
        iris=u(30, 75),
        light=(u(-0.35, 0.35), u(-0.25, 0.1)),
        texture_seed=int(rng.integers(2**31)),
    )


def landmarks(person: Identity, side: int) -> Landmarks:
    half = person.eye_gap / 2
    return Landmarks(
        left_eye=((0.5 - half) * side, person.eye_row * side),
        right_eye=((0.5 + half) * side, person.eye_row * side),
        mouth=(0.5 * side, person.mouth_row * side),
        mouth_width=person.mouth_width * side,
    )


def head_mask(person: Identity, side: int) -> Image:
    """1 on the head, 0 on the background, with a soft edge outside the hair: [side, side]."""
    x, y = _grid(side)
    radius = np.hypot(x / (person.face_width * 1.25), (y - 0.04) / (person.face_height * 1.25))
    return _step(1.18 - radius, 0.06)


def _grid(side: int) -> tuple[Image, Image]:
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    x, y = np.meshgrid(axis, axis)
    return x, y


def _step(value: Image, soft: float) -> Image:
    return np.asarray(0.5 * (1 + np.tanh(value / soft)), dtype=np.float32)


def _blob(x: Image, y: Image, at: tuple[float, float], size: tuple[float, float]) -> Image:
    return np.asarray(
        np.exp(-0.5 * (((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2)), dtype=np.float32
    )


def _texture(side: int, seed: int) -> Image:
    """Pores and blotches at three scales, mean 0, so that flow has something to hold on to everywhere."""
    cv2 = opencv()
    rng = np.random.default_rng([seed, 1])
    total = np.zeros((side, side), dtype=np.float32)
    for sigma, weight in ((0.9, 3.0), (2.2, 3.5), (6.0, 3.5)):
        noise = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), sigma)
        total += weight * noise / noise.std()
    return total


def draw_face(person: Identity, side: int) -> Image:
    """The still picture of one person, grey float32 [side, side] in 0..255."""
    x, y = _grid(side)
    picture = 95 + 25 * y + 12 * np.sin(9 * x + 4 * y)
    picture = _paint(picture, _hair(person, x, y), person.hair + 10 * np.sin(60 * x + 12 * y))
    radius = np.hypot(x / person.face_width, (y - 0.045) / person.face_height)
    shade = 1 + person.light[0] * x * 1.6 + person.light[1] * y - 0.22 * radius**2
    skin = person.skin * shade
    skin = skin + 14 * _blob(x, y, (0, -0.21), (0.14, 0.06)) - 16 * _blob(x, y, (0, 0.36), (0.12, 0.03))
    for sign in (-1, 1):
        skin = skin + 9 * _blob(x, y, (sign * 0.14, 0.09), (0.06, 0.05))  # cheeks
    picture = _paint(picture, _step(1 - radius, 0.035), skin)
    for sign in (-1, 1):
        picture = _eye(picture, person, x, y, sign)
    picture = _mouth(_nose(picture, person, x, y), person, x, y)
    picture = picture + _texture(side, person.texture_seed)
    return np.clip(picture, 0, 255).astype(np.float32)


def _paint(under: Image, mask: Image, over: Image) -> Image:
    return np.asarray(under * (1 - mask) + over * mask, dtype=np.float32)


def _hair(person: Identity, x: Image, y: Image) -> Image:
    cap = np.hypot(x / (person.face_width * 1.14), (y + 0.02) / (person.face_height * 1.10))
    return _step(1 - cap, 0.04) * _step(0.16 - y, 0.05)


def _eye(picture: Image, person: Identity, x: Image, y: Image, sign: int) -> Image:
    half = person.eye_gap / 2
    dx, dy = (x - sign * half) * sign, y - (person.eye_row - 0.5)  # dx points outwards
    size = person.eye_size
    picture = picture - 38 * _blob(dx, dy, (-0.01, -0.012), (size * 1.1, size * 0.62))  # socket
    opening = _step(1 - np.hypot(dx / size, dy / (size * 0.45)), 0.12)
    picture = _paint(picture, opening, np.float32(min(225.0, person.skin + 45)))
    iris = _step(1 - np.hypot(dx, dy) / (size * 0.42), 0.12) * opening
    picture = _paint(picture, iris, np.float32(person.iris))
    lid = _blob(
        dx, dy + 0.45 * size * np.sqrt(np.clip(1 - (dx / size) ** 2, 0, 1)), (0, 0), (size * 0.9, 0.006)
    )
    picture = picture - 75 * lid * _step(1.05 - np.abs(dx) / size, 0.08)
    brow_y = dy + person.brow_lift + person.brow_tilt * dx + 1.6 * dx**2
    along = _step(1 - np.abs(dx - 0.005) / (size * 1.35), 0.15)
    hairs = 1 + 0.25 * np.sin(260 * dx + 120 * dy)
    brow = along * np.exp(-0.5 * (brow_y / person.brow_weight) ** 2) * hairs
    return _paint(picture, np.clip(brow, 0, 1), np.float32(person.hair))


def _nose(picture: Image, person: Identity, x: Image, y: Image) -> Image:
    tip = 0.42 * (person.eye_row - 0.5) + 0.58 * (person.mouth_row - 0.5)
    middle = 0.5 * (person.eye_row - 0.5) + 0.5 * tip
    picture = (
        picture + 20 * _blob(x, y, (0, middle), (0.016, 0.07)) + 16 * _blob(x, y, (0, tip), (0.025, 0.02))
    )
    for sign in (-1, 1):
        picture = picture - 14 * _blob(x, y, (sign * 0.035, middle), (0.014, 0.06))
        picture = picture - 50 * _blob(x, y, (sign * person.nose_width * 0.55, tip + 0.03), (0.013, 0.008))
        picture = picture - 22 * _blob(x, y, (sign * person.nose_width, tip + 0.01), (0.010, 0.02))
        picture = picture - 9 * _blob(x, y, (sign * 0.105, tip + 0.05), (0.012, 0.05))  # fold to the mouth
    return picture


def _mouth(picture: Image, person: Identity, x: Image, y: Image) -> Image:
    row, half = person.mouth_row - 0.5, person.mouth_width / 2
    taper = np.clip(1 - (x / half) ** 2, 0, 1)
    line = row + 0.006 * np.cos(x / half * np.pi)
    upper = np.exp(-0.5 * ((y - line + 0.55 * person.lip_weight) / (person.lip_weight * 0.6)) ** 2) * taper
    lower = np.exp(-0.5 * ((y - line - 0.7 * person.lip_weight) / (person.lip_weight * 0.75)) ** 2) * taper
    picture = picture - 42 * upper - 26 * lower
    picture = picture - 70 * np.exp(-0.5 * ((y - line) / 0.005) ** 2) * _step(1 - np.abs(x) / half, 0.06)
    return picture - 22 * _blob(x, y, (0, row + 0.062), (0.06, 0.012))
