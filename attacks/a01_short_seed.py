"""A01: enumerate the seeds of a mask and keep the one that leaves a plausible vector.

The adversary is given every help: it is the server and all clients but the victim and one neighbour, so one
pair mask alone hides the victim. It tries every key that a fold to 16 bits can give, and accepts when all
unmasked values lie in the clip range (by chance about 2^-70 a key). What stays masked is tested for
uniformity. Source of the weakness: frameworks that fold a seed to 32 bits before they expand it.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import opening
from merveil.attacks.adversaries import ALL_BUT_TWO
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.plays import UNIFORM_ALPHA, Guess, recovery, uniform_p
from merveil.attacks.protocol import Round
from merveil.protocols.primitives.prg import KEY, mask_range
from merveil.protocols.secagg.messages import Kind

BITS = 16  # of the fold; the quick form tries 2^16 keys in each of its plays, in all more than 2^20
PREFIX = 24  # words compared
_SAMPLE = 256


@lru_cache(maxsize=1)
def streams() -> NDArray[np.uint32]:
    """First words of the masks of all folded keys, [2^BITS, PREFIX]."""
    keys = (k.to_bytes(KEY, "big") for k in range(1 << BITS))
    return np.stack([np.asarray(mask_range(32, 0, PREFIX, [k], ()), dtype=np.uint32) for k in keys])


def one_mask_left(view: Any, rng: np.random.Generator) -> tuple[Round, int, int, NDArray[Any]]:
    """Play an honest round and take off every mask of the victim but one: round, victim, neighbour, rest."""
    victim = 1 + int(rng.integers(view.size))
    round_ = view.round()
    peer = int(rng.choice(opening.graph(round_).neighbours(victim)))
    view.take_over(set(view.honest) - {victim, peer})
    round_.begin().run(Kind.RELAY)
    pairs = opening.colluder_pairs(round_, victim)
    round_.run()
    seed = opening.combine(round_, victim, opening.from_answers(round_, victim, 0, {}))
    return round_, victim, peer, opening.take_off(round_, victim, seed, pairs)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector under the first folded key that leaves a plausible prefix."""
    view.dim = _SAMPLE
    round_, victim, peer, left = one_mask_left(view, rng)
    bits, levels = view.params.modulus_bits, view.params.levels
    word = np.uint32((1 << bits) - 1)
    head, masks = left[:PREFIX].astype(np.uint32), streams()
    rest = (head - masks if victim < peer else head + masks) & word
    plausible = np.flatnonzero(((rest <= levels) | (rest >= (1 << bits) - levels)).all(axis=1))
    sample = (left >> (bits - 8)).astype(np.int64)
    guess = Guess(victim, sample=sample, figures={"keys tried": float(1 << BITS)})
    if not len(plausible):
        return guess
    key = int(plausible[0]).to_bytes(KEY, "big")
    mask = mask_range(bits, 0, left.size, [key], ())
    whole = (left - mask if victim < peer else left + mask) & left.dtype.type((1 << bits) - 1)
    return replace(guess, vector=opening.signed(round_, whole))


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of vectors recovered; the defence holds where the masked values pass for uniform."""
    found = recovery((), "share of plays in which a folded seed is found and the vector recovered")(
        guesses, truths, rng
    )
    values = np.concatenate([g.sample for g in guesses if g.sample is not None])
    p = uniform_p(values, 256)
    details = {**found.details, "uniform_p": p, "uniform_n": float(len(values))}
    return replace(found, held=float(p > UNIFORM_ALPHA), details=details)


ATTACKS = (
    Attack(
        id="A01",
        title="short seed, found by trying all",
        plain_words="Can the server guess the number that a device's mask is made from?",
        adversary=ALL_BUT_TWO,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.1),
        source="A framework that folds mask seeds to 32 bits.",
        tries=40,
        schemes=("secagg", "secagg+"),
    ),
)
