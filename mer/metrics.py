"""Scores of pooled predictions: UF1, UAR, accuracy, and intervals over persons.

Counts are summed over all folds before a score is taken, never averaged over folds. A class with neither
truth nor prediction in the reported part is undefined: it is left out of the mean and named. A class that is
only predicted has F1 0; it has no recall, so UAR leaves it out. Scores take confusion matrices with any
leading axes, [..., K, K] with rows truth and columns predicted, so that resamples are scored at once.
Source of the rules: Varanka, Li, Peng, Zhao, "Data Leakage and Evaluation Issues in Micro-Expression
Analysis", IEEE TAFFC 15(1), 2024.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from merveil.mer.errors import InputError

Floats = NDArray[np.float64]
RESAMPLES = 2000
EXACT_PERSONS = 13  # up to 2^13 sign patterns are enumerated; above, drawn
ROOT = 0x0B007


def confusion(truth: ArrayLike, predicted: ArrayLike, k: int) -> NDArray[np.int64]:
    """Counts [k, k], rows truth, columns predicted; InputError for no clip, unequal lengths or bad labels."""
    rows, columns = np.asarray(truth), np.asarray(predicted)
    if rows.shape != columns.shape or rows.ndim != 1:
        raise InputError(f"{rows.shape} true and {columns.shape} predicted labels do not belong together")
    if not len(rows):
        raise InputError("there is no clip to score")
    for name, labels in (("true", rows), ("predicted", columns)):
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= k:
            raise InputError(f"{name} labels must be integers in 0..{k - 1}")
    return np.bincount(rows.astype(np.int64) * k + columns.astype(np.int64), minlength=k * k).reshape(k, k)


def per_person(truth: ArrayLike, predicted: ArrayLike, person: ArrayLike, k: int) -> NDArray[np.int64]:
    """Confusions [persons, k, k], persons in sorted order; their sum is the pooled confusion."""
    names, group = np.unique(np.asarray(person), return_inverse=True)
    confusion(truth, predicted, k)  # its checks
    cell = np.asarray(truth, dtype=np.int64) * k + np.asarray(predicted, dtype=np.int64)
    return np.bincount(group * k * k + cell, minlength=len(names) * k * k).reshape(-1, k, k)


def uf1(conf: ArrayLike) -> Any:
    """Unweighted F1: mean over defined classes of 2TP / (2TP + FP + FN)."""
    counts = np.asarray(conf, dtype=np.float64)
    return _defined_mean(2 * _hits(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def uar(conf: ArrayLike) -> Any:
    """Unweighted average recall: mean of TP / N over classes that occur in the truth."""
    counts = np.asarray(conf, dtype=np.float64)
    return _defined_mean(_hits(counts), counts.sum(axis=-1))


def accuracy(conf: ArrayLike) -> Any:
    """Share of right predictions."""
    counts = np.asarray(conf, dtype=np.float64)
    return _defined_mean(_hits(counts).sum(axis=-1)[..., None], counts.sum(axis=(-1, -2))[..., None])


def undefined(conf: ArrayLike) -> list[int]:
    """Classes of one confusion [k, k] with neither truth nor prediction: left out of UF1 and UAR."""
    counts = np.asarray(conf)
    return np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1) == 0).tolist()


def scores(conf: ArrayLike) -> dict[str, float]:
    """{uf1, uar, accuracy} of one confusion."""
    return {"uf1": float(uf1(conf)), "uar": float(uar(conf)), "accuracy": float(accuracy(conf))}


def bootstrap_ci95(
    truth: ArrayLike,
    predicted: ArrayLike,
    person: ArrayLike,
    k: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, list[float]]:
    """Percentile 95 % intervals {uf1: [lo, hi], uar: [lo, hi]}, resampling whole persons with replacement.

    Clips of a person are not independent, persons are taken to be; the model is not retrained, so the
    interval covers the choice of people tested, not of the training seed.
    """
    parts = per_person(truth, predicted, person, k)
    drawn = _resampled(parts, _weights(len(parts), seed, resamples))
    return {"uf1": _interval(uf1(drawn)), "uar": _interval(uar(drawn))}


def mean_ci95(
    truth: ArrayLike, runs: Sequence[ArrayLike], person: ArrayLike, k: int, *, seed: int = 0
) -> dict[str, list[float]]:
    """As `bootstrap_ci95`, for the mean score of several runs (seeds) over the same resampled persons."""
    parts = [per_person(truth, run, person, k) for run in runs]
    weights = _weights(len(parts[0]), seed, RESAMPLES)
    drawn = [_resampled(part, weights) for part in parts]
    return {
        name: _interval(np.mean([measure(d) for d in drawn], axis=0))
        for name, measure in (("uf1", uf1), ("uar", uar))
    }


def mean_difference(
    truth: ArrayLike,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    person: ArrayLike,
    k: int,
    *,
    seed: int = 0,
) -> tuple[float, list[float]]:
    """Mean UF1 of the second runs minus that of the first, and its paired 95 % interval over persons."""
    a, b = ([per_person(truth, run, person, k) for run in runs] for runs in (first, second))
    weights = _weights(len(a[0]), seed, RESAMPLES)
    gains = [np.mean([uf1(_resampled(part, weights)) for part in runs], axis=0) for runs in (a, b)]
    means = [np.mean([uf1(part.sum(axis=0)) for part in runs]) for runs in (a, b)]
    return float(means[1] - means[0]), _interval(gains[1] - gains[0])


@dataclass(frozen=True)
class Difference:
    """B minus A on the same clips: the gain, its paired 95 % interval over persons, and its p value.

    p: two-sided sign-flip permutation over persons (A and B swapped within a person); exact when at most
    13 persons differ, else 10,000 draws.
    """

    difference: float
    ci95: list[float]
    p: float


def paired(
    truth: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    person: ArrayLike,
    k: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Difference]:
    """{uf1, uar, accuracy}: second minus first, resampling the same persons for both."""
    a, b = per_person(truth, first, person, k), per_person(truth, second, person, k)
    weights = _weights(len(a), seed, resamples)
    drawn_a, drawn_b = _resampled(a, weights), _resampled(b, weights)
    null = _swapped(a, b, seed)
    out = {}
    for name, measure in (("uf1", uf1), ("uar", uar), ("accuracy", accuracy)):
        gain = float(measure(b.sum(axis=0)) - measure(a.sum(axis=0)))
        swapped = measure(null[1]) - measure(null[0])
        out[name] = Difference(gain, _interval(measure(drawn_b) - measure(drawn_a)), _p_value(gain, swapped))
    return out


def mcnemar(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> dict[str, float]:
    """Exact two-sided McNemar test over clips: {only_first, only_second, p}.

    only_first counts clips that only the first run got right. It takes clips as independent, which clips of
    one person are not: read `paired` first.
    """
    right = np.asarray(first) == np.asarray(truth), np.asarray(second) == np.asarray(truth)
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    n, few = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(n, i) for i in range(few + 1))
    return {"only_first": only_first, "only_second": only_second, "p": min(1.0, 2 * tail / 2**n)}


def _hits(counts: Floats) -> Floats:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _defined_mean(above: Floats, below: Floats) -> Any:
    """Mean over the last axis of above/below where below > 0; InputError where nothing is defined."""
    defined = below > 0
    number = defined.sum(axis=-1)
    if not np.all(number):
        raise InputError("there is no clip to score")
    ratio = np.divide(above, below, out=np.zeros_like(above), where=defined)
    return ratio.sum(axis=-1) / number


def _weights(persons: int, seed: int, resamples: int) -> NDArray[np.int64]:
    """How often each person is in each resample, [resamples, persons]."""
    rng = np.random.default_rng([seed, ROOT])
    return rng.multinomial(persons, np.full(persons, 1 / persons), size=resamples)


def _resampled(parts: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    return (weights @ parts.reshape(len(parts), -1)).reshape(-1, *parts.shape[1:])


def _interval(values: Floats) -> list[float]:
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def _swapped(
    a: NDArray[np.int64], b: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pooled confusions of A and B with some persons swapped: all patterns, or 10,000 drawn ones."""
    differ = np.flatnonzero((a != b).any(axis=(1, 2)))
    if len(differ) <= EXACT_PERSONS:
        flips = (np.arange(2 ** len(differ))[:, None] >> np.arange(len(differ))) & 1
    else:
        flips = np.random.default_rng([seed, ROOT, 1]).integers(0, 2, (10_000, len(differ)))
        flips[0] = 0  # the observed pattern, so that p is never 0
    step = _resampled((b - a)[differ], flips) if len(differ) else np.zeros((1, *a.shape[1:]), dtype=np.int64)
    return a.sum(axis=0) + step, b.sum(axis=0) - step


def _p_value(gain: float, swapped: Floats) -> float:
    return float((np.abs(swapped) >= abs(gain) - 1e-12).mean())
