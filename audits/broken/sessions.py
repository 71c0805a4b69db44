"""Client sessions of weakened classes, without policy checks: in no registry and behind no option."""

from collections.abc import Callable
from typing import Any

from merveil.protocols.api import make_context
from merveil.protocols.errors import LocalError
from merveil.protocols.identity import FEDERATION_ID, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get
from merveil.protocols.rng import Rng
from merveil.protocols.session import Seat


def seat(
    scheme: str,
    *,
    params: Params,
    identity: Identity,
    roster: Roster,
    policy: Policy,
    ledger: Ledger,
    model_hash: bytes,
    config_hash: bytes,
    round: int,
    rng: Rng,
    attempt: int = 1,
) -> Seat:
    """A seat as `client_session` makes it, its checks left out."""
    context = make_context(get(scheme), params, roster, model_hash, config_hash, round, attempt)
    index = roster.index_of(identity)
    if index not in context.cohort:
        raise LocalError(f"{identity.name!r} is not in the cohort")
    return Seat(params, context, index, identity, roster, policy, ledger, rng)


def clients_of(kind: Any) -> Callable[..., Any]:
    """A factory for sessions of a weakened subclass of the secagg client."""

    def make(scheme: str, **settings: Any) -> Any:
        return kind(get(scheme).suite, seat(scheme, **settings))

    return make


def unchecked(scheme: str, **settings: Any) -> Any:
    """The scheme's own client, with no policy in front of it: A04 and A08."""
    return get(scheme).client(seat(scheme, **settings))


def open_enrolment(data: bytes, anchor: bytes) -> Roster:
    """A06: a roster is taken under whatever key it claims to be signed with."""
    at = 5 + FEDERATION_ID
    return Roster.open(data, data[at : at + 32])
