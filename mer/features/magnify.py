"""Make the movement between onset and apex larger before its flow is computed.

Linear Eulerian magnification (Wu et al. 2012) for a pair of frames: in each band of a Laplacian pyramid the
difference to the onset is multiplied. Where the magnified displacement would pass half of a band's wavelength
it would seem to go the other way, so finer bands are multiplied by less. Head motion is taken out first,
since it would be magnified as well. Measured on known motion (docs/features.md): a factor of 2 gives 1.4 to
1.9 times the movement, and from 4 on the flow agrees less with the truth: it is off unless asked for.
"""

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.features.flow import flow
from merveil.mer.features.opencv import opencv
from merveil.mer.features.rigid import similarity

LEVELS = 5  # of the pyramid on a 140 px face: bands of wavelengths from about 3 to 48 px
MOST = 20.0
BOUND = 1 / 2  # of a wavelength; the eighth of Wu et al. leaves next to no magnification on a face of 140 px


def check_factor(factor: float) -> None:
    if not 1.0 <= factor <= MOST:
        raise InputError(f"--magnify must be 1 (none) to {MOST:g}, not {factor:g}")


def magnify(onset: NDArray[np.uint8], apex: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The apex frame as it would look if the face had moved `factor` times as far: uint8 [h, w].

    onset, apex: uint8 [h, w] of one square. factor 1 returns the apex unchanged. Movements that a band cannot
    carry are magnified by less, so the measured factor falls short of the asked one for large movements.
    """
    check_factor(factor)
    if factor == 1.0:
        return apex
    field = flow(onset, apex, "dis")
    head = similarity(field)
    still = _pull(apex, head)
    rest = field - head
    size = float(np.percentile(np.hypot(rest[..., 0], rest[..., 1]), 99))
    first, second = (_bands(frame.astype(np.float32)) for frame in (onset, still))
    total = np.zeros((1, 1), dtype=np.float32)
    for level in reversed(range(len(first))):
        wavelength = 3.0 * 2**level
        gain = min(factor, max(1.0, BOUND * wavelength / max(size, 1e-6)))
        band = first[level] + np.float32(gain) * (second[level] - first[level])
        total = band if level == len(first) - 1 else band + _up(total, band)
    return np.asarray(np.clip(np.rint(total), 0, 255).astype(np.uint8))


def _pull(frame: NDArray[np.uint8], field: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The frame with `field` undone: result(p) = frame(p + field(p))."""
    cv2 = opencv()
    y, x = np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]].astype(np.float32)
    return np.asarray(
        cv2.remap(
            frame, x + field[..., 0], y + field[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
    )


def _bands(frame: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Laplacian pyramid, finest first; the last entry is what is left."""
    cv2 = opencv()
    bands = []
    for _ in range(LEVELS - 1):
        small = cv2.pyrDown(frame)
        bands.append(frame - _up(small, frame))
        frame = small
    return [*bands, frame]


def _up(small: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = like.shape
    return np.asarray(opencv().pyrUp(small, dstsize=(width, height)))
