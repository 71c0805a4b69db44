"""What a sequence of uploads costs: Renyi curves, their sum, and (epsilon, delta).

Unit and relation: one client; neighbouring cohorts differ in that one client's vector is replaced by zero,
and who survives a round is public. A client is assumed to take part in every round that is charged.

Guarantee: `epsilon` is an upper bound for the mechanism as it is sampled: curves at integer orders (FORMULAS
of Agarwal, Kairouz, Liu 2021 for Skellam; Kairouz, Liu, Steinke 2021 for sums of discrete Gaussians), summed
over uploads (Mironov 2017), turned into (epsilon, delta) by the conversion of Canonne, Kamath, Steinke 2020,
proposition 12, and the tables' deviation charged as delta' = delta + (1 + e^epsilon) * omega.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.dp.sampling import KINDS
from merveil.protocols.errors import LocalError

Curve = NDArray[np.float64]  # Renyi divergence at ORDERS

# The Skellam bound holds at integer orders only.
ORDERS: NDArray[np.float64] = np.unique(
    np.concatenate([np.arange(2, 129), np.rint(np.geomspace(128, 1 << 20, 220))])
).astype(np.float64)


@dataclass(frozen=True)
class Release:
    """One noisy sum on the integer grid, as an adversary sees it at the floor of honest survivors.

    kind: skellam or gaussian. l2_squared: largest squared norm of one client's codes, grid steps squared.
    dim: coordinates. honest: fewest honest noise shares in the sum. variance: of one share and coordinate.
    omega: total variation between the shares as sampled and the ideal ones, over the whole sum.
    """

    kind: str
    l2_squared: int
    dim: int
    honest: int
    variance: Fraction
    omega: Fraction

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LocalError(f"noise {self.kind!r} is not known: use one of {', '.join(KINDS)}")
        if min(self.l2_squared, self.dim, self.honest) < 1 or self.variance < Fraction(1, 4):
            raise LocalError("a release has a positive norm, dimension and honest floor, and variance >= 1/4")
        if not 0 <= self.omega <= 1:
            raise LocalError(f"omega {float(self.omega)} is no distance of distributions")

    @property
    def multiplier(self) -> float:
        """Standard deviation of the sum's noise over the sensitivity."""
        return math.sqrt(self.honest * self.variance / self.l2_squared)

    def curve(self) -> Curve:
        """Renyi divergence at ORDERS of one release."""
        if self.kind == "skellam":
            return skellam_curve(self.l2_squared, self.dim, float(self.honest * self.variance))
        return gaussian_sum_curve(self.l2_squared, self.dim, float(self.variance), self.honest)


def l1_bound(l2_squared: int, dim: int) -> float:
    """Largest 1-norm of an integer vector: norm * min(sqrt(dim), norm)."""
    return math.sqrt(l2_squared) * min(math.sqrt(dim), math.sqrt(l2_squared))


def skellam_curve(l2_squared: int, dim: int, variance: float, orders: Curve = ORDERS) -> Curve:
    """Skellam noise of total `variance` a coordinate. Agarwal, Kairouz, Liu 2021, corollary 3.6."""
    l1 = l1_bound(l2_squared, dim)
    extra = np.minimum(
        ((2 * orders - 1) * l2_squared + 6 * l1) / (4 * variance**2),
        np.full_like(orders, 3 * l1 / (2 * variance)),
    )
    return np.asarray(orders * l2_squared / (2 * variance) + extra)


def gaussian_gap(variance: float, shares: int) -> float:
    """tau: how far the sum of `shares` discrete Gaussians is from one discrete Gaussian, a coordinate."""
    k = np.arange(1, shares, dtype=np.float64)
    return float(10 * np.exp(-2 * math.pi**2 * variance * k / (k + 1)).sum())


def gaussian_sum_curve(
    l2_squared: int, dim: int, variance: float, shares: int, orders: Curve = ORDERS
) -> Curve:
    """`shares` discrete Gaussians of `variance` each. Kairouz, Liu, Steinke 2021, proposition 14."""
    tau, total = gaussian_gap(variance, shares), shares * variance
    l2, l1 = math.sqrt(l2_squared), l1_bound(l2_squared, dim)
    first = orders * l2_squared / (2 * total) + tau * dim
    second = orders / 2 * (l2_squared / total + 2 * l1 * tau / math.sqrt(total) + tau**2 * dim)
    third = orders / 2 * (l2 / math.sqrt(total) + math.sqrt(dim) * tau) ** 2
    return np.asarray(np.minimum(first, np.minimum(second, third)))


def gaussian_curve(multiplier: float, orders: Curve = ORDERS) -> Curve:
    """Continuous Gaussian noise of `multiplier` times the sensitivity."""
    return np.asarray(orders / (2 * multiplier**2))


def to_epsilon(curve: Curve, delta: float, orders: Curve = ORDERS) -> float:
    """Least epsilon of a curve at `delta`. Canonne, Kamath, Steinke 2020, proposition 12."""
    if not 0 < delta < 1:
        raise LocalError(f"delta lies between 0 and 1, not {delta}")
    found = curve + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return float(max(0.0, found.min()))


def epsilon(charged: Iterable[tuple[Release, int]], delta: float) -> float:
    """Epsilon at `delta` of all charged releases, each with its count; infinite where delta is too small."""
    curve, omega = np.zeros_like(ORDERS), Fraction(0)
    for release, count in charged:
        curve += count * release.curve()
        omega += count * release.omega
    if not curve.any():
        return 0.0
    share = 1 - 2**-12
    while share > 2**-12:  # any split that adds up to delta is a valid bound
        found = to_epsilon(curve, delta * share)
        if _fits(found, omega, delta * (1 - share)):
            return found
        share = 1 - 2 * (1 - share)
    return math.inf


def _fits(found: float, omega: Fraction, left: float) -> bool:
    """Whether (1 + e^found) * omega <= left, in logarithms: e^found may exceed any float."""
    if omega == 0:
        return math.isfinite(found)
    log_omega = math.log(omega.numerator) - math.log(omega.denominator)
    return float(np.logaddexp(0.0, found)) + log_omega <= math.log(left)
