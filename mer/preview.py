"""Pictures of one clip's way through the features: frames, flow, strain, u, v; and of a prediction.

Drawn with OpenCV alone, as uint8 [h, w, 3] in OpenCV's BGR order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.atomic import writing
from merveil.mer.features.apex import Spotted, movement
from merveil.mer.features.extract import Extraction, to_gray
from merveil.mer.features.face import crop
from merveil.mer.features.opencv import opencv

Picture = NDArray[np.uint8]
TILE = 280  # px, the side of one panel
BAR = 26  # px, its title
INK, PAPER, PALE = (40, 40, 40), (255, 255, 255), (214, 208, 200)
HIGHLIGHT = (176, 92, 28)
SAFE = 1e-6  # keeps a still clip from dividing by zero


def contact_sheet(made: Extraction, title: str, first: int = 0) -> Picture:
    """Six panels: onset, apex, flow with arrows, strain, v, u; ranges are written in the titles.

    first: number of the clip's first frame.
    """
    spotted = made.spotted
    side = made.flow.shape[0]
    percent = 100.0 / side
    reach = float(np.percentile(np.hypot(made.flow[..., 0], made.flow[..., 1]), 99.5))
    strain = float(np.percentile(made.strain, 99.5))
    panels = [
        panel(f"onset: frame {first + spotted.onset}", _gray(made.onset_face)),
        panel(f"apex: frame {first + spotted.apex} ({spotted.source})", _gray(made.apex_face)),
        panel(f"flow, longest {reach * percent:.2f} % of face", _flow(made, reach)),
        panel(f"strain, 0 to {strain * 100:.1f} %", heat(made.strain, strain)),
        panel(f"v (down red), +-{reach * percent:.2f} %", signed(made.flow[..., 1], reach)),
        panel(f"u (right red), +-{reach * percent:.2f} %", signed(made.flow[..., 0], reach)),
    ]
    grid = np.vstack([np.hstack(panels[:3]), np.hstack(panels[3:])])
    return np.vstack([_caption(title, grid.shape[1]), grid])


def film_of(frames: NDArray[np.uint8], made: Extraction) -> NDArray[np.uint8]:
    """All frames of a clip cut to the square of its features: uint8 [t, c, c]."""
    return crop(to_gray(frames), made.box, made.flow.shape[0])


def prepared_sheet(made: Extraction, title: str, film: NDArray[np.uint8], first: int = 0) -> Picture:
    """The contact sheet with eight frames of the clip above and its apex curve below.

    film: [t, c, c]. first: the number of its first frame in the names of files.
    """
    sheet = contact_sheet(made, title, first)
    width = sheet.shape[1]
    head, rest = sheet[:36], sheet[36:]
    signal = made.spotted.signal if len(made.spotted.signal) else movement(film)
    bottom = _course(made, width, 190, signal, first)
    return np.vstack([head, _strip(film, width, made.spotted.onset, made.spotted.apex, first), rest, bottom])


def _strip(film: NDArray[np.uint8], width: int, onset: int, apex: int, first: int) -> Picture:
    """Eight frames spread over the clip, onset and apex among them, with their numbers."""
    cv2 = opencv()
    chosen = sorted({onset, apex, *np.linspace(0, len(film) - 1, 6).round().astype(int).tolist()})
    side = width // 8
    strip = np.full((side + BAR, width, 3), PAPER, dtype=np.uint8)
    for place, index in enumerate(chosen):
        x = place * side
        small = cv2.resize(film[index], (side - 4, side - 4), interpolation=cv2.INTER_AREA)
        strip[BAR : BAR + side - 4, x + 2 : x + side - 2] = small[..., None]
        mark = "onset " if index == onset else "apex " if index == apex else ""
        write_text(strip, f"{mark}{first + index}", (x + 4, BAR - 9), 0.38, HIGHLIGHT if mark else INK)
    return strip


def prediction_sheet(
    made: Extraction, title: str, classes: Sequence[str], probabilities: Sequence[float], start: int = 0
) -> Picture:
    """The contact sheet with the class probabilities and the movement over time below.

    start: the film's frame at which the movement signal of `made` begins.
    """
    sheet = contact_sheet(made, title)
    width = sheet.shape[1]
    left = _bars(classes, probabilities, width // 2, 190)
    right = _course(made, width - width // 2, 190, made.spotted.signal, start, made.spotted)
    return np.vstack([sheet, np.hstack([left, right])])


def panel(title: str, picture: Picture) -> Picture:
    """A square picture enlarged to one tile, under its title, with a thin border of paper."""
    cv2 = opencv()
    inside = TILE - 8
    big = cv2.resize(picture, (inside, inside), interpolation=cv2.INTER_CUBIC)
    tile = np.full((TILE + BAR, TILE, 3), PAPER, dtype=np.uint8)
    tile[BAR : BAR + inside, 4 : 4 + inside] = big
    write_text(tile, title, (6, BAR - 9))
    return tile


def heat(values: NDArray[np.float32], top: float) -> Picture:
    """Non-negative values as colours, black 0 to pale `top`."""
    cv2 = opencv()
    level = np.clip(values / max(top, SAFE) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO))


def signed(values: NDArray[np.float32], reach: float) -> Picture:
    """Values in -reach..reach as blue (negative), white (0), red (positive)."""
    share = np.clip(values / max(reach, SAFE), -1, 1)[..., None]
    up = np.array([40, 40, 200], dtype=np.float32)
    down = np.array([190, 90, 30], dtype=np.float32)
    end = np.where(share > 0, up, down)
    return np.rint(255 + np.abs(share) * (end - 255)).astype(np.uint8)


def _gray(frame: NDArray[np.uint8]) -> Picture:
    return np.asarray(opencv().cvtColor(frame, opencv().COLOR_GRAY2BGR))


def _flow(made: Extraction, reach: float) -> Picture:
    """Direction as hue and size as strength over the dimmed face, with arrows on a grid of 14 x 14."""
    cv2 = opencv()
    u, v = made.flow[..., 0], made.flow[..., 1]
    share = np.clip(np.hypot(u, v) / max(reach, SAFE), 0, 1)
    hue = (np.degrees(np.arctan2(v, u)) % 360 / 2).astype(np.uint8)
    hsv = np.dstack([hue, np.full_like(hue, 200), np.full_like(hue, 235)])
    face = _gray(made.onset_face).astype(np.float32) * 0.55 + 70
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.float32)
    mixed = face * (1 - 0.75 * share[..., None]) + colour * 0.75 * share[..., None]
    inside = TILE - 8
    big = cv2.resize(mixed.clip(0, 255).astype(np.uint8), (inside, inside), interpolation=cv2.INTER_CUBIC)
    scale, step = inside / u.shape[0], inside / 14
    for row, column in np.ndindex(14, 14):
        x, y = (column + 0.5) * step, (row + 0.5) * step
        i, j = int(y / scale), int(x / scale)
        if share[i, j] > 0.12:
            length = 1.6 * step / max(reach, SAFE)
            end = (round(x + u[i, j] * length), round(y + v[i, j] * length))
            cv2.arrowedLine(big, (round(x), round(y)), end, (20, 20, 20), 1, cv2.LINE_AA, tipLength=0.35)
    return np.asarray(big)


def write_text(
    picture: Picture, text: str, at: tuple[int, int], size: float = 0.42, ink: tuple[int, int, int] = INK
) -> None:
    cv2 = opencv()
    plain = text.encode("ascii", "replace").decode()  # OpenCV's fonts know ASCII only
    cv2.putText(picture, plain, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


def _caption(title: str, width: int) -> Picture:
    bar = np.full((36, width, 3), PAPER, dtype=np.uint8)
    write_text(bar, title if len(title) <= 90 else f"...{title[-87:]}", (6, 24), 0.52)
    return bar


def _bars(classes: Sequence[str], probabilities: Sequence[float], width: int, height: int) -> Picture:
    cv2 = opencv()
    area = np.full((height, width, 3), PAPER, dtype=np.uint8)
    best = int(np.argmax(probabilities))
    row = min(40, (height - 40) // len(classes))
    for index, (name, value) in enumerate(zip(classes, probabilities, strict=True)):
        y = 30 + index * row
        write_text(area, name, (10, y + row // 2 + 2))
        span = width - 190
        cv2.rectangle(area, (110, y + 4), (110 + span, y + row - 10), PALE, -1)
        colour = HIGHLIGHT if index == best else (150, 140, 130)
        cv2.rectangle(area, (110, y + 4), (110 + round(span * float(value)), y + row - 10), colour, -1)
        write_text(area, f"{100 * float(value):.1f} %", (118 + span, y + row // 2 + 2))
    write_text(area, "probabilities", (10, 18))
    return area


def _course(
    made: Extraction,
    width: int,
    height: int,
    signal: NDArray[np.float64],
    first: int,
    numbered: Spotted | None = None,
) -> Picture:
    """Movement against the first frame, with onset and apex marked.

    first: number of the signal's first frame. numbered: onset and apex, where they count from another frame.
    """
    cv2 = opencv()
    area = np.full((height, width, 3), PAPER, dtype=np.uint8)
    onset, apex = made.spotted.onset, made.spotted.apex
    if numbered is not None:
        onset, apex = numbered.onset - first, numbered.apex - first
    write_text(area, f"movement, % of face (highest {float(signal.max()):.2f})", (10, 18))
    left, right, top, bottom = 14, width - 14, 34, height - 28
    x = left + (right - left) * np.arange(len(signal)) / max(len(signal) - 1, 1)
    y = bottom - (bottom - top) * signal / max(float(signal.max()), SAFE)
    cv2.line(area, (left, bottom), (right, bottom), PALE, 1)
    for name, index in (("onset", onset), ("apex", apex)):
        at = round(float(x[index]))
        cv2.line(area, (at, top), (at, bottom), PALE, 1, cv2.LINE_AA)
        write_text(area, f"{name} {first + index}", (min(max(at - 24, 2), width - 90), height - 10))
    points: Any = np.stack([x, y], axis=1).round().astype(np.int32)
    cv2.polylines(area, [points], False, HIGHLIGHT, 2, cv2.LINE_AA)
    return area


def write_png(path: Path, picture: Picture) -> None:
    """Write a PNG whole or not at all."""
    good, data = opencv().imencode(".png", picture)
    if not good:
        raise OSError(f"the picture for {path} could not be encoded")
    with writing(path) as file:
        file.write(data.tobytes())
