"""A28: did this person take part, and behind which client? From clips of the person that no model ever saw.

The unit of harm is the person, and the attacker has other clips of that person. A28 asks the final model:
the mean over a person's fresh clips of the likelihood ratio of A27, whose references had the person or not.
A28-link asks a client's update: the matched filter of A25 with the fresh clips of each person, best client
by sum. Sources: Suri et al. 2022 (subject membership); Kandpal et al., EMNLP 2024 (user inference).
"""

from typing import Any

import numpy as np

from merveil.attacks import membership, stats
from merveil.attacks.a25_span import candidate_filter
from merveil.attacks.a27_membership import final_model
from merveil.attacks.base import CURIOUS_SERVER, MEMBER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.reading import uploads
from merveil.attacks.replay import Replay


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Mean score of each person [people] over its fresh clips; "persons" says which person each has."""
    replay, made = Replay(public), public.references
    models = np.concatenate([final_model(view, public)[None], made.models])
    phi = membership.confidence(replay.asked(models, made.fresh_x), made.fresh_y)
    ratio = membership.bavaria(phi[0], phi[1:], made.inside[:, made.fresh])
    persons = np.unique(made.fresh)
    return {"scores": np.array([ratio[made.fresh == p].mean() for p in persons]), "persons": persons}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """AUC of people who took part against those who did not, each person one unit."""
    played = []
    for guess, truth in zip(guesses, truths):
        asked = ~truth.known[guess["persons"]]
        persons = guess["persons"][asked]
        played.append(membership.Game(guess["scores"][asked], truth.inside[persons], persons))
    ci, strict = (membership.interval(played, rng, c) for c in stats.CONFIDENCE)
    people = len(truths[0].inside)
    return Finding(
        score=membership.mean_area(played),
        chance=0.5,
        ci95=ci,
        strict=strict,
        n=people,
        unit="people",
        statistic="AUC of people in the training against people who are not, from clips nobody trained on",
        mde=stats.auc_detectable(people // 2, people // 2, alpha=stats.STRICT_ALPHA),
        details={
            **{f"{k}_at_0.1": v for k, v in membership.hits_at(played, 0.1).items()},
            "trainings": float(len(played)),
            "people_drawn": float(truths[0].drawn),
        },
    )


def infer_link(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"clients": [k], "scores": [k, m]}: how well each fresh clip explains each client's vector."""
    found, candidates = candidate_filter(public)
    seen = uploads(view, public)
    clients = sorted(seen)
    return {"clients": clients, "scores": found.scores(candidates, np.stack([seen[c] for c in clients]))}


def score_link(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of people put behind the right client by fresh clips; chance is one client in the cohort."""
    right, chance = [], []
    for guess, truth in zip(guesses, truths):
        for client in guess["clients"]:
            rows = truth.owners == client
            total = guess["scores"][:, rows].sum(1)
            right.append(guess["clients"][int(np.argmax(total))] == client)
            chance.append(1 / len(guess["clients"]))
    hits, n, base = int(np.sum(right)), len(right), float(np.mean(chance))
    return proportion(
        hits,
        n,
        "share of people put behind the right client by clips that were not used",
        "people",
        chance=base,
    )


ATTACKS = (
    Attack(
        id="A28",
        title="membership of a person, from the final model",
        plain_words="Can whoever holds the model tell whether a person took part, by other clips of them?",
        adversary=MEMBER,
        setting="course",
        infer=infer,
        score=score,
        rule=Rule(success=0.75, margin=0.1),
        source="Suri et al. 2022; Kandpal et al. 2024.",
        on_sum=True,
    ),
    Attack(
        id="A28-link",
        title="which client a person is behind, from fresh clips",
        plain_words="With other clips of a person, can the server tell which device is theirs?",
        adversary=CURIOUS_SERVER,
        setting="persons",
        infer=infer_link,
        score=score_link,
        rule=Rule(success=0.4, margin=0.25),
        source="The filter of A25 on clips that took no part.",
    ),
)
