"""A26 on `exact-ridge`: the second sum ends with the clips of each class, in plain numbers.

A26-moments reads them off the published sum, which no scheme can hide; A26-moments-upload off each client's
own vector as its frame decodes. A reading that cannot be counts of that many clips is replaced by the blind
guess, so that a masked frame scores what blind guessing does and not less.
Source: by definition of the sum; the scores are those of A26.
"""

from typing import Any

import numpy as np

from merveil.attacks.a26_labels import Counts, prior_guess, score_uploads
from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.reading import codes


def _read(second: Any, total: int, blind: Counts) -> Counts:
    """Class counts [K] at the end of a second vector, or the blind guess where they count something else."""
    tail = np.asarray(second, np.int64)[-len(blind) :]
    possible = (tail >= 0).all() and (tail <= total).all() and tail.sum() == total
    return tail if possible else blind


def infer_sum(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Class counts of the whole cohort: {"counts": [K], "blind": [K]}."""
    total = public.clips * public.cohort
    blind = prior_guess(public, total)
    return {"counts": _read(view[1].total, total, blind), "blind": blind}


def score_sum(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of trainings whose class counts are exact; chance is what the blind guess gets right."""
    pairs = [(g, sum(t.counts.values())) for g, t in zip(guesses, truths)]
    hits = int(np.sum([(g["counts"] == counts).all() for g, counts in pairs]))
    chance, n = float(np.mean([(g["blind"] == counts).all() for g, counts in pairs])), len(pairs)
    return proportion(
        hits,
        n,
        "share of trainings whose class counts are read exactly off the second sum",
        "trainings",
        chance=chance,
    )


def infer_upload(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Class counts of each client, from what its frame decodes to: counts {client: [K]}, blind [K]."""
    blind = prior_guess(public, public.clips)
    found = {client: _read(vector, public.clips, blind) for client, vector in codes(view[1]).items()}
    return {"counts": found, "blind": blind}


ATTACKS = (
    Attack(
        id="A26-moments",
        title="label counts from the second sum of exact-ridge",
        plain_words="Do the sums of exact-ridge tell how often each emotion occurs among all participants?",
        adversary=CURIOUS_SERVER,
        setting="moments-sum",
        infer=infer_sum,
        score=score_sum,
        rule=Rule(success=0.9, margin=0.1),
        source="By definition of the sum.",
        on_sum=True,
    ),
    Attack(
        id="A26-moments-upload",
        title="label counts from one client's frames of exact-ridge",
        plain_words="Can the server tell how many clips of each emotion one's exact-ridge sums hold?",
        adversary=CURIOUS_SERVER,
        setting="moments",
        infer=infer_upload,
        score=score_uploads,
        rule=Rule(success=0.9, margin=0.15),
        source="The same on each client's frame.",
    ),
)
