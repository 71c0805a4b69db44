"""Scores of membership from what reference models say: loss, LiRA, RMIA, BaVarIA; and what a score is worth.

A record's confidence is phi = log p(label) - log(1 - p(label)). References are models trained on known halves
of the candidates; the target is never among them. Larger scores say "member".
Guarantees: no score is fitted to the target's own truth; tests run each on nulls. Assumes: candidates were
put in or left out by fair coins, whole persons together, so that members and others are exchangeable.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import stats
from merveil.mer.extras import need

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def confidence(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """phi [..., n] of class probabilities [..., n, K] at the records' labels [n], held inside +-30."""
    p = probabilities[..., np.arange(len(labels)), labels]
    low = 1e-13
    return np.asarray(np.log(np.clip(p, low, 1)) - np.log(np.clip(1 - p, low, 1)))


@dataclass(frozen=True)
class _Moments:
    """Of the references without or with each record: count, mean and sum of squares [n]."""

    count: Floats
    mean: Floats
    squares: Floats


def _moments(phi: Floats, chosen: Bools) -> _Moments:
    count = chosen.sum(0).astype(np.float64)
    if (count < 2).any():
        raise ValueError("each record needs at least two references that had it and two that did not")
    mean = (phi * chosen).sum(0) / count
    return _Moments(count, mean, (((phi - mean) ** 2) * chosen).sum(0))


def lira(target: Floats, phi: Floats, inside: Bools) -> Floats:
    """Gaussian likelihood ratio of phi [n], with one variance for all records of a kind.

    target: [n]; phi: [models, n] of the references; inside: [models, n], which record each had.
    Pooled variance is the published advice below 64 references. Source: Carlini et al., S&P 2022.
    """
    parts = []
    for chosen in (inside, ~inside):
        m = _moments(phi, chosen)
        variance = max(float(m.squares.sum() / (m.count - 1).sum()), 1e-12)
        parts.append(-0.5 * np.log(variance) - 0.5 * (target - m.mean) ** 2 / variance)
    return np.asarray(parts[0] - parts[1])


def bavaria(target: Floats, phi: Floats, inside: Bools) -> Floats:
    """The same ratio with each record's variance unknown: Student's t under an inverse-gamma prior.

    The prior is fitted by moments to the variances of all records, so few references fall back on the pooled
    variance and many use their own. After BaVarIA (arXiv 2603.11799); the fit by moments is ours.
    """
    gammaln = need("scipy.special", "attacks").gammaln
    parts = []
    for chosen in (inside, ~inside):
        m = _moments(phi, chosen)
        own = m.squares / (m.count - 1)
        mean = max(float(own.mean()), 1e-12)
        # A sample variance itself spreads by 2 sigma^4 / (n - 1); what is left is spread between records.
        spread = max(float(own.var() - (2 * own**2 / (m.count + 1)).mean()), 1e-6 * mean**2)
        shape = mean**2 / spread + 2
        a, b = shape + m.count / 2, mean * (shape - 1) + m.squares / 2
        scale = b / a * (1 + 1 / m.count)
        z = (target - m.mean) ** 2 / (2 * a * scale)
        parts.append(gammaln(a + 0.5) - gammaln(a) - 0.5 * np.log(a * scale) - (a + 0.5) * np.log1p(z))
    return np.asarray(parts[0] - parts[1])


def rmia(
    target: Floats, phi: Floats, inside: Bools, target_z: Floats, phi_z: Floats, gamma: float = 1.0
) -> Floats:
    """Share of population records z [k] over which a record's likelihood ratio dominates, [n].

    The ratio of a record is its probability under the target over its mean under all references, half of
    which had it. z: people whom no reference had. Source: Zarifzadeh et al., ICML 2024.
    """
    if inside.shape != phi.shape:
        raise ValueError("inside says which record each reference had: [models, n] as phi")
    own = _sigmoid(target) / _sigmoid(phi).mean(0)
    other = _sigmoid(target_z) / _sigmoid(phi_z).mean(0)
    # The mean step of the ratio breaks ties: a share of k has k + 1 values only.
    return np.asarray((own[:, None] > gamma * other[None]).mean(1) + 1e-6 * own / own.max())


def _sigmoid(phi: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-phi)))


@dataclass(frozen=True)
class Game:
    """One target: scores [n], which records took part [n], and the person of each [n]."""

    scores: Floats
    members: Bools
    persons: NDArray[np.int64]

    def area(self) -> float:
        return stats.auc(self.scores[self.members], self.scores[~self.members])


def mean_area(games: list[Game]) -> float:
    return float(np.mean([g.area() for g in games]))


def interval(
    games: list[Game], rng: np.random.Generator, confidence: float = 0.95, resamples: int = 1000
) -> tuple[float, float]:
    """Percentile interval of the mean AUC: persons are drawn anew, and targets are, but never single records.

    A person's records stand or fall together, and the same persons meet every target, so both are resampled
    (two-way cluster bootstrap). A person is in or out of each target as he was.
    """
    people = np.unique(np.concatenate([g.persons for g in games]))
    groups = [[np.flatnonzero(g.persons == p) for p in people] for g in games]
    found = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(people), len(people))
        areas = []
        for t in rng.integers(0, len(games), len(games)):
            rows = np.concatenate([groups[t][i] for i in drawn])
            g = games[t]
            kind = g.members[rows]
            if kind.any() and not kind.all():
                areas.append(stats.auc(g.scores[rows][kind], g.scores[rows][~kind]))
        found.append(np.mean(areas) if areas else 0.5)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def hits_at(games: list[Game], rate: float) -> dict[str, float]:
    """True positives at the threshold that `rate` of the others pass, with exact limits of both rates.

    Counts treat records as independent, which flatters the limits where a person has many; the threshold is
    the others' own quantile, so the false alarms are what was asked for and their limit says how sure.
    """
    hits = alarms = members = others = 0
    for g in games:
        out = np.sort(g.scores[~g.members])[::-1]
        cut = out[int(rate * len(out))]
        hits += int((g.scores[g.members] > cut).sum())
        alarms += int((out > cut).sum())
        members, others = members + int(g.members.sum()), others + len(out)
    low, high = stats.clopper_pearson(hits, members)
    return {
        "tpr": hits / members,
        "tpr_low": low,
        "tpr_high": high,
        "fpr": alarms / others,
        "fpr_high": stats.clopper_pearson(alarms, others)[1],
    }


def blind(x: NDArray[Any], members: Bools, persons: NDArray[np.int64], ridge: float = 1.0) -> Floats:
    """Scores [n] of a guesser without a model: ridge regression of membership on the images x [n,...].

    Each half of the persons is scored by a fit to the other half. At chance unless the split is confounded.
    """
    flat = x.reshape(len(x), -1).astype(np.float64)
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-9)
    kernel = flat @ flat.T / flat.shape[1]
    found, people = np.zeros(len(x)), np.unique(persons)
    half = np.isin(persons, people[::2])
    for test in (half, ~half):
        y = members[~test] - members[~test].mean()
        a = kernel[np.ix_(~test, ~test)] + ridge * np.eye(int((~test).sum()))
        raw = kernel[np.ix_(test, ~test)] @ np.linalg.solve(a, y)
        found[test] = (raw - raw.mean()) / (raw.std() + 1e-12)
    return found


__all__ = [
    "Game", "bavaria", "blind", "confidence", "hits_at", "interval", "lira", "mean_area", "rmia",
]  # fmt: skip
