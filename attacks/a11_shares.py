"""A11: one bit of a share is flipped, by its holder, by the relay, or by its dealer.

In each play a holder signs answers with a flipped share (several flips, each offered to a fresh copy of the
server), the relay flips a bit in a sealed share, and in the next round a dealer seals a share that
contradicts its own commitment. A flip that changes the sum without a word is the attack's success.
Source: verifiable secret sharing, Feldman 1987.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import SHARE_TAMPERER
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.findings import proportion
from merveil.attacks.plays import Guess, figures
from merveil.protocols.frame import Frame
from merveil.protocols.primitives.shamir import SHARE
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.messages import Kind

FLIPS = 10  # a play; four in a large cohort, where each costs more


def flip(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << (bit % 8)
    return bytes(out)


def resigned(round_: Any, frame: Frame, body: bytes) -> Frame:
    """A corrupted client's frame with another body, signed again."""
    sid = opening.session_id(round_, frame.sender)
    return replace(frame, body=body).signed(round_.field.key(frame.sender).sign_key, sid)


def flipped_answers(view: Any, round_: Any, holder: int, rng: np.random.Generator) -> list[Any]:
    """What copies of the server give when one share in the holder's answer has a flipped bit."""
    requests = list(round_.run(Kind.REQUEST))
    blob, answers = round_.server.suspend(), []
    for frame in requests:
        answers += round_.hand(frame)
    true = next(f for f in answers if f.sender == holder)
    entries = len(true.body) // msg.REVEALED
    given = []
    for _ in range(FLIPS if view.size < 10 else 4):
        at = 8 * msg.REVEALED * int(rng.integers(entries)) + int(rng.integers(1, 8 * SHARE))
        wrong = resigned(round_, true, flip(true.body, at))
        server = view.build.server(view.build.scheme, snapshot=blob, **view.settings())
        for frame in [wrong if f.sender == holder else f for f in answers]:
            view.attempt(0, lambda s=server, f=frame: s.receive(f.sender, f.encode()))
        given.append(view.attempt(0, server.result))
        for code in server.excluded.values():
            view.refused.append((0, code.name))
    return given


def relay_flips(view: Any, round_: Any, rng: np.random.Generator) -> bool:
    """Whether a client takes a sealed share with a flipped bit. Leaves the round at RELAY."""
    frame = round_.run(Kind.RELAY)[0]
    start = len(frame.body) - msg.BOX
    at = 8 * start + int(rng.integers(8 * msg.BOX))
    before = len(view.refused)
    round_.hand(replace(frame, body=flip(frame.body, at)))
    return len(view.refused) == before


def wrong_dealer(view: Any, round_: Any, dealer: int, rng: np.random.Generator) -> bool:
    """Whether a share that contradicts its dealer's commitment is taken."""
    state = round_.own(dealer)._state
    holder = next(i for i in opening.graph(round_).neighbours(dealer))
    held = state.dealt[holder]
    state.dealt[holder] = held._replace(seed_share=flip(held.seed_share, int(rng.integers(1, 8 * SHARE))))
    before = len(view.refused)
    round_.run()
    return len(view.refused) == before


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """Results of the flips of a play: sums [k, size] that were announced, and what was refused."""
    view.take_over([1])
    first = view.round(round=1).begin()
    given = flipped_answers(view, first, 1, rng)
    sums = np.array([g.codes for g in given if g is not None]).reshape(-1, view.params.size)
    second = view.round(round=2).begin()
    relayed = relay_flips(view, second, rng)
    third = view.round(round=3).begin()
    dealt = wrong_dealer(view, third, 1, rng)
    codes = tuple(code for _, code in view.refused)
    taken = {"flipped boxes taken": float(relayed), "wrong dealings taken": float(dealt)}
    tried = {"flips": float(len(given) + 2)}
    return Guess(1, None, codes, right=relayed or dealt, sample=sums, figures=taken | tried)


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of flips that changed the sum without a word; the defence must be seen in every play."""
    silent = n = 0
    for guess, truth in zip(guesses, truths):
        total = np.sum([v for (_, which), v in truth.items() if which == 1], axis=0)
        silent += int((guess.sample != total).any(axis=1).sum()) if guess.sample is not None else 0
        silent += int(sum(v for name, v in guess.figures.items() if name.endswith("taken")))
        n += int(guess.figures["flips"])
    held = np.mean([{"BAD_SHARE", "BAD_KEY"} <= set(g.codes) for g in guesses])
    return proportion(
        silent, n, "share of flipped shares that change the sum without a word", "flips", float(held),
        figures(guesses),
    )  # fmt: skip


ATTACKS = (
    Attack(
        id="A11",
        title="flipped bits in shares",
        plain_words="If a device alters a share, can the result be wrong without anybody noticing?",
        adversary=SHARE_TAMPERER,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.6, margin=0.02),
        source="Feldman 1987.",
        tries=40,
        schemes=("secagg", "secagg+"),
    ),
)
