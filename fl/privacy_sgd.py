"""What example-level DP-SGD would cost, by dp-accounting. The training itself is not built."""

from typing import Any

from merveil.mer.errors import InputError
from merveil.mer.extras import need


def sampled_gaussian(
    multiplier: float, rate: float, steps: int, delta: float, accountant: str = "pld"
) -> float:
    """Epsilon of DP-SGD: Poisson sampling at `rate`, add-or-remove-one-clip relation.

    accountant: `pld` (upper bound of the privacy loss distribution) or `rdp`, both of dp-accounting.
    Valid for Poisson sampling only: shuffled or fixed-size batches have other figures. ImportError
    names the extra where dp-accounting is missing.
    """
    if not (multiplier > 0 and 0 < rate <= 1 and steps >= 1 and 0 < delta < 1):
        raise InputError("DP-SGD needs multiplier > 0, 0 < rate <= 1, steps >= 1 and 0 < delta < 1")
    accounting = need("dp_accounting", "dp")
    event = accounting.PoissonSampledDpEvent(rate, accounting.GaussianDpEvent(multiplier))
    if accountant == "pld":
        tool: Any = need("dp_accounting.pld", "dp").PLDAccountant()
    elif accountant == "rdp":
        tool = need("dp_accounting.rdp", "dp").RdpAccountant()
    else:
        raise InputError(f"accountant {accountant!r} is not known: use pld or rdp")
    return float(tool.compose(event, steps).get_epsilon(delta))
