"""What example-level DP-SGD costs: Poisson sampling, Gaussian noise, one clip added or removed.

Accountants: `prv`, Opacus's privacy loss random variables (Gopi, Lee, Wutschitz 2021; the upper end of its
error bars; extra `dp`); `rdp`, our own Renyi curve at integer orders (Mironov, Talwar, Zhang 2019, section
3.3); `pld`, dp-accounting's privacy loss distribution, for comparison. Every figure holds for Poisson
sampling only: shuffled or fixed-size batches have others.
"""

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.mer.errors import InputError
from merveil.mer.extras import need
from merveil.protocols.dp.accountant import to_epsilon
from merveil.protocols.dp.clips import ClipStep, clip_step
from merveil.protocols.dp.discrete import TAILS
from merveil.protocols.errors import LocalError

ACCOUNTANTS = ("prv", "rdp")
NAMES = {
    "prv": "PRV of Opacus (upper end), Poisson-subsampled Gaussian, omega in delta",
    "rdp": "RDP at integer orders, Poisson-subsampled Gaussian, omega in delta",
}
Cost = tuple[float, float, Fraction]  # noise multiplier, sampling rate, omega of one step
History = tuple[tuple[float, float, int], ...]  # noise multiplier, sampling rate, steps

_ORDERS = np.unique(np.concatenate([np.arange(2, 65), np.rint(np.geomspace(64, 2048, 60))])).astype(int)
_SPLIT = 1 - 2**-10  # of delta to the accountant; the rest pays for omega
_LOWEST, _HIGHEST = 2.0**-5, 2.0**12


@lru_cache(maxsize=512)
def history_epsilon(history: History, delta: float, accountant: str) -> float:
    """Epsilon of steps of possibly different kinds, composed. InputError: an unknown accountant.

    ImportError names the extra where the accountant's package is missing.
    """
    if not history:
        return 0.0
    if accountant == "rdp":
        curve = np.zeros(len(_ORDERS))
        for multiplier, rate, steps in history:
            curve += steps * rdp_curve(multiplier, rate)
        return to_epsilon(curve, delta, _ORDERS.astype(np.float64))
    if accountant == "prv":
        tool: Any = need("opacus.accountants", "dp").PRVAccountant()
        tool.history = list(history)
        return float(tool.get_epsilon(delta))
    if accountant == "pld":
        return _pld(history, delta)
    raise InputError(f"accountant {accountant!r} is not known: use one of {', '.join(ACCOUNTANTS)}, pld")


def _pld(history: History, delta: float) -> float:
    accounting = need("dp_accounting", "dp")
    tool: Any = need("dp_accounting.pld", "dp").PLDAccountant()
    for multiplier, rate, steps in history:
        event = accounting.GaussianDpEvent(multiplier)
        tool.compose(event if rate == 1 else accounting.PoissonSampledDpEvent(rate, event), steps)
    return float(tool.get_epsilon(delta))


def sampled_gaussian(
    multiplier: float, rate: float, steps: int, delta: float, accountant: str = "pld"
) -> float:
    """Epsilon of `steps` equal steps. InputError: a value out of range, or an unknown accountant."""
    if not (multiplier > 0 and 0 < rate <= 1 and steps >= 1 and 0 < delta < 1):
        raise InputError("DP-SGD needs multiplier > 0, 0 < rate <= 1, steps >= 1 and 0 < delta < 1")
    return history_epsilon(((multiplier, rate, steps),), delta, accountant)


@lru_cache(maxsize=256)
def rdp_curve(multiplier: float, rate: float) -> NDArray[np.float64]:
    """Renyi divergence of one step at integer orders, both directions covered.

    At order a: log of sum_k C(a,k) (1-q)^(a-k) q^k exp((k^2-k) / 2z^2), over a - 1.
    """
    if rate == 1:
        return np.asarray(_ORDERS / (2 * multiplier**2))
    k = np.arange(_ORDERS[-1] + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(k))))])
    found = []
    for order in _ORDERS:
        j = k[: order + 1]
        terms = factorials[order] - factorials[j] - factorials[order - j] + j * math.log(rate)
        terms = terms + (order - j) * math.log1p(-rate) + (j * j - j) / (2 * multiplier**2)
        top = terms.max()
        found.append((top + math.log(np.exp(terms - top).sum())) / (order - 1))
    return np.array(found)


def cost(step: ClipStep) -> Cost:
    """What one step of a mechanism is charged as."""
    return step.multiplier, step.rate, step.omega


def epsilon(charged: Iterable[tuple[Cost, int]], delta: float, accountant: str) -> float:
    """Epsilon at delta of charged steps, each kind with its count; infinite where omega exceeds its share."""
    rows = list(charged)
    history = tuple((multiplier, rate, steps) for (multiplier, rate, _), steps in rows)
    found = history_epsilon(history, delta * _SPLIT, accountant)
    omega = sum((row[2] * steps for row, steps in rows), Fraction(0))
    if omega and np.logaddexp(0.0, found) + math.log(omega.numerator) - math.log(omega.denominator) > (
        math.log(delta * (1 - _SPLIT))
    ):
        return math.inf
    return found


@lru_cache(maxsize=64)
def solve(
    dim: int,
    norm_clip: float,
    rate: float,
    batch: float,
    *,
    target: float,
    delta: float,
    steps: int,
    accountant: str,
    spent: tuple[tuple[Cost, int], ...] = (),
) -> ClipStep:
    """The least noise for which `steps` more steps keep epsilon <= target at delta.

    spent: steps charged before. LocalError: nothing left of the budget, or no noise that fits.
    """
    if epsilon(spent, delta, accountant) >= target:
        raise LocalError(f"the budget is spent: epsilon {target:g} at delta {delta:g} leaves nothing")
    past = tuple((multiplier, rate, count) for (multiplier, rate, _), count in spent)

    def ideal(multiplier: float, tool: str) -> float:
        return history_epsilon((*past, (multiplier, rate, steps)), delta * _SPLIT, tool)

    # The Renyi figure is an upper bound near the other, and cheap: it brackets the search.
    high = _LOWEST
    while ideal(high, "rdp") > target and high < _HIGHEST:
        high *= 2
    high = _least(lambda z: ideal(z, "rdp") / target, high / 2, high)
    if accountant != "rdp":
        high = _least(lambda z: ideal(z, accountant) / target, high / 2, 1.02 * high)
    for tail in TAILS:
        if tail * tail / 2 < target and tail != TAILS[-1]:
            continue  # the cut tail alone would exceed delta
        for extra in (1.0, 1.003, 1.01, 1.03):
            found = clip_step(dim, norm_clip, high * extra, rate, batch, tail=tail)
            if epsilon([*spent, (cost(found), steps)], delta, accountant) <= target:
                return found
    raise LocalError(f"no noise reaches epsilon {target:g} at delta {delta:g} in {steps} steps")


def _least(ratio: Callable[[float], float], low: float, high: float) -> float:
    """A multiplier whose ratio of epsilon to the target lies in [0.996, 1], where [low, high] holds one.

    Epsilon is close to a power of the multiplier, so the search is linear in logarithms, and half-way where
    that is slow. Where `low` is enough already, it. LocalError: not even `high` is enough.
    """
    above, below = (math.log(max(ratio(z), 1e-9)) for z in (low, high))
    if below > 0:
        raise LocalError("no noise within reach keeps this epsilon: take a larger one, or fewer steps")
    if above <= 0:
        return low
    for count in range(60):
        if below > -0.004 or high / low < 1.0001:
            break
        share = 0.5 if count % 3 == 2 else min(0.95, max(0.05, (above + 0.002) / (above - below)))
        middle = low * (high / low) ** share
        value = math.log(max(ratio(middle), 1e-9))
        if value > 0:
            low, above = middle, value
        else:
            high, below = middle, value
    return high
