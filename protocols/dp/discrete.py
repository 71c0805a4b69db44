"""Client-level differential privacy on the integer grid: clip, rotate, round, add noise; the sum is decoded.

Guarantee: what a client submits is an integer vector of squared norm at most `l2_squared` (checked on the
integers) plus one noise share a coordinate, cut so that no sum can wrap. With at least `honest` honest
clients among the survivors the sum's noise has `honest` shares; colluders who take theirs away, and
dropouts, are allowed for. Weights are 1 and the divisor is the public number of survivors.
Unit: one client. Neighbours: its vector replaced by zero. Assumes: a survivor set that is public.

Source: Kairouz, Liu, Steinke 2021 (rotation, conditional rounding), Agarwal, Kairouz, Liu 2021 (Skellam).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.codec import Codes
from merveil.protocols.dp.accountant import Release, epsilon
from merveil.protocols.dp.rotation import padded, rotate, unrotate
from merveil.protocols.dp.sampling import Table, table
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.params import Params
from merveil.protocols.rng import Rng, SystemRng

Floats = NDArray[np.float64]
Charged = Sequence[tuple[Release, int]]

TAIL = 12  # standard deviations of a share that are kept, and _MARGIN steps; more for a large epsilon
_MARGIN = 17
TAILS = (TAIL, 16, 20, 26, 34, 44, 56, 80)
_FINENESS = 8  # grid steps of the clip for each sqrt(dim): rounding lengthens a vector by 0.4 % at most
_TRIES = 2000  # of the rounding; each succeeds with chance >= 0.39
_FINEST = Fraction(1, 16)  # grain of a variance
_LOWEST, _HIGHEST = 2.0**-10, 2.0**24  # noise multipliers that are searched


@dataclass(frozen=True)
class Mechanism:
    """One setting of the mechanism, public in all parts.

    kind: skellam or gaussian. dim: of an update. cohort: clients invited, n. honest: fewest honest survivors.
    norm_clip: largest 2-norm of an update, C. steps: grid steps from 0 to C. variance: of one noise share.
    central: the server adds one share to the sum, and clients none: it is trusted (m = 1).
    tail: standard deviations at which a share is cut.
    """

    kind: str
    dim: int
    cohort: int
    honest: int
    norm_clip: float
    steps: int
    variance: Fraction
    central: bool = False
    tail: int = TAIL

    def __post_init__(self) -> None:
        if not 1 <= self.honest <= self.cohort or (self.central and self.honest != 1):
            raise LocalError(f"{self.honest} honest noise shares of {self.cohort} clients do not go together")
        if not (math.isfinite(self.norm_clip) and self.norm_clip > 0 and self.steps >= 1):
            raise LocalError(f"the norm clip is positive, not {self.norm_clip}", AbortCode.INPUT_RANGE)
        if not TAIL <= self.tail <= TAILS[-1]:
            raise LocalError(f"noise is cut at {TAIL} to {TAILS[-1]} standard deviations, not {self.tail}")

    @property
    def size(self) -> int:
        """Coordinates that travel: dim padded to a power of two."""
        return padded(self.dim)

    @property
    def l2_squared(self) -> int:
        """Largest squared norm of rounded codes: the sensitivity."""
        return norm_bound(self.steps, self.size)

    @property
    def bound(self) -> int:
        """Largest magnitude of a noise share."""
        return noise_bound(self.variance, self.tail)

    @property
    def levels(self) -> int:
        """Largest magnitude of a submitted code."""
        return self.steps + 1 + (0 if self.central else self.bound)

    @property
    def bits(self) -> int:
        """Grid bits that hold the levels."""
        return max(4, self.levels.bit_length() + 1)

    @property
    def step(self) -> float:
        """One grid step, update units."""
        return self.norm_clip / self.steps

    @property
    def clip(self) -> float:
        """The coordinate bound to put into Params so that its codec has this mechanism's grid."""
        return self.step * ((1 << (self.bits - 1)) - 1)

    def table(self) -> Table:
        return table(self.kind, self.variance, self.bound, table_bits(self.tail))

    def release(self) -> Release:
        """What one round costs, with the deviation of all shares of the cohort."""
        shares = self.size * (1 if self.central else self.cohort)
        omega = min(Fraction(1), shares * self.table().omega)
        return Release(self.kind, self.l2_squared, self.size, self.honest, self.variance, omega)

    def ideal(self) -> Release:
        """The same with uncut noise, for a search that shall not build a table each time."""
        return Release(self.kind, self.l2_squared, self.size, self.honest, self.variance, Fraction(0))

    def noise_of_mean(self, survivors: int) -> float:
        """Standard deviation of a coordinate of the mean, update units, with all survivors' shares in it."""
        shares = 1 if self.central else survivors
        return math.sqrt(shares * float(self.variance)) * self.step / survivors

    def check(self, params: Params) -> None:
        """LocalError unless a round's parameters keep what the accountant assumes."""
        if params.weighted:
            raise LocalError("differential privacy takes weights of 1: a weight is a private count")
        if params.size != self.size or params.bits < self.bits or params.cohort > self.cohort:
            raise LocalError(
                "the round's parameters are not those of the mechanism", AbortCode.SHAPE_MISMATCH
            )
        if not self.central and params.honest < self.honest:
            raise LocalError(
                f"a sum may hold {params.honest} honest noise shares, the guarantee needs {self.honest}",
                AbortCode.PARAMS_BELOW_FLOOR,
            )

    def encode(self, update: Floats, public: bytes, rng: Rng | None = None) -> Codes:
        """A client's submission: int64, shape (size,). public: bytes that all parties of the round share.

        Raises LocalError SHAPE_MISMATCH, INPUT_NOT_FINITE. rng: of noise and rounding, None for the system's.
        """
        rng = rng or SystemRng()
        codes = self.quantise(update, public, rng)
        if not self.central:
            codes += self.table().draw(self.size, rng)
        return codes

    def quantise(self, update: Floats, public: bytes, rng: Rng) -> Codes:
        """Clipped, rotated, rounded codes of squared norm at most l2_squared."""
        if update.shape != (self.dim,) or update.dtype.kind != "f":
            raise LocalError(
                f"update {update.dtype} {update.shape}, expected ({self.dim},)", AbortCode.SHAPE_MISMATCH
            )
        if not np.isfinite(update).all():
            where = int(np.argmin(np.isfinite(update)))
            raise LocalError(f"coordinate {where} is {update[where]}", AbortCode.INPUT_NOT_FINITE)
        steps = rotate(clip_norm(update, self.norm_clip), public) / self.step
        for _ in range(_TRIES):
            words = np.frombuffer(rng.draw(8 * self.size, "dp/rounding"), dtype="<u8")
            codes = np.floor(steps + (words >> np.uint64(11)) * 2.0**-53)
            np.clip(codes, -self.steps - 1, self.steps + 1, out=codes)
            found = codes.astype(np.int64)
            if int(found @ found) <= self.l2_squared:
                return found
        raise LocalError(f"no rounding within the norm bound in {_TRIES} tries: the random source is broken")

    def noisy(self, total: Codes, rng: Rng | None = None) -> Codes:
        """central: the server's one noise share on the sum of codes."""
        if not self.central:
            raise LocalError("the clients have added the noise already")
        return total + self.table().draw(self.size, rng or SystemRng())

    def decode(self, total: Codes, survivors: int, public: bytes) -> Floats:
        """The mean over the survivors from the sum of codes: float64, shape (dim,)."""
        return unrotate(np.asarray(total * (self.step / survivors), dtype=np.float64), public, self.dim)


def clip_norm(update: Floats, limit: float) -> Floats:
    """The update scaled down to 2-norm `limit` where it is longer; safe for huge entries."""
    largest = float(np.abs(update).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(len(update))
    unit = np.asarray(update, dtype=np.float64) / largest
    length = float(np.linalg.norm(unit))
    return unit * min(largest, limit / length)


def norm_bound(steps: int, size: int) -> int:
    """Squared norm that rounding keeps with chance >= 1 - exp(-1/2) (Kairouz et al. 2021, proposition 22)."""
    root = math.sqrt(size)
    return math.floor(min((steps + root) ** 2, steps**2 + size / 4 + steps + root / 2))


def noise_bound(variance: Fraction, tail: int = TAIL) -> int:
    """Where a share is cut."""
    return math.ceil(tail * math.sqrt(variance)) + _MARGIN


def table_bits(tail: int) -> int:
    """Bits of a probability that resolve a Gaussian tail cut at `tail` standard deviations; 128 at 12."""
    return 32 * math.ceil((tail * tail / 2 / math.log(2) + 24) / 32)


def plan(
    kind: str,
    dim: int,
    cohort: int,
    honest: int,
    norm_clip: float,
    multiplier: float,
    *,
    bits: int = 24,
    central: bool = False,
    tail: int = TAIL,
) -> Mechanism:
    """The mechanism whose sum has noise of `multiplier` sensitivities, on the finest grid that `bits` allow.

    LocalError where the noise leaves no room for the update: more bits are needed.
    """
    size, honest = padded(dim), 1 if central else honest
    limit = (1 << (bits - 1)) - 1

    def build(steps: int) -> Mechanism:
        wanted = multiplier**2 * norm_bound(steps, size) / honest
        grains = max(math.ceil(wanted / float(_FINEST)), 4)
        return Mechanism(kind, dim, cohort, honest, norm_clip, steps, grains * _FINEST, central, tail)

    coarsest, finest = max(1, math.isqrt(size) // 2), max(64, math.ceil(_FINENESS * math.sqrt(size)))
    if build(coarsest).levels > limit:
        raise LocalError(
            f"noise of {multiplier:.3g} sensitivities on {size} values does not fit {bits} bits: raise bits"
        )
    while coarsest < finest:
        middle = (coarsest + finest + 1) // 2
        if build(middle).levels <= limit:
            coarsest = middle
        else:
            finest = middle - 1
    return build(coarsest)


def solve(
    kind: str,
    dim: int,
    cohort: int,
    honest: int,
    norm_clip: float,
    *,
    target: float,
    delta: float,
    rounds: int,
    bits: int = 24,
    central: bool = False,
    spent: Charged = (),
) -> Mechanism:
    """The least noise for which `rounds` more uploads keep epsilon <= target at delta.

    spent: releases charged before. LocalError: nothing left of the budget, or no noise that fits.
    """
    if not (target > 0 and rounds >= 1):
        raise LocalError("epsilon is positive, and so are the rounds", AbortCode.INPUT_RANGE)
    before = epsilon(spent, delta)
    if before >= target:
        raise LocalError(f"the budget is spent: epsilon {before:.4g} of {target:g} at delta {delta:g}")

    def cost(multiplier: float, tail: int | None) -> tuple[float, Mechanism]:
        """Epsilon and mechanism; without a tail the noise counts as uncut."""
        found = plan(
            kind, dim, cohort, honest, norm_clip, multiplier, bits=bits, central=central, tail=tail or TAIL
        )
        once = found.release() if tail else found.ideal()
        return epsilon([*spent, (once, rounds)], delta), found

    least = _least(lambda multiplier: cost(multiplier, None)[0] <= target)
    if least is None:
        raise LocalError(f"no noise reaches epsilon {target:g} at delta {delta:g}")
    for tail in TAILS:
        high = least
        for _ in range(20):
            reached, found = cost(high, tail)
            if reached <= target:
                return found
            if reached > 1.1 * target:  # the cut tail, not the noise, is what costs: keep more of it
                break
            high *= 1.002
    raise LocalError(
        f"epsilon {target:g} is so large that noise cut at {TAILS[-1]} standard deviations exceeds delta "
        f"{delta:g}: lower epsilon, which bounds nothing at this size"
    )


def _least(enough: Callable[[float], bool]) -> float | None:
    """The least noise multiplier, within 0.05 %, that is enough; None where none is."""
    low, high = _LOWEST, _LOWEST
    while not enough(high):
        low, high = high, 2 * high
        if high > _HIGHEST:
            return None
    while high / low > 1.0005:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
