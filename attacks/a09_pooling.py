"""A09: the server and t - 1 clients put their shares together.

Any t - 1 shares leave the seed uniform. The adversary interpolates them and tries every value that a leading
coefficient of 10 bits could have: with coefficients from a poor generator the seed that fits its commitment
comes out. The interpolated values of 10^4 sharings of one secret are tested for uniformity, and a server that
has t - 1 answers must not go on. Source: Shamir 1979.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.attacks import opening
from merveil.attacks.adversaries import POOL
from merveil.attacks.base import Attack, Finding, Public, Rule
from merveil.attacks.plays import UNIFORM_ALPHA, Guess, recovery, refusals, uniform_p
from merveil.protocols.primitives.agreement import public_bytes
from merveil.protocols.primitives.shamir import PRIME, coefficients_size, lagrange, split_pair
from merveil.protocols.secagg.keys import mask_scalar
from merveil.protocols.secagg.messages import Kind

BITS = 10
SHARINGS = 10_000


def interpolated(points: Sequence[int], shares: Sequence[bytes]) -> tuple[int, int]:
    """(base, factor): t - 1 shares leave secret = base - a * factor for the unknown leading coefficient a."""
    weights = lagrange(tuple(points))
    base = sum(w * int.from_bytes(s, "big") for w, s in zip(weights, shares)) % PRIME
    factor = sum(w * pow(x, len(points), PRIME) for w, x in zip(weights, points)) % PRIME
    return base, factor


def enumerate_seeds(points: Sequence[int], shares: Sequence[bytes]) -> list[bytes]:
    """Secrets for every small leading coefficient."""
    base, factor = interpolated(points, shares)
    values = ((base - a * factor) % PRIME for a in range(1 << BITS))
    return [v.to_bytes(32, "big") for v in values if v < 1 << 256]


def many_sharings(view: Any) -> NDArray[np.int64]:
    """Top byte of what t - 1 shares interpolate to, over 10^4 sharings of one secret."""
    t, rng = view.params.threshold, view.build.rng()
    points, secret = range(1, t), bytes(32)
    found = []
    for _ in range(SHARINGS // 2):
        randomness = rng.draw(2 * coefficients_size(t), "secagg/coefficients")
        pairs = split_pair(secret, secret, t, points, randomness)
        for side in (0, 1):
            base, _ = interpolated(points, [p[side] for p in pairs])
            found.append(min(base >> 248, 255))
    return np.array(found, dtype=np.int64)


def infer(view: Any, public: Public, rng: np.random.Generator) -> Guess:
    """The victim's vector from t - 1 pooled shares of both its seeds."""
    round_, t = view.round(), view.params.threshold
    victim, graph = 1 + int(rng.integers(view.size)), opening.graph(round_)
    holders = [i for i in graph.holders(victim) if i != victim]
    view.take_over(rng.choice(holders, t - 1, replace=False).tolist())
    round_.begin()
    requests = list(round_.run(Kind.REQUEST))
    pool = {i: opening.share_kept(round_, i, victim) for i in sorted(view.corrupt)}
    points = [graph.place(victim, i) + 1 for i in pool]
    seeds = enumerate_seeds(points, [h.seed_share for h in pool.values()])
    keys = enumerate_seeds(points, [h.key_share for h in pool.values()])
    said, context = opening.adverts(round_)[victim], round_.context.digest
    seed = next((s for s in seeds if opening.seed_fits(round_, victim, s)), None)
    key = None
    if seed is not None:
        key = next((k for k in keys if public_bytes(mask_scalar(context, k)) == said.mask_key), None)
    vector = None if seed is None or key is None else opening.open_vector(round_, victim, seed, key)
    for frame in requests[: t - 1]:
        round_.up(round_.hand(frame))
    view.attempt(0, round_.server.close_phase)
    sample = many_sharings(view) if view.number == 0 else None
    return Guess(victim, vector, refusals(view, among=[0]), sample=sample)


def score(guesses: Sequence[Guess], truths: Any, rng: np.random.Generator) -> Finding:
    """Share of vectors opened; the interpolated values must pass for uniform."""
    statistic = "share of plays in which t - 1 pooled shares open the victim's vector"
    found = recovery(("BELOW_THRESHOLD",), statistic)(guesses, truths, rng)
    values = np.concatenate([g.sample for g in guesses if g.sample is not None])
    p = uniform_p(values, 256)
    details = {**found.details, "uniform_p": p, "uniform_n": float(len(values))}
    return replace(found, held=found.held * float(p > UNIFORM_ALPHA), details=details)


ATTACKS = (
    Attack(
        id="A09",
        title="shares pooled below the threshold",
        plain_words="Can fewer devices than agreed, together with the server, open another device's message?",
        adversary=POOL,
        setting="protocol",
        infer=infer,
        score=score,
        rule=Rule(success=0.9, margin=0.1),
        source="Shamir 1979.",
        tries=40,
        schemes=("secagg", "secagg+"),
    ),
)
