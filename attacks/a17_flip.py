"""A17: one bit flipped in a client's frame on the way: is the frame taken all the same?

Every frame that a client sends to the server is offered with single random bits flipped before the honest
frame follows. A frame taken with a flipped bit is a silent error in the sum.
Why: ciphertexts that are secure against chosen plaintexts only take most such flips without a word.
"""

from typing import Any

import numpy as np

from merveil.attacks.base import NETWORK, Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.wire import Offer

FLIPS = 80  # a frame; five clients give at least 400


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def infer(view: Any, public: Public, rng: np.random.Generator) -> dict[str, Any]:
    """view: a `Wire`. {"tried": flips, "taken": frames accepted with a flipped bit, "exact": sum right}."""
    tried, taken = 0, 0

    def on_frame(sender: int, data: bytes, offer: Offer) -> None:
        nonlocal tried, taken
        for bit in rng.integers(0, 8 * len(data), FLIPS):
            tried += 1
            taken += offer(flipped(data, int(bit)))

    outcome, submitted = view.play(on_frame, rng)
    return {"tried": tried, "taken": taken, "exact": bool((outcome.codes == submitted).all())}


def score(guesses: Any, truths: Any, rng: np.random.Generator) -> Finding:
    """Share of flipped frames that were taken; nobody takes one by chance."""
    tried, taken = (sum(g[k] for g in guesses) for k in ("tried", "taken"))
    return proportion(
        taken,
        tried,
        "share of frames with one flipped bit that the server takes",
        "flipped frames",
        details={"rounds_with_exact_sum": float(np.mean([g["exact"] for g in guesses]))},
    )


ATTACKS = (
    Attack(
        id="A17",
        title="a flipped bit on the way",
        plain_words="If a message is damaged or altered on the way, does the server notice?",
        adversary=NETWORK,
        setting="wire",
        infer=infer,
        score=score,
        rule=Rule(success=0.2, margin=0.01),
        source="Bare homomorphic ciphertexts take most flips: CPA security only.",
    ),
)
