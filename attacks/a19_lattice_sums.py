"""A19: sums of lattice keys that overlap, and least squares on the sums of many rounds.

Two opened key sums whose survivors differ by one client give that client's key, and so its vector. `A19`
shows the committee two lists in one round, in three orders. `A19-rounds` drops another client in each round
and solves the key sums, which the server learns in every round, for the victim's key by least squares.
Source: OPA, 2024; Kim, Lee, Seo, Song (Hint-RLWE), CRYPTO 2023.
"""

from typing import Any

import numpy as np

from merveil.attacks import lattice
from merveil.attacks.adversaries import EQUIVOCATOR, RETRIER
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.lattice.messages import Kind

ORDERS = (
    ("true", "ask", "lie", "ask"),
    ("lie", "ask", "true", "ask"),
    ("true", "lie", "ask", "true", "ask"),
)


class Lists:
    """A round in which members are told of two survivor sets; what they signed and answered."""

    def __init__(self, view: Any, round_: Any, victim: int) -> None:
        self.round, everyone = round_, list(round_.context.cohort)
        self.alive = {"true": everyone, "lie": [i for i in everyone if i != victim]}
        self.asked = [m for m in lattice.members(round_) if m != victim]
        self.signed: dict[str, dict[int, bytes]] = {"true": {}, "lie": {}}
        self.last: dict[int, str] = {}
        self.sums: dict[str, dict[int, Any]] = {"true": {}, "lie": {}}

    def tell(self, member: int, which: str) -> None:
        for f in self.round.hand(lattice.list_frame(self.round, member, self.alive[which])):
            if f.kind == Kind.SIGNED:
                self.signed[which][member], self.last[member] = f.signature, which

    def ask(self, member: int) -> None:
        which = self.last.get(member, "true")
        frame = lattice.request_frame(self.round, member, self.signed[which])
        found = lattice.answer_of(self.round, self.round.hand(frame))
        if found is not None:
            self.sums[which][member] = found


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector under the difference of two key sums of one round."""
    victim = 1 + int(rng.integers(view.size))
    round_ = view.round().begin()
    round_.run(until=Kind.SURVIVORS)
    round_.down = []
    two = Lists(view, round_, victim)
    for step in ORDERS[view.number % len(ORDERS)]:
        for m in two.asked:
            if step == "ask":
                two.ask(m)
            else:
                two.tell(m, step)
    sums = [lattice.key_sum(round_, two.sums[which]) for which in ("true", "lie")]
    found = lattice.upload(round_, victim)
    if sums[0] is None or sums[1] is None or found is None:
        return Guess(victim, None, refusals(view))
    vector = lattice.opened(view.params, round_.context.digest, found, sums[0] - sums[1])
    return Guess(victim, vector, refusals(view))


def infer_rounds(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's first vector under the least-squares estimate of its key over n + 1 rounds."""
    victim = 1 + int(rng.integers(view.size))
    rows, sums, first = [], [], None
    for number in range(1, view.size + 2):
        silent = () if number == 1 else (number - 1,)
        round_ = view.round(round=number, silent=silent).begin()
        first = first or round_
        answers: dict[int, Any] = {}
        round_.run()
        for (kind, i), f in round_.heard.items():
            if kind == Kind.ANSWER:
                answers[i] = lattice.answer_of(round_, [f])
        found = lattice.key_sum(round_, answers)
        if found is not None:
            rows.append([float(i not in silent) for i in round_.context.cohort])
            sums.append(found)
    figures = {"key sums": float(len(sums))}
    upload = lattice.upload(first, victim) if first is not None else None
    if upload is None or not sums:
        return Guess(victim, None, refusals(view), figures=figures)
    solved, *_ = np.linalg.lstsq(np.array(rows), np.array(sums, dtype=np.float64), rcond=None)
    key = np.rint(solved[victim - 1]).astype(np.int64)
    vector = lattice.opened(view.params, first.context.digest, upload, key)
    return Guess(victim, vector, refusals(view), figures=figures)


ATTACKS = (
    Attack(
        id="A19",
        title="two overlapping sums of lattice keys",
        plain_words="Can the server have two overlapping groups opened in one round, and subtract them?",
        adversary=EQUIVOCATOR,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("ROSTER_MISMATCH", "BAD_SIGNATURE", "BELOW_THRESHOLD", "MALFORMED_FRAME"),
            "share of plays in which two key sums of a round give the victim's key and vector",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="OPA, 2024.",
        tries=42,
        schemes=("lattice",),
    ),
    Attack(
        id="A19-rounds",
        title="least squares on the key sums of many rounds",
        plain_words="Do the keys that the server learns in sum give single keys away over many rounds?",
        adversary=RETRIER,
        setting="protocol",
        infer=infer_rounds,
        score=recovery((), "share of plays in which least squares on key sums gives the victim's vector"),
        rule=Rule(success=0.9, margin=0.14),
        source="Kim, Lee, Seo, Song, CRYPTO 2023.",
        tries=25,
        schemes=("lattice",),
    ),
)
