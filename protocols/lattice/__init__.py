"""Scheme `lattice`: key-additive RLWE masks; a committee opens the sum of the short keys, nothing else."""

from dataclasses import replace

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.lattice.constants import CAPS, KEY_BITS, MEMBERS
from merveil.protocols.lattice.params import LatticeParams, best_layout, make_digits
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy, default_corrupt, default_threshold
from merveil.protocols.primitives.aead import OVERHEAD
from merveil.protocols.primitives.packing import packed_size
from merveil.protocols.secagg import SecAggPlus
from merveil.protocols.session import ClientSession, Desk, Phase, Seat, ServerSession


class Lattice:
    """The registry's entry."""

    name = "lattice"
    suite = 4
    version = 1
    phases = (Phase.MASKED, Phase.CHECK, Phase.UNMASK)

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
        members: int | None = None,
        corrupt_members: int | None = None,
        pack: int | None = None,
        key_release: str = "committee",
    ) -> LatticeParams:
        """c = ceil(n/3) - 1 and t = floor((n + c)/2) + 1 over the cohort, likewise over a committee of
        min(n, 30), and l = t - c, unless given; degree and values are those of the shortest upload.

        key_release: "committee", or "secagg+": that scheme's graph and thresholds, no committee, its phases.
        """
        if key_release == "secagg+":
            like = SecAggPlus().params(cohort, 1, threshold=threshold, corrupt=corrupt)
            whole = (self.name, cohort, dim, bits, clip, max_weight, like.threshold, like.corrupt)
            return self._shortest(Params(*whole, like.neighbours), (0, 1, 0, 1))
        if key_release != "committee":
            raise LocalError(f"key_release is 'committee' or 'secagg+', not {key_release!r}")
        c = default_corrupt(cohort) if corrupt is None else corrupt
        t = default_threshold(cohort, c) if threshold is None else threshold
        k = min(cohort, MEMBERS) if members is None else members
        spoilt = (c if k == cohort else default_corrupt(k)) if corrupt_members is None else corrupt_members
        quorum = default_threshold(k, spoilt)
        if t > cohort or quorum > k:
            raise LocalError(
                f"{cohort} clients with {c} colluding leave no threshold: use a larger cohort",
                AbortCode.COHORT_TOO_SMALL,
            )
        # a single member's share tells nothing, even where none is taken for corrupt
        width = max(1, quorum - max(spoilt, 1)) if pack is None else pack
        base = Params(self.name, cohort, dim, bits, clip, max_weight, t, c)
        return self._shortest(base, (k, quorum, spoilt, width))

    def _shortest(self, base: Params, committee: tuple[int, int, int, int]) -> LatticeParams:
        digits = make_digits(base.cohort, base.levels, base.dim, base.max_weight if base.weighted else 0)
        best: tuple[int, LatticeParams] | None = None
        for degree in CAPS:
            layout = best_layout(digits, base.cohort, degree)
            if layout is None:
                continue
            found = LatticeParams(
                base.scheme, base.cohort, base.dim, base.bits, base.clip, base.max_weight, base.threshold,
                base.corrupt, base.neighbours, degree, layout.values, *committee,
            )  # fmt: skip
            shares = found.members * (found.share_size + OVERHEAD)
            masked_key = packed_size(degree, KEY_BITS + (base.cohort - 1).bit_length())
            size = layout.size + (shares if found.members else masked_key)
            if best is None or size < best[0]:
                best = size, found
        if best is None:
            raise LocalError("the sum of a full cohort does not fit", AbortCode.MODULUS_TOO_SMALL)
        return best[1]

    def check_policy(self, params: Params, policy: Policy) -> None:
        """Enough tolerated collusion in cohort and committee, no split view, then the common rules."""
        own, below = _own(params), AbortCode.PARAMS_BELOW_FLOOR
        if not own.members:
            SecAggPlus().check_policy(replace(own, scheme="secagg+"), policy)
            return
        if own.neighbours:
            raise Aborted(below, "lattice has no sparse graph: neighbours is 0")
        floor = policy.corrupt_floor(own.cohort)
        if own.corrupt < floor:
            raise Aborted(below, f"tolerates {own.corrupt} colluding clients, the policy asks {floor}")
        k, t, c = own.members, own.quorum, own.corrupt_members
        if k < min(own.cohort, MEMBERS):
            raise Aborted(below, f"a committee of {k}, the floor is {min(own.cohort, MEMBERS)}")
        least = min(floor, default_corrupt(k))
        if c < least:
            raise Aborted(below, f"tolerates {c} corrupt members of {k}, the policy asks {least}")
        if 2 * t <= k + c:
            raise Aborted(
                below, f"a quorum of {t} of {k} members, {c} corrupt, admits two lists: 2t > {k + c}"
            )
        if own.privacy < max(c, 1):
            raise Aborted(
                below,
                f"{own.pack} secrets a polynomial leave privacy against {own.privacy} members, "
                f"{max(c, 1)} are asked",
            )
        policy.check_honest(params)

    def warm_up(self) -> None:
        """Load (or, the first time, compile) every kernel, so that no round pays for it."""
        from merveil.protocols.lattice.encryption import warm_up

        warm_up()

    def client(self, seat: Seat, snapshot: bytes | None = None) -> ClientSession:
        from merveil.protocols.lattice.client import LatticeClient
        from merveil.protocols.lattice.release import KeyedClient

        own = _own(seat.params)
        return LatticeClient(seat, own, snapshot) if own.members else KeyedClient(seat, own, snapshot)

    def server(self, desk: Desk, snapshot: bytes | None = None) -> ServerSession:
        from merveil.protocols.lattice.release import KeyedServer
        from merveil.protocols.lattice.server import LatticeServer

        own = _own(desk.params)
        return LatticeServer(desk, own, snapshot) if own.members else KeyedServer(desk, own, snapshot)


def _own(params: Params) -> LatticeParams:
    if not isinstance(params, LatticeParams):
        raise LocalError("lattice takes its own parameters: make them with get('lattice').params(...)")
    return params
