"""What a party accepts, held by the party itself and never sent by anyone.

A session checks its parameters against the policy before it reveals anything.
"""

import math
from dataclasses import dataclass, field

from merveil.protocols.dp.discrete import Mechanism
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params

SECURE_SCHEMES = frozenset({"secagg", "secagg+", "ckks", "lattice"})


def default_corrupt(cohort: int) -> int:
    """c = ceil(n/3) - 1."""
    return max(0, -(-cohort // 3) - 1)


def default_threshold(cohort: int, corrupt: int) -> int:
    """t = floor((n + c)/2) + 1, the least with 2t > n + c: two survivor sets cannot both be answered."""
    return (cohort + corrupt) // 2 + 1


@dataclass(frozen=True, slots=True)
class Policy:
    """A party's floor.

    anchor: the coordinator's 32-byte public key. schemes: accepted scheme names; `plain` protects nothing and
    has to be named explicitly. min_honest: fewest honest inputs a sum may hold. corrupt: fewest colluding
    clients that the parameters must tolerate, None for ceil(n/3) - 1. max_dim, bits, max_weight, max_rounds:
    bounds. gamma, delta: corrupt and dropped shares of the cohort that a sparse graph must withstand.
    allow_small_cohort: accept cohorts whose honest survivors fall below min_honest (a declared
    non-claim). min_difference: fewest clients by which the survivors must differ from the last set this party
    answered for, unless the sets are equal (0: no such rule). max_verify_bytes: what this party downloads at
    most to check what it decrypts (ckks); above, it refuses the parameters. allow_authority: accept
    that one client holds the decryption key alone (ckks with keys="authority").
    dp_epsilon, dp_delta, dp_norm_clip: this party's own figures of differential privacy, all three or none:
    most epsilon of all its uploads together at that delta, and the longest update it sends, 2-norm. With
    them it takes part in no sum without noise (`check_mechanism`); what it has spent is its ledger's to know.
    """

    anchor: bytes = field(repr=False)
    schemes: frozenset[str] = SECURE_SCHEMES
    min_honest: int = 3
    corrupt: int | None = None
    gamma: float = 0.1
    delta: float = 0.1
    max_dim: int = 2**28
    bits: tuple[int, int] = (4, 40)
    max_weight: int = 65_535
    max_rounds: int = 10_000
    allow_small_cohort: bool = False
    min_difference: int = 0
    max_verify_bytes: int = 2**30
    allow_authority: bool = False
    dp_epsilon: float = 0.0
    dp_delta: float = 0.0
    dp_norm_clip: float = 0.0

    def __post_init__(self) -> None:
        if len(self.anchor) != 32:
            raise LocalError("a policy pins the coordinator's key: anchor must have 32 bytes")
        figures = (self.dp_epsilon, self.dp_delta, self.dp_norm_clip)
        if not all(math.isfinite(value) and value >= 0 for value in figures) or self.dp_delta >= 1:
            raise LocalError("dp_epsilon, dp_delta and dp_norm_clip are positive numbers, dp_delta below one")
        if any(figures) and not all(figures):
            raise LocalError("dp_epsilon, dp_delta and dp_norm_clip go together: name all three, or none")

    def check(self, params: Params, round_: int) -> None:
        """Aborts with PARAMS_BELOW_FLOOR or COHORT_TOO_SMALL; nothing has been revealed yet."""
        below = AbortCode.PARAMS_BELOW_FLOOR
        if params.scheme not in self.schemes:
            raise Aborted(below, f"the policy does not accept scheme {params.scheme!r}")
        if params.dim > self.max_dim:
            raise Aborted(below, f"dim {params.dim} exceeds the policy's {self.max_dim}")
        if not self.bits[0] <= params.bits <= self.bits[1]:
            raise Aborted(below, f"{params.bits} bits lie outside the policy's {self.bits}")
        if params.max_weight > self.max_weight:
            raise Aborted(below, f"max_weight {params.max_weight} exceeds the policy's {self.max_weight}")
        if not 1 <= round_ <= self.max_rounds:
            raise Aborted(below, f"round {round_} lies outside the policy's 1..{self.max_rounds}")

    def check_honest(self, params: Params) -> None:
        """The rules that every secure scheme shares.

        No split view: 2t > holders + c. Enough honest inputs in every sum that can be opened.
        """
        t, c = params.threshold, params.corrupt
        holders = params.neighbours or params.cohort
        if 2 * t <= holders + c:
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"threshold {t} of {holders} holders, {c} corrupt, admits a split view: 2t > {holders + c}",
            )
        if params.honest < self.min_honest and not self.allow_small_cohort:
            raise Aborted(
                AbortCode.COHORT_TOO_SMALL,
                f"a sum may hold {params.honest} honest inputs, the policy asks {self.min_honest}; "
                "use a larger cohort, or allow_small_cohort and accept what such a sum reveals",
            )

    def check_mechanism(self, params: Params, mechanism: Mechanism | None, members: int) -> None:
        """The noise of a round against this party's own figures; what it costs is for the ledger.

        mechanism: None for a round without noise. members: of the roster. Aborts with PARAMS_BELOW_FLOOR.
        """
        below = AbortCode.PARAMS_BELOW_FLOOR
        if mechanism is None:
            if self.dp_epsilon:
                raise Aborted(below, "the policy asks for differential privacy, and this round has no noise")
            return
        if not self.dp_epsilon:
            raise Aborted(below, "the round has noise, and the policy names no dp_epsilon to limit its cost")
        if mechanism.central:
            raise Aborted(below, "the server would add the noise by itself, after it saw the sum")
        if not mechanism.cohort == params.cohort == members:
            raise Aborted(below, f"the noise is for {mechanism.cohort} clients, the roster has {members}")
        if mechanism.norm_clip > self.dp_norm_clip:
            raise Aborted(below, f"norm clip {mechanism.norm_clip} exceeds the policy's {self.dp_norm_clip}")
        if self.dp_delta * members >= 1:
            raise Aborted(
                below, f"dp_delta {self.dp_delta:g} is no smaller than one over the {members} members"
            )
        try:
            mechanism.check(params)  # no more honest shares than these parameters guarantee, and its grid
        except LocalError as error:
            raise Aborted(below, f"the noise does not fit the round: {error}") from error

    def corrupt_floor(self, cohort: int) -> int:
        """Colluding clients that a complete graph's parameters must tolerate."""
        return default_corrupt(cohort) if self.corrupt is None else self.corrupt
