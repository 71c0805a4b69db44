"""A31: joint decryption as an oracle: a client's crafted ciphertext, and a server's choice.

A31: a client uploads (0, K) in place of an encryption. The announced sum is then K times the joint secret
over the others' sum; where their coordinates stay below half of K's step the secret is read off, and opens
the victim's upload. A declared leak: nothing proves that an upload is an encryption.
A31-server: the server asks decryptors for one client's c1 instead of the sum's.
"""

from typing import Any

import numpy as np

from merveil.attacks import ckks, ckks_forge
from merveil.attacks.adversaries import BAD_INPUT
from merveil.attacks.base import Adversary, Attack, Power, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals

_SHARE = 64  # honest coordinates lie below clip/64: an update's largest coordinate sets the clip
ORACLE_SERVER = Adversary(
    "server that chooses what is decrypted",
    frozenset({0}),
    frozenset({Power.READ, Power.INJECT, Power.MODIFY}),
    "every frame, and the layout of a request",
)
_DIM = 4096  # a whole ciphertext, so that every coefficient of the secret is in the sum


def infer_client(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's codes under the secret that the announced sum holds."""
    view.dim = _DIM
    attacker, victim = rng.choice(np.arange(1, view.size + 1), 2, replace=False).tolist()
    view.take_over({attacker})
    levels = view.params.levels
    for i in view.honest:
        view.plant(i, 1, rng.integers(-(levels // _SHARE), levels // _SHARE + 1, view.params.size))
    round_, step = view.round(), levels // view.size
    factor = ckks_forge.unit(view.params) * step + 1  # not zero modulo any prime
    ckks_forge.uploads(round_, attacker, lambda f: ckks_forge.crafted(round_, f, factor))
    round_.run()
    outcome = round_.server.result()
    secret = np.rint(outcome.codes / step).astype(np.int64)
    upload = ckks.upload(round_, victim)
    return Guess(victim, ckks.opened(view.params, upload, ckks.as_secret(secret)))


def infer_server(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's codes from answers to a request for its c1 alone: its part repeated, or known others."""
    victim = 1 + int(rng.integers(view.size))
    round_ = view.round().begin()
    asked = sorted({f.to for f in round_.run(until=ckks_forge.REQUEST)})
    alive, signers = range(1, view.size + 1), asked[: view.params.threshold]
    repeated = view.number % 2 == 0
    own, known = ckks.part_of(round_, victim), ckks_forge.nothing(view.params.layout.ciphertexts)
    parts = [own if repeated or i == victim else known for i in alive]
    view.refused.clear()
    answers = [
        ckks.answer_of(round_, round_.hand(ckks.request(round_, to, signers, parts))) for to in signers
    ]
    if any(a is None for a in answers):
        return Guess(victim, codes=refusals(view))
    times = view.size if repeated else 1
    c0, _ = ckks.upload(round_, victim)
    plain = ckks.total([*[c0] * times, *(a for a in answers if a is not None)])
    return Guess(victim, ckks.read(view.params, plain) // times, refusals(view))


ATTACKS = (
    Attack(
        id="A31",
        title="a client's crafted ciphertext reads the key",
        plain_words="Can one cheating participant's device read what the others sent?",
        adversary=BAD_INPUT,
        setting="protocol",
        infer=infer_client,
        score=recovery((), "share of uploads read after one crafted ciphertext"),
        rule=Rule(success=0.9, margin=0.1),
        source="RLWE encryption without proofs is not secure against chosen ciphertexts.",
        tries=20,
        schemes=("ckks",),
    ),
    Attack(
        id="A31-server",
        title="a server has one client's ciphertext opened",
        plain_words="Can the server trick the devices into decrypting one participant's update?",
        adversary=ORACLE_SERVER,
        setting="protocol",
        infer=infer_server,
        score=recovery(("BAD_CIPHERTEXT",), "share of single uploads that decryptors open for the server"),
        rule=Rule(success=0.9, margin=0.1),
        source="RLWE encryption without proofs is not secure against chosen ciphertexts.",
        tries=40,
        schemes=("ckks",),
    ),
)
