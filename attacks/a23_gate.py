"""A23-gate: crafted models against a member that judges what it is sent.

In an honest training the server sends, in the place of the next model, another network, values that are no
numbers, imprint bins and trap rows as published. A play wins where the member trains on any of them. It
counts as defended only if each kind was refused with the code named here, and the honest models before and
after were trained on: a member that refuses everything holds nothing. Control: a member without the gate.
What passes the gate is N-32. Sources: Fowl et al., ICLR 2022; Boenisch et al., EuroS&P 2023.
"""

from typing import Any

import numpy as np

from merveil.attacks import stats
from merveil.attacks.base import CRAFTER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion

NAMED = {"network": "ARCH_MISMATCH", "numbers": "INPUT_NOT_FINITE", "rows": "MODEL_MISMATCH"}
BROKEN = (np.nan, np.inf, -np.inf)


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"crafted": [(kind, answer)], "honest": [answer of each honest round], "around": the honest models just
    before and after the crafted ones}."""
    honest = [view.send(model, i) for i, model in enumerate(view.models[:-1])]
    last, at = view.models[-1], len(view.models) - 1
    offers = [("rows", view.send(bad, at)) for bad in view.crafted()]
    for value in BROKEN:
        bad = last.copy()
        bad[rng.integers(len(bad))] = value
        offers.append(("numbers", view.send(bad, at)))
    model, changes = view.other()
    offers.append(("network", view.send(model, at, **changes)))
    after = view.send(last, at)
    return {"crafted": offers, "honest": [*honest, after], "around": [honest[-1], after]}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of trainings in which the member trained on any crafted model; nobody trains on one by chance."""
    won = [any(answer.trained for _, answer in g["crafted"]) for g in guesses]
    held = [
        w or (all(a.code == NAMED[k] for k, a in g["crafted"]) and all(a.trained for a in g["around"]))
        for w, g in zip(won, guesses)
    ]
    offers = [o for g in guesses for o in g["crafted"]]
    honest = [[not a.trained for a in g["honest"]] for g in guesses]
    alarmed = sum(any(h) for h in honest)
    false = stats.clopper_pearson(alarmed, len(honest))
    details = {
        "crafted_models": float(len(offers)),
        "crafted_trained_on": float(sum(a.trained for _, a in offers)),
        "all_trained_on": float(np.mean([all(a.trained for _, a in g["crafted"]) for g in guesses])),
        "honest_rounds": float(sum(map(len, honest))),
        "honest_refused": float(sum(map(sum, honest))),
        "trainings_with_false_alarm": float(alarmed),
        "false_alarm_ci95_low": false[0],
        "false_alarm_ci95_high": false[1],
    }
    for kind in NAMED:
        answers = [a.trained for k, a in offers if k == kind]
        details[f"trained_on_{kind}"] = float(np.mean(answers))
    statistic = "share of trainings in which the member trained on a crafted model"
    return proportion(sum(won), len(won), statistic, "trainings", float(np.mean(held)), details)


ATTACKS = (
    Attack(
        id="A23-gate",
        title="crafted models sent to a member that judges them",
        plain_words="Does a participant's own check stop models that were made to leak?",
        adversary=CRAFTER,
        setting="gate",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.15),
        source="Fowl et al., ICLR 2022; Boenisch et al., EuroS&P 2023.",
        tries=24,
    ),
)
