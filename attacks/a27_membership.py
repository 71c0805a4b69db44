"""A27: did this clip train the model? From the models that every member receives, under any aggregation.

A27 asks the final model and compares it with reference models trained on known halves of the same people
(BaVarIA; LiRA, RMIA and the bare loss beside it). A27-rounds needs no reference: on a network whose first
layer is fully connected, every published sum of its gradient is a mixture of the members' own inputs, so
the sums of many rounds span exactly the members' inputs while they are fewer than the inputs are wide.
Sources: Carlini et al., S&P 2022; Zarifzadeh et al., ICML 2024; arXiv 2603.11799; for the rounds Zari et al.
2021 (the view) and Marchand et al., ICML 2023, SRATTA (first-layer sums over rounds).
"""

from typing import Any

import numpy as np

from merveil.attacks import membership, stats
from merveil.attacks.base import MEMBER, Attack, Finding, Public, Rule
from merveil.attacks.reading import published_sum
from merveil.attacks.replay import AdamServer, Replay

SINGLE = 1e-7  # of the largest singular value: rounding of single precision


def final_model(view: Any, public: Public) -> Any:
    """float32 [P]: the start model after every published mean."""
    server = AdamServer(public.start, public.lr)
    for round_view in view:
        server.step(published_sum(round_view, public))
    return server.model


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Scores [m] of the challenge records: "bavaria" decides; "lira", "rmia" and "loss" are shown beside."""
    replay, made = Replay(public), public.references
    models = np.concatenate([final_model(view, public)[None], made.models])
    phi = membership.confidence(replay.asked(models, public.challenge_x), public.challenge_y)
    phi_z = membership.confidence(replay.asked(models, public.proxy_x), public.proxy_y)
    had = made.inside[:, made.records]
    return {
        "scores": membership.bavaria(phi[0], phi[1:], had),
        "lira": membership.lira(phi[0], phi[1:], had),
        "rmia": membership.rmia(phi[0], phi[1:], had, phi_z[0], phi_z[1:]),
        "loss": phi[0],
    }


def infer_rounds(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """Scores [m]: how much of a record's input lies in the span of the first layer's published gradients."""
    replay = Replay(public)
    where, shape = replay.first_layer()
    rows = np.concatenate([published_sum(v, public)[where].reshape(shape) for v in view])
    _, size, basis = np.linalg.svd(rows, full_matrices=False)
    # Below this lies what rounding to the grid and to single precision adds to every direction.
    step = public.clip / (2 ** (public.bits - 1) - 1) / np.sqrt(12 * public.cohort)
    floor = max(2 * step * (np.sqrt(len(rows)) + np.sqrt(rows.shape[1])), SINGLE * float(size[0]))
    x, kept = replay.net.prepare(public.challenge_x).astype(np.float64), basis[size > floor]
    share = ((x @ kept.T) ** 2).sum(1) / (x**2).sum(1)
    return {"scores": share, "rank": float(len(kept))}


def games(guesses: Any, truths: Any, key: str) -> list[membership.Game]:
    """One game a training, without the people whom the adversary holds itself."""
    found = []
    for guess, truth in zip(guesses, truths):
        asked = ~truth.known[truth.records]
        members = truth.inside[truth.records][asked]
        found.append(membership.Game(guess[key][asked], members, truth.records[asked]))
    return found


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """AUC over the trainings, interval over people and trainings; blind guesser and other scores beside."""
    played = games(guesses, truths, "scores")
    ci, strict = (membership.interval(played, rng, c) for c in stats.CONFIDENCE)
    people = len(truths[0].inside)
    blinds = [
        membership.Game(
            membership.blind(t.x[~t.known[t.records]], g.members, g.persons), g.members, g.persons
        )
        for g, t in zip(played, truths)
    ]
    low, high = membership.interval(blinds, rng)
    details = {
        "blind_auc": membership.mean_area(blinds), "blind_low": low, "blind_high": high,
        "accuracy_members": float(np.mean([t.fitted for t in truths])),
        "accuracy_others": float(np.mean([t.others for t in truths])),
        "records": float(sum(len(g.scores) for g in played)), "trainings": float(len(played)),
        "people_drawn": float(truths[0].drawn),
    }  # fmt: skip
    for rate in (0.01, 0.1):
        details |= {f"{k}_at_{rate:g}": v for k, v in membership.hits_at(played, rate).items()}
    for key in ("lira", "rmia", "loss"):
        if key in guesses[0]:
            details[f"auc_{key}"] = membership.mean_area(games(guesses, truths, key))
    if "rank" in guesses[0]:
        details["rank"] = float(np.mean([g["rank"] for g in guesses]))
    return Finding(
        score=membership.mean_area(played),
        chance=0.5,
        ci95=ci,
        strict=strict,
        n=people,
        unit="people",
        statistic="AUC of clips that trained against clips of people who did not",
        mde=stats.auc_detectable(people // 2, people // 2, alpha=stats.STRICT_ALPHA),
        details=details,
    )


ATTACKS = (
    Attack(
        id="A27",
        title="membership of a clip, from the final model",
        plain_words="Can whoever holds the trained model tell whether a clip was used to train it?",
        adversary=MEMBER,
        setting="course",
        infer=infer,
        score=score,
        rule=Rule(success=0.7, margin=0.05),
        source="BaVarIA, LiRA, RMIA.",
        on_sum=True,
    ),
    Attack(
        id="A27-rounds",
        title="membership of a clip, from the sums of all rounds",
        plain_words="Can a member tell from the published sums of a training whose clips were in it?",
        adversary=MEMBER,
        setting="course",
        infer=infer_rounds,
        score=score,
        rule=Rule(success=0.9, margin=0.05),
        source="Row space of the first layer over rounds; view of Zari et al. 2021.",
        on_sum=True,
    ),
)
