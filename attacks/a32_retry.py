"""A32: collect the answers, claim an abort, and run the round again without one client.

Each play does that; then simulated schedules follow, in which the server is stubborn, clients crash, sleep,
are given old snapshots and lose writes, and every attempt is checked: no client's vector in two sums of one
round, no frame before its ledger entry, no second answer.
Source: replay rules of draft-ietf-ppm-dap; single use in Bonawitz et al., CCS 2017.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from merveil.attacks.a03_replay import difference
from merveil.attacks.adversaries import RETRIER
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.protocols.simulation.faults import CRASHY, HOSTILE
from merveil.protocols.simulation.invariants import BrokenInvariant
from merveil.protocols.simulation.network import simulate

SCHEDULES = {"ckks": 1}  # simulated schedules a play; more of them in the full form
_USUAL = 5
MORE = 10  # times as many in each play of the full form: 10^4 in its 200 plays
STUBBORN = tuple(replace(f, stubborn=1.0) for f in (CRASHY, HOSTILE))


def broken_schedules(scheme: str, first: int, count: int) -> int:
    """How many of `count` schedules break an invariant; seeds from `first` on, so each one replays."""
    found = 0
    for seed in range(first, first + count):
        try:
            size = {"cohort": 3 + seed % 4, "dim": 1 + seed % 7}
            simulate(scheme, **size, seed=seed, faults=STUBBORN[seed % 2], attempts=3)
        except BrokenInvariant:
            found += 1
    return found


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector as the difference of two sums of one round."""
    victim = 1 + int(rng.integers(view.size))
    sums = []
    for attempt, silent in ((1, ()), (2, (victim,))):
        round_ = view.round(attempt=attempt, silent=silent).begin()
        round_.run()
        sums.append(view.attempt(0, round_.server.result) if attempt == 1 or not refusals(view) else None)
    codes = refusals(view)
    vector = None if None in sums else difference(view, sums[0].codes, sums[1].codes)
    count = SCHEDULES.get(view.build.scheme, _USUAL) * (1 if view.scale == 1 else MORE)
    count = count if view.build.whole else 0
    broken = broken_schedules(view.build.scheme, 10_000 * view.seed + view.number * count, count)
    figures = {"schedules": float(count), "broken schedules": float(broken)}
    return Guess(victim, vector, codes, right=broken > 0, figures=figures)


ATTACKS = (
    Attack(
        id="A32",
        title="a round claimed to have failed, and retried",
        plain_words="Can the server repeat a round without one participant and subtract the two results?",
        adversary=RETRIER,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("ROUND_REUSED", "BELOW_THRESHOLD"),
            "share of plays with two sums of one round, or a simulated schedule that leaks",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="draft-ietf-ppm-dap; Bonawitz et al., CCS 2017.",
        tries=40,
    ),
)
