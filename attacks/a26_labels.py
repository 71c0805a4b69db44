"""A26: how many clips of each class a client holds, from the gradient of the last bias.

The last bias's gradient is the weighted mean over the batch of (predicted minus true class), so with the
public model's mean prediction per class (from people outside the federation) the class counts follow by
comparing with every possible count vector; no optimiser, milliseconds.
Source: the bias trick; Geng et al. 2021 and Ma et al., ICLR 2023 (iLRG) estimate the same counts.
"""

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import stats
from merveil.attacks.base import COALITION, CURIOUS_SERVER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.reading import honest_sum, uploads
from merveil.attacks.replay import Replay

Counts = NDArray[np.int64]


def compositions(total: int, classes: int) -> Counts:
    """Every vector of `classes` non-negative counts that add to `total`, int64 [m, classes]."""
    picks = combinations_with_replacement(range(classes), total)
    return np.array([np.bincount(p, minlength=classes) for p in picks], dtype=np.int64)


def class_means(replay: Replay, public: Public) -> Floats:
    """Mean predicted probabilities of each true class under the start model, [K,K], from outside data.

    A class without outside data uses the mean over all of them.
    """
    p = replay.probabilities(public.proxy_x)
    rows = [p[public.proxy_y == c] if (public.proxy_y == c).any() else p for c in range(len(public.classes))]
    return np.stack([r.mean(axis=0) for r in rows])


def expected_bias_gradient(counts: Counts, means: Floats, weight: Floats) -> Floats:
    """Bias gradient [m,K] of a weighted cross-entropy over clips with these class counts [m,K]."""
    mass = counts * weight
    pull = means - np.eye(len(weight))  # row c: what a clip of class c adds
    return np.asarray(mass @ pull / mass.sum(axis=1, keepdims=True))


def likeliest(gradient: Floats, total: int, means: Floats, weight: Floats) -> Counts:
    """The count vector whose expected bias gradient is nearest, int64 [K]."""
    options = compositions(total, len(weight))
    gap = ((expected_bias_gradient(options, means, weight) - gradient) ** 2).sum(axis=1)
    return np.asarray(options[int(np.argmin(gap))])


def prior_guess(public: Public, total: int) -> Counts:
    """The likeliest count vector for someone who saw no frame: of `total` draws from the outside classes."""
    from math import lgamma

    share = np.bincount(public.proxy_y, minlength=len(public.classes)) + 0.5
    log = np.log(share / share.sum())
    options = compositions(total, len(log))
    coefficient = np.array([-sum(lgamma(k + 1) for k in row) for row in options])
    return np.asarray(options[int(np.argmax(coefficient + options @ log))])


def infer_uploads(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Class counts of each client, from what its frames decode to: counts {client: [K]}, blind [K]."""
    replay = Replay(public)
    means, bias = class_means(replay, public), replay.slice_of("bias")
    found = {
        client: likeliest(
            vector[bias] / -(public.lr * public.steps), public.clips, means, public.class_weight
        )
        for client, vector in uploads(view, public).items()
    }
    return {"counts": found, "blind": prior_guess(public, public.clips)}


def score_uploads(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of clients whose whole count vector is right; chance is what the blind guess gets right."""
    right, blind, wrong = [], [], []
    for guess, truth in zip(guesses, truths):
        for client, counts in truth.counts.items():
            found = guess["counts"].get(client)
            right.append(found is not None and bool((found == counts).all()))
            blind.append(bool((guess["blind"] == counts).all()))
            wrong.append(1.0 if found is None else float(np.abs(found - counts).sum() / 2 / counts.sum()))
    n, hits, chance = len(right), int(np.sum(right)), float(np.mean(blind))
    return proportion(
        hits,
        n,
        "share of clients whose class counts are recovered exactly",
        "clients",
        details={"misassigned_clips": float(np.mean(wrong))},
        chance=chance,
    )


def infer_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Class counts of the whole cohort from the published mean: {"counts": [K], "blind": [K]}."""
    replay = Replay(public)
    gradient = honest_sum(view, public)[replay.slice_of("bias")] / -(public.lr * public.steps)
    total = public.clips * public.cohort
    means = class_means(replay, public)
    return {
        "counts": likeliest(gradient, total, means, public.class_weight),
        "blind": prior_guess(public, total),
    }


def score_sum(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """How much nearer the cohort's class counts are than a blind guess: 1 is exact, 0 no better."""
    exact, gain = [], []
    for guess, truth in zip(guesses, truths):
        counts = sum(truth.counts.values())
        off = np.abs(guess["counts"] - counts).sum() / 2
        blind = np.abs(guess["blind"] - counts).sum() / 2
        exact.append(float(off == 0))
        gain.append(float((blind - off) / counts.sum()))
    values = np.array(gain)
    ci, strict = (stats.bootstrap_mean(values, rng, c) for c in stats.CONFIDENCE)
    return Finding(
        score=float(values.mean()),
        chance=0.0,
        ci95=ci,
        strict=strict,
        n=len(values),
        unit="rounds",
        statistic="share of all clips that the sum puts into the right class beyond a blind guess",
        mde=stats.mean_detectable(values, 0.0),
        details={"exact_rounds": float(np.mean(exact))},
    )


ATTACKS = (
    Attack(
        id="A26",
        title="label counts from one client's frames",
        plain_words="Can the server tell how many clips of each emotion a participant's device holds?",
        adversary=CURIOUS_SERVER,
        setting="few-clips",
        infer=infer_uploads,
        score=score_uploads,
        rule=Rule(success=0.8, margin=0.1),
        source="Bias trick; Ma et al., ICLR 2023 (iLRG).",
    ),
    Attack(
        id="A26-pool",
        title="label counts of one client, the server with a quarter of the clients",
        plain_words="Can the server and some participants count the clips of each emotion at another one?",
        adversary=COALITION,
        setting="few-clips-pool",
        infer=infer_uploads,
        score=score_uploads,
        rule=Rule(success=0.8, margin=0.15),
        source="A26 on the coalition's view.",
    ),
    Attack(
        id="A26-sum",
        title="label counts from the published sum",
        plain_words="Does the published sum tell how common each emotion is among all participants?",
        adversary=CURIOUS_SERVER,
        setting="small-sum",
        infer=infer_sum,
        score=score_sum,
        rule=Rule(success=0.05, margin=0.02),
        source="The same trick; any exact sum reveals it.",
        on_sum=True,
    ),
)
