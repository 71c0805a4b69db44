"""What the exact ridge reads of a clip: normalised flow, registered by site, blurred, in 7x7 block means.

Everything here is a function of one clip, except the warp of a site, which comes from sums over clips. All
results are whole numbers on a public grid: sums of whole numbers do not depend on who adds them up or in
which order, and that is what makes a federation equal to central training bit for bit.
Source of the steps: a recipe found on the two-part development archive before this project; registration
repairs face crops that differ between sites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Number = TypeVar("Number", np.float64, np.int64)

CUT = 4.0  # of the normalised flow
SIDE = 7  # block means a side
FEATURES = SIDE * SIDE * 3
FINE = 1024  # grid steps in one unit of a map or a block mean
BLUR, MAP_BLUR = 1.5, 1.0  # pixels of a 28-pixel image; scaled with its side
SCALES = tuple(round(0.85 + 0.05 * i, 2) for i in range(7))  # of a site's maps, each way
SHIFTS = tuple(-3.0 + 0.5 * i for i in range(13))  # down, pixels of a 28-pixel image


def check_images(x: NDArray[np.generic]) -> None:
    """InputError unless x is [n, h, w, 3] with sides that are multiples of 7, at least 14."""
    if (
        x.ndim != 4
        or x.shape[3] != 3
        or min(x.shape[1:3]) < 2 * SIDE
        or x.shape[1] % SIDE
        or x.shape[2] % SIDE
    ):
        raise InputError(
            f"exact-ridge reads [strain, v, u] images with sides that are multiples of {SIDE} from "
            f"{2 * SIDE} on, not {x.shape[1:]}"
        )


def normalised(x: NDArray[np.generic]) -> Floats:
    """uint8 or float [n,h,w,3] -> float64: each channel of a clip minus its median, over its rms, cut at 4.

    The published byte maps put zero flow at any grey value, so a clip is its own reference.
    """
    check_images(x)
    flat = x.astype(np.float64).reshape(len(x), -1, 3)
    flat = flat - np.median(flat, 1, keepdims=True)
    scale = np.sqrt((flat**2).mean(1, keepdims=True))
    return np.asarray(np.clip(flat / np.maximum(scale, 1e-6), -CUT, CUT).reshape(x.shape))


def movement(clips: Floats) -> Whole:
    """Magnitude of the normalised flow, int64 [n, h*w] in grid steps: where a clip moves, without labels."""
    size = np.sqrt((clips[..., 1:] ** 2).sum(-1))
    return np.rint(size.reshape(len(clips), -1) * FINE).astype(np.int64)


@dataclass(frozen=True)
class Warp:
    """How a site's images are read: rows scaled and moved down, columns scaled, about the centre."""

    rows: float = 1.0
    columns: float = 1.0
    shift: float = 0.0

    def matrices(self, height: int, width: int) -> tuple[Floats, Floats]:
        """Linear interpolation of rows [h,h] and columns [w,w]; the border is repeated."""
        return (
            _interpolation(height, self.rows, self.shift * height / 28),
            _interpolation(width, self.columns, 0.0),
        )


SAME = Warp()


def find_warps(
    sums: Mapping[str, Floats], clips: Mapping[str, int], shape: tuple[int, int]
) -> dict[str, Warp]:
    """The warp of each site that brings its mean movement nearest (correlation) to the reference site's.

    sums: site -> sum of `movement` over its training clips, [h*w]; clips: site -> their number. The reference
    is the site with the most clips, of equals the first by name; its warp is the identity. A site without
    clips is left out: its people are read unwarped.
    """
    present = sorted(site for site, count in clips.items() if count > 0)
    if not present:
        return {}
    reference = max(present, key=lambda site: clips[site])
    target = _blurred_map(sums[reference] / clips[reference], shape)
    found = {reference: SAME}
    for site in present:
        if site != reference:
            found[site] = _best(_blurred_map(sums[site] / clips[site], shape), target)
    return found


def block_means(clips: Floats, sites: Sequence[str], warps: Mapping[str, Warp]) -> Whole:
    """Features int64 [n, 147] in grid steps: warped by site, blurred, block means [7,7,3]."""
    height, width = clips.shape[1:3]
    out = np.zeros((len(clips), FEATURES), np.int64)
    names = np.asarray(sites)
    for site in np.unique(names).tolist():
        rows, columns = warps.get(site, SAME).matrices(height, width)
        mine = names == site
        means = np.einsum(
            "ij,njkc,lk->nilc",
            _blocks(height) @ _blur(height, BLUR) @ rows,
            clips[mine],
            _blocks(width) @ _blur(width, BLUR) @ columns,
            optimize=True,
        )
        out[mine] = np.rint(means.reshape(len(means), -1) * FINE).astype(np.int64)
    return out


def mirrored(block: NDArray[Number]) -> NDArray[Number]:
    """Block means [n, 147] of the mirror images: left and right change places and u its sign.

    Exact: normalisation, warps, blur and blocks are the same on both sides.
    """
    pictures = block.reshape(-1, SIDE, SIDE, 3)[:, :, ::-1] * np.array([1, 1, -1], block.dtype)
    return pictures.reshape(block.shape)


def _best(image: Floats, target: Floats) -> Warp:
    """The candidate with the highest correlation; of equals the one nearest to the identity."""
    height, width = image.shape
    rows = [(s, t, Warp(s, 1.0, t).matrices(height, width)[0]) for s in SCALES for t in SHIFTS]
    columns = [(s, Warp(1.0, s).matrices(height, width)[1]) for s in SCALES]
    goal = (target - target.mean()) / max(float(target.std()), 1e-12)
    half = np.stack([matrix for _, _, matrix in rows]) @ image
    scored = []
    for across, matrix in columns:
        warped = half @ matrix.T
        centred = warped - warped.mean((1, 2), keepdims=True)
        spread = np.maximum(warped.std((1, 2)), 1e-12)
        for (down, shift, _), value in zip(rows, (centred * goal).mean((1, 2)) / spread):
            far = abs(down - 1) + abs(across - 1) + abs(shift) / 28
            scored.append((-round(float(value), 9), far, Warp(down, across, shift)))
    return min(scored, key=lambda entry: entry[:2])[2]


def _blurred_map(flat: Floats, shape: tuple[int, int]) -> Floats:
    image = flat.reshape(shape)
    return np.asarray(_blur(shape[0], MAP_BLUR) @ image @ _blur(shape[1], MAP_BLUR).T)


@cache
def _blocks(side: int) -> Floats:
    """[7, side] means of equal blocks."""
    width = side // SIDE
    return np.kron(np.eye(SIDE), np.full((1, width), 1 / width))


@cache
def _blur(side: int, sigma: float) -> Floats:
    """[side, side] Gaussian with mirrored borders; sigma is meant for 28 pixels."""
    sigma = sigma * side / 28
    reach = int(4 * sigma + 0.5)
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    matrix = np.zeros((side, side))
    at = (np.arange(side)[:, None] + np.arange(-reach, reach + 1)) % (2 * side)
    at = np.minimum(at, 2 * side - 1 - at)
    for row in range(side):
        np.add.at(matrix[row], at[row], taps)
    return matrix


def _interpolation(side: int, scale: float, shift: float) -> Floats:
    """[side, side]: output i reads the input at (i - centre) * scale + centre + shift."""
    centre = (side - 1) / 2
    at = np.clip((np.arange(side) - centre) * scale + centre + shift, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    matrix = np.zeros((side, side))
    matrix[np.arange(side), low] = 1 - (at - low)
    matrix[np.arange(side), low + 1] += at - low
    return matrix
