"""Knowing when not to answer: how sure a model is, how right it is when sure, and below what it says nothing.

Confidence is the largest probability. A curve over coverage answers the surest clips only: it describes
predictions of held-out people and chooses nothing. What a model uses later, a temperature and a threshold,
comes from predictions of training people by models that had not seen them (inner folds), and from sums over
them alone: log losses at a few temperatures, and a histogram of confidences for each. So a federation
can add them up through its scheme.
Sources: El-Yaniv and Wiener, JMLR 11, 2010 (risk and coverage); Guo, Pleiss, Sun, Weinberger, ICML 2017
(temperature); Geifman, Uziel, El-Yaniv, ICLR 2019 (area under the risk-coverage curve).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from merveil.mer.errors import InputError
from merveil.mer.metrics import confusion, uf1

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

COVERAGES = (1.0, 0.9, 0.75, 0.5, 0.25)
TEMPERATURES = tuple(round(0.25 * 1.19**i, 4) for i in range(20))  # .25 to 6.8
BINS = 200  # of the confidence, from 0 to 1
FINE = 65536  # grid steps of a log loss
WORST = 20.0  # most that one clip's log loss counts
RESAMPLES = 1000
ROOT = 0xA19C


def selective(truth: ArrayLike, probabilities: ArrayLike, person: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """{curve: [{coverage, clips, risk, uf1}], aurc, aurc_ci95} of predictions [n, K].

    At coverage c the surest ceil(c n) clips are answered (equal confidences in the order given); risk is the
    share of wrong answers; uf1 over the answered clips. aurc: mean risk over all coverages 1/n .. 1; its
    interval resamples persons.
    """
    y, p = np.asarray(truth), np.asarray(probabilities, np.float64)
    guess, order = p.argmax(1), np.argsort(-p.max(1), kind="stable")
    wrong = (guess != y)[order]
    n = len(y)
    curve = []
    for coverage in COVERAGES:
        count = int(np.ceil(coverage * n))
        kept = order[:count]
        curve.append(
            {
                "coverage": coverage,
                "clips": count,
                "risk": float(wrong[:count].mean()),
                "uf1": float(uf1(confusion(y[kept], guess[kept], p.shape[1]))),
            }
        )
    low, high = _interval(wrong, np.unique(np.asarray(person), return_inverse=True)[1][order], seed)
    return {"curve": curve, "aurc": _aurc(wrong), "aurc_ci95": [low, high]}


def _aurc(wrong: NDArray[np.bool_]) -> float:
    """Of errors in falling order of confidence."""
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def _interval(wrong: NDArray[np.bool_], group: NDArray[np.int64], seed: int) -> tuple[float, float]:
    people = int(group.max()) + 1
    rng = np.random.default_rng([seed, ROOT])
    times = rng.multinomial(people, np.full(people, 1 / people), size=RESAMPLES)
    values = [_aurc(np.repeat(wrong, draw[group])) for draw in times]
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def tempered(probabilities: ArrayLike, temperature: float) -> Floats:
    """p^(1/T), normalised: what a softmax of scores over T gives; 0 stays 0."""
    p = np.asarray(probabilities, np.float64)
    with np.errstate(divide="ignore"):
        scores = np.log(p) / temperature
    power = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(power / power.sum(-1, keepdims=True))


@dataclass(frozen=True)
class Answering:
    """When a model answers: at temperature T the largest probability must reach the threshold.

    coverage: share of clips that were to be answered; clips: of training people, seen by models that had not
    trained on them, from which both figures come.
    """

    temperature: float
    threshold: float
    coverage: float
    clips: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Answering":
        """InputError where a figure is missing or out of range."""
        try:
            found = cls(
                float(value["temperature"]),
                float(value["threshold"]),
                float(value["coverage"]),
                int(value["clips"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the model's answering rule is damaged: {error}") from error
        if not (found.temperature > 0 and 0 <= found.threshold <= 1 and 0 < found.coverage <= 1):
            raise InputError("the model's answering rule is damaged: a figure is out of range")
        return found

    def judge(self, probabilities: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
        """(calibrated probabilities [n, K], whether each is sure enough to be answered [n])."""
        p = tempered(probabilities, self.temperature)
        return p, p.max(-1) >= self.threshold


def calibration_sums(probabilities: ArrayLike, truth: ArrayLike) -> Whole:
    """One party's vector, int64 [T (1 + bins) + 1]: log losses, confidences by bin, and the clips.

    probabilities [m, K] of its clips by models that had not trained on their people; truth [m].
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(truth)
    losses, counts = [], []
    for temperature in TEMPERATURES:
        scaled = tempered(p, temperature)
        own = np.maximum(scaled[np.arange(len(y)), y], np.exp(-WORST))
        losses.append(int(np.rint(-np.log(own) * FINE).sum()))
        bins = np.minimum((scaled.max(1) * BINS).astype(np.int64), BINS - 1)
        counts.append(np.bincount(bins, minlength=BINS))
    return np.concatenate([losses, np.concatenate(counts), [len(y)]]).astype(np.int64)


def answering_from(total: Whole, coverage: float) -> Answering:
    """The temperature with the least log loss, and the threshold that answers `coverage` of the clips.

    The threshold is a bin's lower edge, so that at least the coverage is answered. InputError: no clip.
    """
    clips, t = int(total[-1]), len(TEMPERATURES)
    if clips < 1:
        raise InputError("there is no clip to set an answering rule from")
    best = int(np.argmin(total[:t]))
    histogram = total[t:-1].reshape(t, BINS)[best]
    above = np.cumsum(histogram[::-1])[::-1]  # clips in this bin or a surer one
    wanted = np.flatnonzero(above >= coverage * clips)
    return Answering(TEMPERATURES[best], float(wanted.max() / BINS), coverage, clips)


def bound(clips: int) -> int:
    """Largest entry of one party's vector when there are `clips` in all."""
    return int(clips * (WORST * FINE + 1))
