"""A08: the server announces parameters that protect less, field by field.

Each play lowers one field of the parameters to a random value past the floor, then announces a threshold of
one. A client that takes a threshold of one answers two stories about the victim (A04) and the vector opens.
The analogue of a downgraded handshake.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.a04_double_claim import split
from merveil.attacks.adversaries import DOWNGRADER
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.params import Params

Lower = Callable[[Any, np.random.Generator], dict[str, Any]]


def _threshold(p: Any, rng: np.random.Generator) -> dict[str, Any]:
    most = ((p.neighbours or p.cohort) + p.corrupt) // 2  # 2t > holders + c fails up to here
    return {"threshold": int(rng.integers(1, most + 1))}


# field -> values that no default policy, or no Params at all, may take
LOWER: dict[str, Lower] = {
    "scheme": lambda p, rng: {"scheme": "plain", "corrupt": 0, "threshold": 1, "neighbours": 0},
    "cohort": lambda p, rng: {"cohort": 3, "threshold": 2, "corrupt": 0, "neighbours": 0},
    "dim": lambda p, rng: {"dim": int(2**28 + rng.integers(1, 2**28))},
    "bits": lambda p, rng: {"bits": int(rng.choice([0, 1, 2, 3, 41, 48, 63]))},
    "clip": lambda p, rng: {"clip": float(rng.choice([math.inf, math.nan, 0.0, -1.0, 1e101]))},
    "max_weight": lambda p, rng: {"max_weight": int(rng.choice([0, -1, 65_536, 2**30]))},
    "threshold": _threshold,
    "corrupt": lambda p, rng: {"corrupt": 0, "threshold": min(p.threshold, _honest_floor(p))},
    "neighbours": lambda p, rng: {"neighbours": 2, "threshold": 2, "corrupt": 0},
}


def _honest_floor(p: Any) -> int:
    """The threshold that goes with no corruption at all."""
    return int((p.neighbours or p.cohort) // 2 + 1)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector under a threshold of one, if such parameters are taken."""
    victim = 1 + int(rng.integers(view.size))
    names = list(LOWER)
    field = names[view.number % len(names)]
    base = view.params

    def announced() -> Any:
        lowered = replace(base, **LOWER[field](base, rng))
        scheme = lowered.scheme if field == "scheme" else view.build.scheme
        return view.session(victim, scheme=scheme, params=lowered)

    taken = view.attempt(victim, announced) is not None
    codes = refusals(view)
    figures = {f"took a lower {field}": float(taken)}
    view.params = replace(base, threshold=1, corrupt=0)
    if view.attempt(victim, lambda: view.session(victim)) is None:
        return Guess(victim, None, refusals(view) if codes else (), right=taken, figures=figures)
    round_ = view.round().begin()
    told = split(view, round_, victim)
    seeds = []
    for kind in (0, 1):
        seeds.append(opening.combine(round_, victim, opening.from_answers(round_, victim, kind, told)))
    vector = opening.open_vector(round_, victim, *seeds) if None not in seeds else None
    return Guess(victim, vector, refusals(view), figures=figures)


assert set(LOWER) == set(Params.__dataclass_fields__)  # a new field of Params must have its line here

ATTACKS = (
    Attack(
        id="A08",
        title="parameters that protect less",
        plain_words="Can the server talk a device into weaker settings?",
        adversary=DOWNGRADER,
        setting="protocol",
        infer=infer,
        score=recovery(
            (
                "PARAMS_BELOW_FLOOR",
                "COHORT_TOO_SMALL",
                "INPUT_RANGE",
                "SHAPE_MISMATCH",
                "MODULUS_TOO_SMALL",
            ),
            "share of plays in which a lowered field is taken or the vector opens under a threshold of one",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="The analogue of a downgraded TLS handshake.",
        tries=54,
        schemes=("secagg", "secagg+", "ckks", "lattice"),
    ),
)
