"""Sessions for a network of one's own: the entry points behind `merveil.client_session` and its siblings."""

import time
from concurrent.futures import Executor

from merveil.protocols.cohort import draw_cohort
from merveil.protocols.context import Context
from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, LocalError
from merveil.protocols.identity import Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get
from merveil.protocols.rng import Rng, SystemRng
from merveil.protocols.session import ClientSession, Desk, Scheme, Seat, ServerSession


def phases(scheme: str) -> tuple[str, ...]:
    """The message phases of a scheme in order; clients answer in the last."""
    return tuple(p.value for p in get(scheme).phases)


def make_context(
    scheme: Scheme,
    params: Params,
    roster: Roster,
    model_hash: bytes,
    config_hash: bytes,
    round_: int,
    attempt: int,
) -> Context:
    """The context both sides compute for themselves."""
    if params.scheme != scheme.name:
        raise LocalError(
            f"parameters of {params.scheme!r} for scheme {scheme.name!r}", AbortCode.PARAMS_MISMATCH
        )
    if not (1 <= round_ < 2**32 and 1 <= attempt < 2**16):
        raise LocalError(f"rounds and attempts start at 1: round {round_}, attempt {attempt}")
    cohort = draw_cohort(roster.beacon, roster.hash, round_, len(roster), params.cohort)
    return Context(
        f"{scheme.name}/{scheme.version}",
        roster.federation,
        roster.serial,
        roster.hash,
        cohort,
        round_,
        attempt,
        params.encoded,
        model_hash,
        config_hash,
    )


def client_session(
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
    attempt: int = 1,
    snapshot: bytes | None = None,
    rng: Rng | None = None,
    now: int | None = None,
    mechanism: Mechanism | None = None,
) -> ClientSession:
    """One client's session for one attempt at one round, after every check that needs no peer.

    model_hash, config_hash: SHA-256 of the model the update starts from and of the task's configuration.
    round, attempt: from 1. snapshot: what `suspend` gave, to resume. now: Unix seconds, the clock by default.
    mechanism: of the noise that is in the codes which the caller will submit; a policy with dp_epsilon takes
    no session without one.
    Raises Aborted (STALE_ROSTER, PARAMS_BELOW_FLOOR, COHORT_TOO_SMALL, STATE_ROLLBACK) before anything is
    revealed, LocalError for a caller's mistake.
    """
    found = get(scheme)
    if roster.anchor != policy.anchor:
        raise LocalError(
            "the roster was opened under another key than the policy pins", AbortCode.ROSTER_MISMATCH
        )
    roster.check_time(int(time.time()) if now is None else now)
    context = make_context(found, params, roster, model_hash, config_hash, round, attempt)
    policy.check(params, round)
    found.check_policy(params, policy)
    policy.check_mechanism(params, mechanism, len(roster))
    if round > roster.max_rounds:
        raise LocalError(f"round {round} exceeds the roster's {roster.max_rounds} rounds")
    index = roster.index_of(identity)
    if index not in context.cohort:
        raise LocalError(f"{identity.name!r} is not in the cohort of round {round}")
    ledger.see_roster(roster.federation, roster.serial, roster.hash)
    seat = Seat(params, context, index, identity, roster, policy, ledger, rng or SystemRng())
    return found.client(seat, snapshot)


def server_session(
    scheme: str,
    *,
    params: Params,
    roster: Roster,
    model_hash: bytes,
    config_hash: bytes,
    round: int,
    attempt: int = 1,
    snapshot: bytes | None = None,
    executor: Executor | None = None,
) -> ServerSession:
    """The server's session for one attempt at one round. executor: for parallel unmasking, optional."""
    found = get(scheme)
    context = make_context(found, params, roster, model_hash, config_hash, round, attempt)
    return found.server(Desk(params, context, roster, executor), snapshot)
