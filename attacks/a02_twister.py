"""A02: recover a Mersenne Twister from 624 known mask words, then predict the rest of the mask.

Where a client's values are known (frozen or padded coordinates, here the first 624 of 1,024), its frame gives
the mask words away. A linear generator over GF(2) is solved from them: with full words by inverting the
output's tempering. The same prediction is made whatever generator is in use, and compared bit by bit.
Source: Matsumoto and Nishimura 1998 for the generator; its tempering is invertible.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks.a01_short_seed import one_mask_left
from merveil.attacks.adversaries import ALL_BUT_TWO
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.plays import Guess

STATE = 624
REST = 400
WORD = 32


def untemper(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The state words behind outputs of MT19937."""
    y = words.copy()
    y ^= y >> np.uint32(18)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    once = y.copy()
    for _ in range(4):  # 7 bits of the shift are undone at a time
        y = once ^ ((y << np.uint32(7)) & np.uint32(0x9D2C5680))
    once = y.copy()
    for _ in range(2):
        y = once ^ (y >> np.uint32(11))
    return y


def predict(known: NDArray[np.uint32], count: int) -> NDArray[np.uint32]:
    """The words that follow 624 known ones if they came from MT19937."""
    generator = np.random.MT19937()
    generator.state = {"bit_generator": "MT19937", "state": {"key": untemper(known), "pos": STATE}}
    return np.asarray(generator.random_raw(count), dtype=np.uint32)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's unknown values [REST] as residues, by the predicted mask."""
    view.dim, view.bits = STATE + REST, WORD - (view.size - 1).bit_length()
    for i in range(1, view.size + 1):
        codes = view.vector(i, 1).copy()
        codes[:STATE] = 0  # frozen coordinates: everyone knows that they did not move
        view.plant(i, 1, codes)
    _, victim, peer, left = one_mask_left(view, rng)
    left = left.astype(np.uint32)
    plus = victim < peer
    known = left[:STATE] if plus else -left[:STATE]
    mask = predict(known, REST)
    rest = left[STATE:] - mask if plus else left[STATE:] + mask
    return Guess(victim, sample=rest)


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of the bits of the unknown values that the prediction gets right; a coin gets half."""
    hits = n = 0
    for guess, truth in zip(guesses, truths):
        want = truth[guess.victim, 1][STATE:].astype(np.uint32)
        wrong = np.bitwise_xor(want, np.asarray(guess.sample, dtype=np.uint32))
        n += WORD * len(want)
        hits += WORD * len(want) - int(np.unpackbits(wrong.view(np.uint8)).sum())
    return proportion(hits, n, "share of bits right behind a predicted mask", "bits", chance=0.5)


ATTACKS = (
    Attack(
        id="A02",
        title="mask words predicted from known ones",
        plain_words="If the server knows part of a device's numbers, can it work out the rest?",
        adversary=ALL_BUT_TWO,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.99, margin=0.01),
        source="Linear generators; a framework that masks with a Mersenne Twister.",
        tries=8,
        schemes=("secagg", "secagg+"),
    ),
)
