"""A34: a second and a third subset on one ciphertext: fresh noise, the same key share.

The server has every decryptor answer three subsets on the true sum, in the same attempt or in the next one.
A lattice of dimension three takes the noise off, which gives the key shares and then the victim's vector.
Source: eprint 2024/194, 2025/409 and 2026/031.
"""

from typing import Any

import numpy as np

from merveil.attacks import ckks, ckks_forge
from merveil.attacks.adversaries import RETRIER
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals

SUBSETS = 3
DRAWS = 20
ENOUGH = 2.0**42  # noise is 2^36 here


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's codes under the key that the decryptors' repeated answers give away."""
    round_ = view.round().begin()
    signers = sorted({f.to for f in round_.run(until=ckks_forge.REQUEST)})
    victim = int(rng.choice(signers))
    parts = [ckks.part_of(round_, i) for i in signers]
    c1 = ckks.total(ckks.upload(round_, i)[1] for i in signers)
    view.refused.clear()
    shares = {}
    for to in signers[: view.params.threshold]:
        found = {}
        for subset in subsets(signers, to, view.params.threshold, rng):
            answer = ckks.answer_of(round_, round_.hand(ckks.request(round_, to, subset, parts)))
            if answer is not None:
                found[subset] = answer
        if len(found) < SUBSETS:
            view.attempt(to, lambda to=to: view.session(to, attempt=2).start())  # as after a failed round
            return Guess(victim, codes=refusals(view))
        shares[to] = ckks.from_retries(c1, to, found)
    key = ckks.joint_share(shares)
    return Guess(victim, ckks.opened(view.params, ckks.upload(round_, victim), key), refusals(view))


def subsets(signers: list[int], own: int, threshold: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Three subsets of signers that a decryptor belongs to, whose weights take much noise."""
    best: tuple[float, list[tuple[int, ...]]] = (0.0, [])
    others = [i for i in signers if i != own]
    for _ in range(DRAWS):
        drawn = [rng.choice(others, threshold - 1, replace=False).tolist() for _ in range(SUBSETS)]
        found = [tuple(sorted([own, *d])) for d in drawn]
        if len(set(found)) == SUBSETS:
            best = max(best, (ckks.reach(found, own), found))
        if best[0] > ENOUGH:
            break
    return best[1]


ATTACKS = (
    Attack(
        id="A34",
        title="a ciphertext opened by three subsets",
        plain_words="Can the server repeat the last step until the devices' keys show?",
        adversary=RETRIER,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("ROUND_REUSED", "MALFORMED_FRAME"),
            "share of plays in which repeated answers give the key and an upload",
        ),
        rule=Rule(success=0.9, margin=0.14),
        source="eprint 2024/194, 2025/409.",
        tries=25,
        schemes=("ckks",),
    ),
)
