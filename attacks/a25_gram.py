"""A25 on `exact-ridge`: membership of a clip by the row space of the Gram sum and by leverage in it.

The third sum is C'C over whole-number rows; the two sums before it are public and let anybody make the row of
a clip that it holds, to the last digit. While clips are fewer than independent columns the sum's row space is
the span of the rows that were added; beyond, leverage still tells (`attacks.gram`). A25-gram reads the
published sum, which no scheme can hide; A25-gram-upload takes each client's own vector as its frame decodes
and names the clip that is nearest to being in it. Source: the span test of Petrov et al., NeurIPS 2024
(DAGER), on a Gram matrix in place of gradients.
"""

from typing import Any

import numpy as np

from merveil.attacks import stats
from merveil.attacks.a25_span import auc_finding
from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.gram import candidates, distances, span_of, took_part
from merveil.attacks.reading import codes


def infer_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """How near each challenge record is to being in the published sum [m], and whether that can hold it."""
    first, second, third = (np.asarray(one.total, np.int64) for one in view)
    block, basis = candidates(first, second, public)
    span = span_of(third)
    return {
        "scores": -distances(block, span, basis),
        "inside": took_part(block, span, basis),
        "rank": span.axes.shape[1],
    }


def score_sum(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Mean over trainings of the AUC: clips in the sum against clips that took no part."""
    pairs = list(zip(guesses, truths))
    areas = [stats.auc(g["scores"][t.members], g["scores"][~t.members]) for g, t in pairs]
    found = auc_finding(
        np.array(areas), "trainings", "AUC of clips in the Gram sum against clips of no client", rng
    )
    details = {
        "members_found": float(np.mean([g["inside"][t.members].mean() for g, t in pairs])),
        "others_taken": float(np.mean([g["inside"][~t.members].mean() for g, t in pairs])),
        "rank": float(np.mean([g["rank"] for g in guesses])),
    }
    return Finding(**{**{name: getattr(found, name) for name in _KEPT}, "details": details})


_KEPT = ("score", "chance", "ci95", "strict", "n", "unit", "statistic", "mde")


def infer_upload(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"named": client -> the challenge record nearest to the span of its own third vector}."""
    first, second = (np.asarray(one.total, np.int64) for one in view[:2])
    block, basis = candidates(first, second, public)
    order = rng.permutation(len(block))  # of equally near records none comes first by its place
    named = {}
    for client, vector in codes(view[2]).items():
        far = distances(block[order], span_of(vector), basis)
        named[client] = int(order[far.argmin()])
    return {"named": named}


def score_upload(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of clients for whom the named clip is one of their own; chance: the names dealt out at random.

    The published sums alone make it likelier that a named record took part at all; dealing the same names to
    the clients of the round takes that out, so that what is left is told by a client's own vector.
    """
    hits, dealt = [], []
    for guess, truth in zip(guesses, truths):
        owners = [truth.owners[r] if (r := guess["named"].get(c)) is not None else None for c in truth.held]
        hits += [owner == client for owner, client in zip(owners, truth.held)]
        dealt += [(owner in truth.held) / len(truth.held) for owner in owners]
    return proportion(
        int(np.sum(hits)),
        len(hits),
        "share of clients for whom a clip of their own is named, out of all challenge records",
        "clients",
        chance=float(np.mean(dealt)),
    )


ATTACKS = (
    Attack(
        id="A25-gram",
        title="membership of a clip, from the Gram sum of exact-ridge",
        plain_words="Holding a clip, do the sums of exact-ridge tell anyone for certain that it took part?",
        adversary=CURIOUS_SERVER,
        setting="gram-sum",
        infer=infer_sum,
        score=score_sum,
        rule=Rule(success=0.95, margin=0.05),
        source="Petrov et al., NeurIPS 2024 (DAGER), on a Gram matrix; leverage.",
        on_sum=True,
    ),
    Attack(
        id="A25-gram-upload",
        title="membership of a clip, from one client's Gram vector of exact-ridge",
        plain_words="Holding clips, can the server name one that a participant's exact-ridge sums hold?",
        adversary=CURIOUS_SERVER,
        setting="gram",
        infer=infer_upload,
        score=score_upload,
        # 96 clients, as the vectors are long; the margin is what they can bound.
        rule=Rule(success=0.9, margin=0.2),
        source="The same on each client's frame.",
    ),
)
