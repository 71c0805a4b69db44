"""One step of DP-SGD on the integer grid: sample clips, clip their gradients, add rounded Gaussian noise.

Guarantee: the sum that `release` gives out is that of a Poisson-subsampled continuous Gaussian mechanism with
`multiplier`, rounded to integers: each gradient becomes an integer vector of norm at most `sensitivity`
(checked on the integers), and integer plus rounded noise is (integer plus continuous noise), rounded. So the
accountant's mechanism is the one that runs, up to `omega` of the noise's table, and rounding is
post-processing. The divisor and the rate are public constants; neither the number of clips at a client nor
the number drawn enters anything but the sum.
Unit: one clip. Neighbours: one clip is added or removed. Assumes: the Rng.

Source: Abadi et al. 2016 (DP-SGD); Mironov 2012 (why the noise is no float).
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.codec import Codes
from merveil.protocols.dp.discrete import TAIL, noise_bound, table_bits
from merveil.protocols.dp.sampling import ROUNDED, Table, table
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.rng import Rng, SystemRng

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LEAST, _MOST = 1 << 10, 1 << 15  # grid steps of the noise's standard deviation
_FINENESS = 5  # grid steps of the sensitivity for each sqrt(dim): rounding costs a tenth of the clip at most
_SLIP = 1e-3  # grid steps that float arithmetic may be off before the check on the integers


@dataclass(frozen=True)
class ClipStep:
    """One setting of the step, public in all parts.

    dim: of a gradient. norm_clip: largest 2-norm of one clip's gradient. sigma: standard deviation of the
    noise on the sum, and sensitivity: largest norm of one clip's codes, both in grid steps. rate: chance that
    a clip is in a step, by a coin of its own. batch: what the sum is divided by. tail: where noise is cut.
    """

    dim: int
    norm_clip: float
    sigma: int
    sensitivity: int
    rate: float
    batch: float
    tail: int = TAIL

    def __post_init__(self) -> None:
        if not (math.isfinite(self.norm_clip) and self.norm_clip > 0 and self.batch > 0 and self.dim >= 1):
            raise LocalError("norm clip, batch and dimension are positive", AbortCode.INPUT_RANGE)
        if not 0 < self.rate <= 1:
            raise LocalError(
                f"a sampling rate lies above 0 and at most at 1, not {self.rate}", AbortCode.INPUT_RANGE
            )
        if self._inner <= 0 or not 4 <= self.sigma <= _MOST:
            raise LocalError("the grid is too coarse for the gradient, or too fine for the noise")

    @property
    def multiplier(self) -> float:
        """Noise over sensitivity, as the accountant takes it; rounded down."""
        return math.nextafter(self.sigma / self.sensitivity, 0.0)

    @property
    def _inner(self) -> float:
        """Norm before rounding, in steps: rounding to the nearest adds sqrt(dim) / 2 at most."""
        return self.sensitivity - math.sqrt(self.dim) / 2 - _SLIP

    @property
    def step(self) -> float:
        """One grid step, gradient units."""
        return self.norm_clip / self._inner

    @property
    def omega(self) -> Fraction:
        """Deviation of one step's noise from the ideal."""
        return min(Fraction(1), self.dim * self.table().omega)

    def table(self) -> Table:
        variance = Fraction(self.sigma**2)
        return table(ROUNDED, variance, noise_bound(variance, self.tail), table_bits(self.tail))

    def sample(self, shape: tuple[int, ...], rng: Rng | None = None) -> Mask:
        """Which clips are in a step: one coin each, true with chance rate (rounded down to 2^-64)."""
        count = math.prod(shape)
        if self.rate == 1:
            return np.ones(shape, dtype=np.bool_)
        words = np.frombuffer((rng or SystemRng()).draw(8 * count, "dp/sampling"), dtype="<u8")
        limit = np.uint64(math.floor(Fraction(self.rate) * (1 << 64)))
        return np.asarray(words < limit).reshape(shape)

    def codes(self, gradients: NDArray[np.floating]) -> Codes:
        """Clipped, rounded gradients of single clips: [clips, dim] -> int64 [clips, dim].

        LocalError: another shape, or INPUT_NOT_FINITE.
        """
        if gradients.ndim != 2 or gradients.shape[1] != self.dim:
            raise LocalError(
                f"gradients {gradients.shape}, expected (clips, {self.dim})", AbortCode.SHAPE_MISMATCH
            )
        if not np.isfinite(gradients).all():
            raise LocalError("the gradient of a clip holds a NaN or an infinity", AbortCode.INPUT_NOT_FINITE)
        rows = np.asarray(gradients, dtype=np.float64)
        norms = self._norms(rows)
        scale = np.minimum(1.0, self.norm_clip / np.maximum(norms, self.norm_clip)) / self.step
        found = np.rint(rows * scale[:, None]).astype(np.int64)
        if (np.einsum("ij,ij->i", found, found) > self.sensitivity**2).any():
            raise LocalError("a clipped gradient is longer than the sensitivity: no step is taken")
        return found

    def _norms(self, rows: Floats) -> Floats:
        """2-norms [clips] of whole gradients: all layers together."""
        return np.asarray(np.linalg.norm(rows, axis=1), dtype=np.float64)

    def release(self, sums: Codes, rng: Rng | None = None) -> Floats:
        """Noisy sums divided by the public batch, gradient units: int64 [..., dim] -> float64.

        A client that drew no clip has a sum of zeros and gets noise as everybody does.
        """
        noise = self.table().draw(sums.size, rng or SystemRng()).reshape(sums.shape)
        return np.asarray((sums + noise) * (self.step / self.batch), dtype=np.float64)


def clip_step(
    dim: int, norm_clip: float, multiplier: float, rate: float, batch: float, *, tail: int = TAIL
) -> ClipStep:
    """The step whose noise is `multiplier` sensitivities or more. LocalError: more than the grid holds."""
    sigma = max(_LEAST, math.ceil(multiplier * _FINENESS * math.sqrt(dim)))
    if sigma > _MOST:
        raise LocalError(
            f"noise of {multiplier:.3g} sensitivities on {dim} values is wider than the grid: at this size a "
            "step learns nothing; take a larger epsilon, a smaller rate or fewer steps"
        )
    return ClipStep(dim, norm_clip, sigma, math.floor(sigma / multiplier), rate, batch, tail)
