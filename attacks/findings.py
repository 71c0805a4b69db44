"""Findings from counts, with exact intervals."""

from collections.abc import Mapping

from merveil.attacks import stats
from merveil.attacks.base import Finding


def proportion(
    hits: int,
    n: int,
    statistic: str,
    unit: str,
    held: float = 1.0,
    details: Mapping[str, float] | None = None,
    chance: float = 0.0,
) -> Finding:
    """The finding that hits of n units came out, where chance is the share that would anyway."""
    ci, strict = stats.both_intervals(stats.clopper_pearson, hits, n)
    return Finding(
        score=hits / n, chance=chance, ci95=ci, strict=strict, n=n, unit=unit, statistic=statistic,
        mde=stats.proportion_detectable(n, chance, alpha=stats.STRICT_ALPHA),
        details=dict(details or {}), held=held,
    )  # fmt: skip
