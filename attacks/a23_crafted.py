"""A23: a start model made to leak: all units of its first layer measure the same, each from a threshold on.

The difference of two neighbouring units' gradients is the gradient of the clips between the two thresholds
alone; where that is one clip, dividing by the bias gives its pixels. It does not matter whether the clips are
one client's or a whole cohort's, so an exact sum does not help; what helps is to refuse the model (fl.gate).
A23-trap: rows that few inputs wake; a unit's own gradient, divided by its bias, is a clip where one woke it.
Sources: Fowl et al., ICLR 2022 (Robbing the Fed); Boenisch et al., EuroS&P 2023 (trap weights). LOKI needs
different models for different clients (A22); SEER is A23-seer.
"""

from typing import Any

import numpy as np

from merveil.attacks import reconstruction
from merveil.attacks.base import CRAFTER, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.reading import honest_sum
from merveil.attacks.replay import Replay, scaled

RANGE = 255.0
CLEAR = 40.0  # dB from which on a picture counts as the clip itself
LEAST = 1e-4  # of the largest bin: smaller ones hold no clip, or its loss had no slope


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"images": [k, h, w, c] of the bins that hold something}."""
    replay = Replay(public)
    weight, bias, shape = replay.hidden_layer()
    vector = honest_sum(view, public)
    dw, db = vector[weight].reshape(shape), vector[bias]
    # All units pass the same slope on, so each bin is the difference to the next threshold.
    bins, mass = dw - np.vstack([dw[1:], 0 * dw[:1]]), db - np.append(db[1:], 0.0)
    full = np.abs(mass) > LEAST * np.abs(mass).max()
    pixels = replay.net.raw(bins[full] / mass[full][:, None])
    return {"images": np.clip(pixels.reshape(-1, *public.shape), 0, RANGE)}


def infer_trap(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """{"images": [k, h, w, c] of the units that some clip woke}."""
    replay = Replay(public)
    weight, bias, shape = replay.hidden_layer()
    vector = honest_sum(view, public)
    dw, db = vector[weight].reshape(shape), vector[bias]
    full = np.abs(db) > LEAST * np.abs(db).max()
    pixels = replay.net.raw(dw[full] / db[full][:, None])
    return {"images": np.clip(pixels.reshape(-1, *public.shape), 0, RANGE)}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of the cohort's clips that some bin shows with 40 dB or more; nobody draws one by chance."""
    clear, best, n = 0, [], 0
    for guess, truth in zip(guesses, truths):
        true = scaled(truth.archive.x[np.concatenate(list(truth.held.values()))]).astype(np.float64)
        for image in true:
            found = reconstruction.psnr(guess["images"], image[None], RANGE)
            best.append(float(min(found.max(initial=0.0), 99.0)))
            clear, n = clear + int(best[-1] >= CLEAR), n + 1
    return proportion(
        clear,
        n,
        "share of the cohort's clips rebuilt with 40 dB or more from the published sum",
        "clips",
        details={"psnr_db_median": float(np.median(best))},
    )


ATTACKS = (
    Attack(
        id="A23",
        title="a crafted start model, read off the published sum",
        plain_words="If the server sends a model made for it, can it read participants' clips off the sum?",
        adversary=CRAFTER,
        setting="crafted",
        infer=infer,
        score=score,
        rule=Rule(success=0.75, margin=0.01),
        source="Fowl et al., ICLR 2022.",
        on_sum=True,
    ),
    Attack(
        id="A23-trap",
        title="a start model of trap rows, read off the published sum",
        plain_words="If few clips wake each unit of the server's model, can it read them off the sum?",
        adversary=CRAFTER,
        setting="trapped",
        infer=infer_trap,
        score=score,
        rule=Rule(success=0.5, margin=0.01),
        source="Boenisch et al., EuroS&P 2023.",
        on_sum=True,
    ),
)
