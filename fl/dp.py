"""Client-level differential privacy of a federated run, through any scheme with exact sums.

`distributed`: every client adds its share of the noise before masking; at least `honest` shares of clients
that do not collude are in every sum that the scheme can open. Under `plain` the server sees each upload by
itself, so a share is the whole noise. `central`: a trusted server adds the noise to the sum.

Guarantee: an upload is charged to the budget before it leaves; weights are 1; no class counts, clip counts or
cut shares are given out. Assumes: what survives a round is public, and does not depend on the data.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.fl.aggregator import Aggregate, SecureAggregator
from merveil.fl.dp_ledger import RELATION, Budget, BudgetSpent
from merveil.fl.options import TrainOptions
from merveil.mer.errors import InputError
from merveil.mer.models.registry import get
from merveil.protocols.dp.accountant import epsilon
from merveil.protocols.dp.discrete import Charged, Mechanism, solve
from merveil.protocols.errors import LocalError
from merveil.protocols.params import Params
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.registry import get as get_scheme

Floats = NDArray[np.float64]
PARTICIPATION = "every client in every charged round"


STRETCH = 2.0  # noise over that of an untouched budget, from which on a training is refused


def mechanism_for(options: TrainOptions, dim: int, clients: int, budget: Budget) -> Mechanism:
    """The mechanism whose noise lets all rounds stay within what is left of the budget.

    InputError: delta is no smaller than one over the clients. BudgetSpent: nothing is left, or so little that
    the noise would be more than STRETCH times that of the whole budget. LocalError: no noise fits.
    """
    if options.delta * clients >= 1:
        raise InputError(
            f"--delta {options.delta:g} with {clients} clients: a mechanism that publishes one client whole "
            f"would pass; use less than {1 / clients:.2g}"
        )
    whole = _solved(options, dim, clients)
    if not budget.spent:
        return whole
    if budget.epsilon() >= options.epsilon:
        raise BudgetSpent(f"the budget is spent: {_left(options, whole, budget)}")
    try:
        found = _solved(options, dim, clients, budget.spent)
    except LocalError as error:  # the whole budget's noise fits, so what is left is too little
        raise BudgetSpent(f"the budget is nearly spent ({error}): {_left(options, whole, budget)}") from error
    factor = found.release().multiplier / whole.release().multiplier
    if factor > STRETCH:
        raise BudgetSpent(
            f"the budget is nearly spent: the rest would take {factor:.3g} times the noise of a first "
            f"training, and more than {STRETCH:g} times is refused: {_left(options, whole, budget)}"
        )
    return found


def _paid(options: TrainOptions, budget: Budget) -> str:
    return (
        f"{budget.uploads} uploads cost epsilon {budget.epsilon():.4g} of {options.epsilon:g} at delta "
        f"{options.delta:g}"
    )


def _left(options: TrainOptions, whole: Mechanism, budget: Budget) -> str:
    """What was paid, what the training needs, and what can be done; whole: with the noise of a first one."""
    needed = epsilon([*budget.spent, (whole.release(), options.rounds)], options.delta)
    return (
        f"{_paid(options, budget)}; {options.rounds} rounds with the noise of a first training would bring "
        f"it to {needed:.4g}. Use that as --epsilon, if those whom it protects agree; fewer rounds get the "
        "same share of what is left and do not help. Other people, or another unit, are another federation "
        "with a budget of its own; a new ledger for the same ones would only hide what they paid"
    )


def _solved(options: TrainOptions, dim: int, clients: int, spent: Charged = ()) -> Mechanism:
    central = options.dp.startswith("central")
    return solve(
        "gaussian" if central else options.dp_noise,
        dim,
        clients,
        1 if central else get_scheme(options.scheme).params(clients, 1).honest,
        options.norm_clip,
        target=options.epsilon,
        delta=options.delta,
        rounds=options.rounds,
        bits=options.bits,
        central=central,
        spent=spent,
    )


def stretched(options: TrainOptions, mechanism: Mechanism, budget: Budget) -> str:
    """One line for the log of a training that begins on a budget that was used before; else empty."""
    if not budget.spent:
        return ""
    whole = _solved(options, mechanism.dim, mechanism.cohort)
    factor = mechanism.release().multiplier / whole.release().multiplier
    return (
        f"the budget was used before: {_paid(options, budget)}; the noise is {factor:.3g} times that of a "
        "first training"
    )


DROWNED = 3.0  # from so many times the longest mean update on, a run says how long its noise is


def noise_to_clip(mechanism: Mechanism) -> float:
    """2-norm of the noise of a mean of all clients over that of the longest mean update there can be."""
    return mechanism.noise_of_mean(mechanism.cohort) * math.sqrt(mechanism.dim) / mechanism.norm_clip


def drowned(options: TrainOptions, mechanism: Mechanism) -> str:
    """One line for the log of a training whose noise is much longer than its updates can be; else empty."""
    ratio = noise_to_clip(mechanism)
    if ratio < DROWNED:
        return ""
    smaller = "" if "private" in get(options.model).recipes else "a smaller network (flow-softmax), "
    return (
        f"the noise of a round is {ratio:.2g} times as long as the longest mean update of {mechanism.cohort} "
        f"clients over {mechanism.dim:,} parameters can be: expect to lose recognition; {smaller}more "
        "clients or a larger epsilon help (`merveil privacy`)"
    )


def remarks(options: TrainOptions, mechanism: Mechanism, budget: Budget) -> list[str]:
    """What a new training says about its noise before it begins."""
    return [said for said in (stretched(options, mechanism, budget), drowned(options, mechanism)) if said]


class PrivateAggregator:
    """Private means of updates: SecureAggregator's sums of what the mechanism makes of them."""

    def __init__(
        self,
        scheme: str,
        mechanism: Mechanism,
        budget: Budget,
        *,
        record: bool = False,
    ) -> None:
        self.mechanism, self.budget = mechanism, budget
        self._scheme = get_scheme(scheme)
        self._sums = SecureAggregator(scheme, record=record)
        self._release = mechanism.release()

    def params(self, clients: int) -> Params:
        """The scheme's parameters on the mechanism's grid, held against what the accountant assumes."""
        m = self.mechanism
        found = self._scheme.params(clients, m.size, bits=m.bits, clip=m.clip)
        m.check(found)
        return found

    def mean(
        self,
        updates: Sequence[Floats],
        weights: Sequence[int] | None = None,
        drop: Mapping[int, str] | None = None,
        *,
        model_hash: bytes,
    ) -> Aggregate:
        """The noisy mean over the survivors; `cut` is not told and 0.

        Charged before anything is sent, whether the round then succeeds or not. Raises LocalError for weights
        or a bad update (naming the client), BudgetSpent, Aborted.
        """
        if weights is not None:
            raise LocalError("differential privacy takes no weights: a weight is a private count")
        m, params = self.mechanism, self.params(len(updates))
        public = hash_fields("dp/1/rotation", model_hash)
        codes = []
        for i, update in enumerate(updates):
            try:
                codes.append(m.encode(update, public))
            except LocalError as error:
                raise LocalError(f"client {i}: {error}", error.code) from error
        self.budget.charge(self._release)
        total = self._sums.total(codes, params, drop, model_hash=model_hash)
        noisy = m.noisy(total.codes) if m.central else total.codes
        count = len(total.survivors)
        value = m.decode(noisy, count, public)
        return Aggregate(value, total.survivors, total.uplink_bytes, 0.0, count, total.transcript)


def federation_id(data_sha256: str, clients: str) -> str:
    """Whose budget it is: the same data under the same client rule."""
    return hashlib.sha256(f"merveil/fl/1/budget:{data_sha256}:{clients}".encode()).hexdigest()[:24]


def to_json(mechanism: Mechanism) -> dict[str, Any]:
    """A mechanism as plain values; `from_json` reads it back."""
    return {
        "kind": mechanism.kind,
        "dim": mechanism.dim,
        "cohort": mechanism.cohort,
        "honest": mechanism.honest,
        "norm_clip": mechanism.norm_clip,
        "steps": mechanism.steps,
        "variance": str(mechanism.variance),
        "central": mechanism.central,
        "tail": mechanism.tail,
    }


def from_json(value: Mapping[str, Any]) -> Mechanism:
    """LocalError or KeyError where the values describe no mechanism."""
    return Mechanism(**{**value, "variance": Fraction(value["variance"])})


def report(options: TrainOptions, mechanism: Mechanism, budget: Budget) -> dict[str, Any]:
    """The guarantee of a run as it goes into its JSON."""
    release = mechanism.release()
    return {
        "dp": options.dp.split("+")[0],
        "unit": options.dp_unit,
        "relation": RELATION,
        "participation": PARTICIPATION,
        "epsilon": budget.epsilon(),
        "target_epsilon": options.epsilon,
        "delta": options.delta,
        "uploads": budget.uploads,
        "noise": mechanism.kind,
        "noise_multiplier": release.multiplier,
        "noise_to_clip": noise_to_clip(mechanism),
        "norm_clip": mechanism.norm_clip,
        "honest_shares": mechanism.honest,
        "clients": mechanism.cohort,
        "grid_steps": mechanism.steps,
        "grid_bits": mechanism.bits,
        "padded_dim": mechanism.size,
        "omega": float(release.omega),
        "accountant": f"RDP of {mechanism.kind} noise at integer orders, optimal conversion, omega in delta",
        "against": against(options, mechanism),
    }


def against(options: TrainOptions, mechanism: Mechanism) -> str:
    """Who the guarantee holds against."""
    if mechanism.central:
        return "whoever sees the models; the server is trusted with the sum before noise, and adds it"
    if options.scheme == "plain":
        return "the server, which sees every upload: each carries the whole noise (local model)"
    return (
        f"the server and its colluders within {options.scheme}'s bound: at least {mechanism.honest} of "
        f"{mechanism.cohort} noise shares are unknown to them in every sum"
    )


def sentence(options: TrainOptions, mechanism: Mechanism, spent: float) -> str:
    """One line for the report: unit, figures, relation, adversary."""
    most = math.ceil(spent * 1000) / 1000
    return (
        f"{options.dp_unit}-level ({most:g}, {options.delta:g})-differential privacy "
        f"({options.dp.split('+')[0]}, {mechanism.kind} noise; {RELATION}; {PARTICIPATION}) "
        f"against {against(options, mechanism)}"
    )


def epsilon_of_rounds(mechanism: Mechanism, rounds: int, delta: float) -> float:
    """What `rounds` uploads of one mechanism cost from nothing."""
    return epsilon([(mechanism.release(), rounds)], delta)
