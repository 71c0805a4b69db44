"""A06: a cohort in which the victim stands alone among clients of the server's making.

Each play tries a roster that the server signed itself, the true roster with a puppet written into it, and a
cohort so small that too few inputs would be honest. With open enrolment the sum of n - 1 known vectors and
the victim's gives the victim's away. The figures name the chance, over the beacon, that a sparse graph puts t
corrupt clients around some client. A06-neighbours: as many of the victim's neighbours as the parameters
tolerate collude; in the control all of them, as on a graph that the server chose.
Source: Bell et al., CCS 2020; So et al., AAAI 2023.
"""

import math
import time
from typing import Any

import numpy as np

from merveil.attacks import opening
from merveil.attacks.adversaries import SYBIL
from merveil.attacks.base import Attack, Public, Rule
from merveil.attacks.plays import Guess, recovery, refusals
from merveil.mer.extras import need
from merveil.protocols.identity import Coordinator
from merveil.protocols.primitives.sign import SIGNATURE
from merveil.protocols.secagg.graph import find_degree
from merveil.protocols.secagg.messages import Kind

GAMMA = 0.1
COHORTS = (20, 100, 1000, 10_000)


def isolation_log2(cohort: int, gamma: float = GAMMA) -> float | None:
    """log2 of the chance that some client has t corrupt neighbours, enough to open it; None where none can.

    Hypergeometric over floor(gamma n) corrupt clients, with a union bound over the clients.
    """
    degree, corrupt = find_degree(cohort, gamma), math.floor(gamma * cohort)
    if degree is None or corrupt < degree.threshold:
        return None
    tail = need("scipy.stats", "attacks").hypergeom.logsf(
        degree.threshold - 1, cohort - 1, corrupt, degree.neighbours
    )
    return float((tail + math.log(cohort)) / math.log(2))


def minted(view: Any) -> bytes:
    """A roster of the true members, signed by the server as its own coordinator."""
    now = int(time.time())
    members = [view.roster.member(i) for i in range(1, view.size + 1)]
    return (
        Coordinator.generate().sign(members, serial=1, not_before=now - 60, expires=now + 3600, max_rounds=9)
    ).data


def doctored(view: Any) -> bytes:
    """The true roster's head and signature around a first member of the server's choice."""
    body, signature = view.roster.data[:-SIGNATURE], view.roster.data[-SIGNATURE:]
    return bytes(body.replace(view.roster.member(1).sign_key, bytes(31) + b"\x09") + signature)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector as the sum less the puppets' vectors, by the first roster that is taken."""
    victim = 1 + int(rng.integers(view.size))
    view.take_over(set(view.honest) - {victim})
    for i in view.corrupt:
        view.plant(i, 1, np.zeros(view.params.size, dtype=np.int64))
    found = {f"isolation_log2_{n}": isolation_log2(n) for n in COHORTS}
    figures = {name: value for name, value in found.items() if value is not None}
    for data in (minted(view), doctored(view)):
        roster = view.attempt(victim, lambda data=data: view.build.enrol(data, view.roster.anchor))
        if roster is not None:
            view.roster = roster
            round_ = view.round().begin()
            round_.run()
            outcome = view.attempt(0, round_.server.result)
            return Guess(victim, getattr(outcome, "codes", None), refusals(view), figures=figures)
    params = type(view.params)(**few(view.params))
    view.attempt(victim, lambda: view.session(victim, params=params))
    return Guess(victim, None, refusals(view), figures=figures)


def few(params: Any) -> dict[str, Any]:
    """The parameters of a cohort of three, in which two honest inputs may be all that a sum holds."""
    made = {name: getattr(params, name) for name in params.__dataclass_fields__}
    board = {"members": 3, "quorum": 2, "corrupt_members": 0, "pack": 1} if "members" in made else {}
    return made | board | {"cohort": 3, "threshold": 2, "corrupt": 0, "neighbours": 0}


def infer_neighbours(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector less every mask that its colluding neighbours and the opened sum give away."""
    victim, round_ = 1 + int(rng.integers(view.size)), view.round()
    around = [int(i) for i in rng.permutation(opening.graph(round_).neighbours(victim))]
    view.take_over(around if view.build.surrounded else around[: view.params.corrupt])
    round_.begin().run(Kind.RELAY)
    pairs = opening.colluder_pairs(round_, victim)
    round_.run()
    seed = opening.combine(round_, victim, opening.from_answers(round_, victim, 0, {}))
    left = opening.take_off(round_, victim, seed, pairs)
    figures = {"colluders": float(len(view.corrupt)), "neighbours": float(len(around))}
    return Guess(victim, opening.signed(round_, left), refusals(view), figures=figures)


ATTACKS = (
    Attack(
        id="A06",
        title="a cohort of puppets around one client",
        plain_words="Can the server fill a round with invented participants, so that one real one is left?",
        adversary=SYBIL,
        setting="protocol",
        infer=infer,
        score=recovery(
            ("BAD_SIGNATURE", "COHORT_TOO_SMALL", "ROSTER_MISMATCH"),
            "share of plays in which puppets are taken and the victim's vector is left over",
        ),
        rule=Rule(success=0.9, margin=0.1),
        source="Bell et al., CCS 2020; So et al., AAAI 2023.",
        tries=40,
        schemes=("secagg", "secagg+", "ckks", "lattice"),
    ),
    Attack(
        id="A06-neighbours",
        title="a client whose neighbours in the sparse graph collude",
        plain_words="If those who share masks with one participant work for the server, is it laid open?",
        adversary=SYBIL,
        setting="protocol",
        infer=infer_neighbours,
        score=recovery((), "share of victims whose vector is recovered from their neighbours' masks"),
        rule=Rule(success=0.9, margin=0.15),
        source="Bell et al., CCS 2020.",
        tries=25,
        schemes=("secagg+",),
    ),
)
