"""A30: is enough noise left in a sum once dropouts are gone and colluders have taken theirs away?

Rounds run through the scheme's real frames with as many dropouts and colluders as it admits, on updates that
the server knows (zero). What is left must be noise of the variance that the guarantee needs. The attacker
also tries noise that a seed would give, and two rounds against each other. A game is lost where the variance
lies below the target by more than chance explains (chi-square, one in a million over all tries): the noise
is fresh in every run, and chance must not fail a bench of some hundred games.
Source: Kairouz et al. 2021; Agarwal et al. 2021; Dordis, EuroSys 2024; Opacus issue 616.
"""

from typing import Any

import numpy as np

from merveil.attacks.base import CURIOUS_SERVER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.noise import variance_quantile
from merveil.protocols.rng import SeededRng

ALPHA = 1e-6  # of one game, over all its tries
SCHEMES = ("plain", "secagg", "secagg+", "lattice")  # that distributed noise composes with (fl.dp_options)
SEEDS = 8  # that are tried as the source of a share


def remains(view: Any) -> list[np.ndarray]:
    """What is left of the first round after each try: nothing more, a seed's shares, the second round's."""
    first, second = view.seen
    mechanism = view.mechanism
    tries = [first, (first - second) / np.sqrt(2)]
    for seed in range(SEEDS):
        guess = mechanism.quantise(np.zeros(mechanism.dim), bytes(32), rng := SeededRng(seed))
        guess = guess + mechanism.table().draw(mechanism.size, rng)
        scale = np.rint((first @ guess) / max(1, guess @ guess))
        tries.append(first - scale * guess)
    return tries


def infer(view: Any, public: Public, rng: np.random.Generator) -> Any:
    """view: an `attacks.games.ShareGame`. Least mean square that is left, the first round's values."""
    left = [float(np.mean(np.square(values.astype(np.float64)))) for values in remains(view)]
    return {"variance": min(left), "tries": len(left), "sample": view.seen[0], "size": view.seen.shape[1]}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of games with a deficit; details: variance over target, pooled, with its lower limit."""
    deficits = [
        g["variance"] / target < variance_quantile(ALPHA / g["tries"], g["size"])
        for g, target in zip(guesses, truths)
    ]
    pooled = np.concatenate([g["sample"] for g in guesses]).astype(np.float64)
    mean = float(np.mean(pooled**2)) / truths[0]
    details = {
        "variance over target": mean,
        "lower limit of that": mean / variance_quantile(1 - ALPHA, len(pooled)),
        "least left over target": min(g["variance"] / t for g, t in zip(guesses, truths)),
    }
    return proportion(
        sum(deficits),
        len(deficits),
        "share of rounds with less unknown noise than the guarantee needs",
        "rounds",
        details=details,
    )


ATTACKS = (
    Attack(
        id="A30",
        title="noise that is missing from a sum",
        plain_words="If devices drop out or work with the server, is enough noise left in the result?",
        adversary=CURIOUS_SERVER,
        setting="noise",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.2),
        source="Kairouz et al., ICML 2021; Agarwal et al., NeurIPS 2021; Dordis, EuroSys 2024.",
        tries=20,
        schemes=SCHEMES,
    ),
    Attack(
        id="A30-central",
        title="the sum before the server's own noise",
        plain_words="Where the server adds the noise, does the server itself see the result without it?",
        adversary=CURIOUS_SERVER,
        setting="noise",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.2),
        source="The trust that central differential privacy asks for.",
        tries=20,
        schemes=SCHEMES[:3],
    ),
)
