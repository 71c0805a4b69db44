"""A25: did this clip take part? A whitened matched filter of its gradient with the update, or with the sum.

A full-batch update is a weighted sum of per-clip gradients, so a clip that took part correlates with it. The
directions that all clips share say nothing about membership; they are measured on outside people and
weighted down, which is the ridge form of projecting a candidate on the update's row space.
On a network with a hidden fully connected layer wider than the batch the row space of that layer gives an
exact test; STSTNet has one 400 -> 3 layer, of rank 3, so the filter runs over all
weights. That it is harder here is luck of the architecture, not protection.
Source: Li et al. 2022 (cosine of gradients) and Petrov et al., NeurIPS 2024 (DAGER) for the idea.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import stats
from merveil.attacks.base import COALITION, CURIOUS_SERVER, Attack, Finding, Floats, Public, Rule
from merveil.attacks.reading import honest_sum, uploads
from merveil.attacks.replay import Replay

RIDGE = 0.3  # of the median power of the outside gradients, added to every direction


class Filter:
    """Membership score of candidates against any update, given the spread of outside gradients."""

    def __init__(self, outside: Floats, ridge: float = RIDGE) -> None:
        """outside: per-clip updates [m,P] of people who take no part; ridge: share of their median power."""
        self.mean = outside.mean(axis=0)
        _, size, basis = np.linalg.svd(outside - self.mean, full_matrices=False)
        power = size**2 / len(outside)
        floor = ridge * float(np.median(power))
        # (C + floor I)^-1 = (I - V diag(power / (power + floor)) V^T) / floor; the scale does not matter.
        self.basis, self.shrink = basis, power / (power + floor)

    def whiten(self, rows: Floats) -> Floats:
        """rows [.., P] times the inverse spread, up to a constant."""
        return np.asarray(rows - ((rows @ self.basis.T) * self.shrink) @ self.basis)

    def scores(self, candidates: Floats, seen: Floats) -> Floats:
        """[k,m]: how well each candidate update [m,P] explains each seen vector [k,P]."""
        a = candidates - self.mean
        white = self.whiten(a)
        length = np.sqrt(np.maximum((a * white).sum(axis=1), 1e-30))
        return np.asarray((seen - self.mean) @ (white / length[:, None]).T)


def candidate_filter(public: Public) -> tuple[Filter, Floats]:
    """The filter, and the updates that each challenge record alone would cause [m,P]."""
    if public.challenge_x is None or public.challenge_y is None:
        raise ValueError("a membership attack needs challenge records")
    replay = Replay(public)
    outside = replay.updates_of(public.proxy_x, public.proxy_y).astype(np.float64)
    return Filter(outside), replay.updates_of(public.challenge_x, public.challenge_y).astype(np.float64)


def infer_uploads(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Score of every challenge record for every client: {"clients": [k], "scores": [k,m]}."""
    found, candidates = candidate_filter(public)
    seen = uploads(view, public)
    clients = sorted(seen)
    return {"clients": clients, "scores": found.scores(candidates, np.stack([seen[c] for c in clients]))}


def infer_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Score of every challenge record for the published mean: {"scores": [m]}."""
    found, candidates = candidate_filter(public)
    return {"scores": found.scores(candidates, honest_sum(view, public)[None])[0]}


def auc_finding(areas: NDArray[np.float64], unit: str, statistic: str, rng: np.random.Generator) -> Finding:
    ci, strict = (stats.bounded_mean(areas, rng, c) for c in stats.CONFIDENCE)
    return Finding(
        score=float(areas.mean()),
        chance=0.5,
        ci95=ci,
        strict=strict,
        n=len(areas),
        unit=unit,
        statistic=statistic,
        mde=min(1.0, stats.mean_detectable(areas, 0.5)),
    )


def score_uploads(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Mean over rounds of the AUC: a client's own clips against clips that took no part."""
    areas = []
    for guess, truth in zip(guesses, truths):
        outside = ~truth.members
        each = [
            stats.auc(row[truth.owners == client], row[outside])
            for client, row in zip(guess["clients"], guess["scores"])
        ]
        areas.append(float(np.mean(each)))
    return auc_finding(np.array(areas), "rounds", "AUC of a client's clips against clips of no client", rng)


def score_sum(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Mean over rounds of the AUC: clips in the sum against clips that took no part."""
    areas = [
        stats.auc(guess["scores"][truth.members], guess["scores"][~truth.members])
        for guess, truth in zip(guesses, truths)
    ]
    return auc_finding(np.array(areas), "rounds", "AUC of clips in the sum against clips of no client", rng)


ATTACKS = (
    Attack(
        id="A25",
        title="membership of a clip, from one client's frames",
        plain_words="Holding a clip, can the server tell whether a given participant's device used it?",
        adversary=CURIOUS_SERVER,
        setting="few-clips",
        infer=infer_uploads,
        score=score_uploads,
        rule=Rule(success=0.9, margin=0.05),
        source="After Li et al. 2022 and Petrov et al., NeurIPS 2024 (span test).",
    ),
    Attack(
        id="A25-pool",
        title="membership of a clip at one client, the server with a quarter of the clients",
        plain_words="Can the server and some participants tell that a clip took part at another one?",
        adversary=COALITION,
        setting="few-clips-pool",
        infer=infer_uploads,
        score=score_uploads,
        rule=Rule(success=0.9, margin=0.1),
        source="A25 on the coalition's view.",
    ),
    Attack(
        id="A25-sum",
        title="membership of a clip, from the published sum",
        plain_words="Holding a clip, can anyone tell from the published sum whether it took part?",
        adversary=CURIOUS_SERVER,
        setting="small-sum",
        infer=infer_sum,
        score=score_sum,
        rule=Rule(success=0.7, margin=0.05),
        source="The same test: a sum is one larger batch.",
        on_sum=True,
    ),
)
