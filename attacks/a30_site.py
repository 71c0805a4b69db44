"""A30-site: a server that names the noise, against a site that judges and pays by its own figures.

A play is a training that the site's budget pays a few uploads of. Between its honest tasks the server sends
others: no noise at all (class counts, a sum without it), half of it, one honest share too many, noise of its
own, for another cohort, beyond the policy's clip or delta, another mechanism than was hashed, and at the end
one upload and one attempt more than is paid for. A play wins where any of them is answered with a vector. It
counts as defended only if each was refused with the code named here, each honest task was answered, and every
vector was on the site's disk as paid before its session was opened, with the noise that was named in it.
Control: a site without its checks. Source: Kairouz et al. 2021 and Agarwal et al. 2021, who take the
mechanism as agreed; docs/adr/0096.
"""

from typing import Any

import numpy as np

from merveil.attacks.adversaries import NOISE_NAMER
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.noise import variance_quantile

SCHEMES = ("plain", "secagg", "secagg+", "lattice")  # that distributed noise composes with (fl.dp_options)
_BELOW = "PARAMS_BELOW_FLOOR"
# Kind of task -> the code of its refusal, and whether the site says that its budget is the reason.
NAMED = {
    "counts": (_BELOW, False),
    "none": (_BELOW, False),
    "honest": (_BELOW, False),
    "central": (_BELOW, False),
    "cohort": (_BELOW, False),
    "clip": (_BELOW, False),
    "delta": (_BELOW, False),
    "hash": ("MODEL_MISMATCH", False),
    "half": (_BELOW, True),
    "retry": (_BELOW, True),
    "more": (_BELOW, True),
}
LATE = ("half", "retry", "more")  # refused for what was paid before: half the noise costs as two uploads do
ALPHA = 1e-6  # of one vector, below which its noise counts as missing


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"offers": [(kind, answer)], "honest": [answer of each honest task]}, honest ones before and after."""
    kinds = [str(kind) for kind in rng.permutation([k for k in NAMED if k not in LATE])]
    parts = [list(part) for part in np.array_split(kinds, view.pays - 1)]
    parts[-1].append("half")
    honest, offers = [], []
    for part in parts:
        honest.append(view.honest())
        offers += [(kind, view.offer(kind)) for kind in part]
    honest.append(view.honest(finish=False))  # the attempt is called lost once the vector is there
    offers += [(kind, view.offer(kind)) for kind in ("retry", "more")]
    return {"offers": offers, "honest": honest}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of plays in which the site answered any such task with a vector; nobody does by chance."""
    won = [any(answer.vector for _, answer in g["offers"]) for g in guesses]
    paid = [_paid(t) for t in truths]
    carried = [_carried(t) for t in truths]
    named = [all((a.code, a.spent) == NAMED[k] for k, a in g["offers"]) for g in guesses]
    served = [all(a.vector for a in g["honest"]) for g in guesses]
    held = [w or all(parts) for w, *parts in zip(won, named, served, paid, carried)]
    offers = [o for g in guesses for o in g["offers"]]
    details = {
        "tasks": float(len(offers)),
        "tasks_answered": float(sum(a.vector for _, a in offers)),
        "all_answered": float(np.mean([all(a.vector for _, a in g["offers"]) for g in guesses])),
        "honest_tasks": float(sum(len(g["honest"]) for g in guesses)),
        "honest_answered": float(sum(a.vector for g in guesses for a in g["honest"])),
        "refused_by_name": float(np.mean(named)),
        "paid_before": float(np.mean(paid)),
        "noise_found": float(np.mean(carried)),
        "least_noise_over_named": min((r for t in truths for r, _ in t["noise"]), default=0.0),
    }
    for kind in NAMED:
        details[f"answered_{kind}"] = float(np.mean([a.vector for k, a in offers if k == kind]))
    statistic = "share of plays in which the site answered a task that it should refuse"
    return proportion(sum(won), len(won), statistic, "plays", float(np.mean(held)), details)


def _paid(truth: Any) -> bool:
    """Whether each vector was the next one on the site's disk before its session, and no other charge is."""
    return truth["before"] == list(range(1, len(truth["before"]) + 1)) and truth["uploads"] == len(
        truth["before"]
    )


def _carried(truth: Any) -> bool:
    """Whether the vectors that could be read have the variance named: (mean square over it, values)."""
    return bool(truth["noise"]) and all(r >= variance_quantile(ALPHA, size) for r, size in truth["noise"])


ATTACKS = (
    Attack(
        id="A30-site",
        title="tasks with too little noise, sent to a site that pays for its own",
        plain_words="Can the server have a site send an update with less noise than the site's limit asks?",
        adversary=NOISE_NAMER,
        setting="site",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.15),
        source="Kairouz et al., ICML 2021; Agarwal et al., NeurIPS 2021; docs/adr/0096.",
        tries=24,
        schemes=SCHEMES,
    ),
)
