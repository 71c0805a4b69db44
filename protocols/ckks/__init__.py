"""Scheme `ckks`: sums of RLWE ciphertexts under a joint key that nobody holds, made anew for every round."""

from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy, default_corrupt, default_threshold
from merveil.protocols.session import ClientSession, Desk, Phase, Seat, ServerSession

SMUDGING_FLOOR = 40  # bits
KEYS = ("threshold", "authority")
SHARED = "a key shared by all clients lets each read all others and is built nowhere but in audits/broken"


class Ckks:
    """The registry's entry."""

    name = "ckks"
    suite = 3
    version = 1
    phases = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)

    def params(
        self,
        cohort: int,
        dim: int,
        *,
        bits: int = 16,
        clip: float = 1.0,
        max_weight: int = 1,
        threshold: int | None = None,
        corrupt: int | None = None,
        slots: bool = False,
        keys: str = "threshold",
        authority: int = 1,
    ) -> CkksParams:
        """c = ceil(n/3) - 1 and t = floor((n + c)/2) + 1 unless given. LocalError where it does not fit.

        keys: "threshold": nobody holds the key; "authority": the client of roster index `authority` does.
        """
        if keys not in KEYS:
            raise LocalError(f"keys is one of {', '.join(KEYS)}, not {keys!r}: {SHARED}")
        c = default_corrupt(cohort) if corrupt is None else corrupt
        t = default_threshold(cohort, c) if threshold is None else threshold
        if t > cohort:
            raise LocalError(
                f"{cohort} clients with {c} colluding leave no threshold: use a larger cohort",
                AbortCode.COHORT_TOO_SMALL,
            )
        holder = authority if keys == "authority" else 0
        return CkksParams(
            self.name, cohort, dim, bits, clip, max_weight, t, c, slots=int(slots), authority=holder
        )

    def check_policy(self, params: Params, policy: Policy) -> None:
        """Enough tolerated collusion and smudging, a check that can be paid for, then the common rules."""
        own = _own(params)
        if own.neighbours:
            raise Aborted(AbortCode.PARAMS_BELOW_FLOOR, "ckks has no sparse graph: neighbours is 0")
        if own.smudging < SMUDGING_FLOOR:
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"{own.smudging} bits of smudging, the floor is {SMUDGING_FLOOR}",
            )
        if own.corrupt < policy.corrupt_floor(own.cohort):
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"tolerates {own.corrupt} colluding clients, the policy asks "
                f"{policy.corrupt_floor(own.cohort)}",
            )
        if own.verify_bytes > policy.max_verify_bytes:
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"a decryptor would download {own.verify_bytes} bytes to check the sum, the policy allows "
                f"{policy.max_verify_bytes}",
            )
        if own.authority and not policy.allow_authority:
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"client {own.authority} holds the key alone, the policy does not allow_authority",
            )
        policy.check_honest(params)

    def client(self, seat: Seat, snapshot: bytes | None = None) -> ClientSession:
        from merveil.protocols.ckks.client import CkksClient

        return CkksClient(seat, _present(_own(seat.params), seat.context.cohort), snapshot)

    def server(self, desk: Desk, snapshot: bytes | None = None) -> ServerSession:
        from merveil.protocols.ckks.server import CkksServer

        return CkksServer(desk, _present(_own(desk.params), desk.context.cohort), snapshot)


def _present(params: CkksParams, cohort: tuple[int, ...]) -> CkksParams:
    if params.authority and params.authority not in cohort:
        raise LocalError(
            f"client {params.authority} holds the key but is not in this round's cohort {list(cohort)}",
            AbortCode.PARAMS_MISMATCH,
        )
    return params


def _own(params: Params) -> CkksParams:
    if not isinstance(params, CkksParams):
        raise LocalError("ckks takes its own parameters: make them with get('ckks').params(...)")
    return params
