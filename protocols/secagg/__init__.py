"""Schemes `secagg` (complete graph) and `secagg+` (sparse graph): one protocol, two graphs."""

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy, default_corrupt, default_threshold
from merveil.protocols.secagg.client import SecAggClient
from merveil.protocols.secagg.graph import SMALL, corrupt_bound, find_degree, stays_connected
from merveil.protocols.secagg.server import SecAggServer
from merveil.protocols.session import Desk, Phase, Seat

_PHASES = (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)


class SecAgg:
    """Bonawitz et al. 2017: every client shares with, and masks against, every other."""

    name = "secagg"
    suite = 1
    version = 1
    phases = _PHASES

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
    ) -> Params:
        """c = ceil(n/3) - 1 and t = floor((n + c)/2) + 1 unless given."""
        c = default_corrupt(cohort) if corrupt is None else corrupt
        t = default_threshold(cohort, c) if threshold is None else threshold
        if t > cohort:
            raise LocalError(
                f"{cohort} clients with {c} colluding leave no threshold: use a larger cohort",
                AbortCode.COHORT_TOO_SMALL,
            )
        return Params(self.name, cohort, dim, bits, clip, max_weight, t, c)

    def check_policy(self, params: Params, policy: Policy) -> None:
        """Enough tolerated collusion for the graph in use, then the common rules."""
        if params.neighbours:
            self._check_sparse(params, policy)
        elif params.corrupt < policy.corrupt_floor(params.cohort):
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"tolerates {params.corrupt} colluding clients, the policy asks "
                f"{policy.corrupt_floor(params.cohort)}",
            )
        policy.check_honest(params)

    def _check_sparse(self, params: Params, policy: Policy) -> None:
        n, k = params.cohort, params.neighbours
        corrupt = int(policy.gamma * n) if policy.corrupt is None else policy.corrupt
        if params.scheme == "secagg" or k % 2 or k >= n - 1:
            raise Aborted(AbortCode.PARAMS_BELOW_FLOOR, f"{k} neighbours are no sparse graph on {n} clients")
        if not stays_connected(n, corrupt, int(policy.delta * n), k):
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR, f"{k} neighbours may fall apart at the policy's shares"
            )
        bound = corrupt_bound(n, corrupt, k)
        if params.corrupt < bound:
            raise Aborted(
                AbortCode.PARAMS_BELOW_FLOOR,
                f"tolerates {params.corrupt} corrupt neighbours of {k}, the policy asks {bound}",
            )

    def client(self, seat: Seat, snapshot: bytes | None = None) -> SecAggClient:
        return SecAggClient(self.suite, seat, snapshot)

    def server(self, desk: Desk, snapshot: bytes | None = None) -> SecAggServer:
        return SecAggServer(self.suite, desk, snapshot)


class SecAggPlus(SecAgg):
    """Bell et al. 2020: a random k-regular graph; complete below 20 clients or where no sparse one holds."""

    name = "secagg+"
    suite = 2

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
        gamma: float = 0.1,
        delta: float = 0.1,
    ) -> Params:
        """k, t and c_k for gamma*n corrupt and delta*n dropped clients."""
        degree = find_degree(cohort, gamma, delta) if cohort >= SMALL else None
        if degree is None:
            return super().params(
                cohort,
                dim,
                bits=bits,
                clip=clip,
                max_weight=max_weight,
                threshold=threshold,
                corrupt=corrupt,
            )
        t = degree.threshold if threshold is None else threshold
        c = degree.corrupt if corrupt is None else corrupt
        return Params(self.name, cohort, dim, bits, clip, max_weight, t, c, degree.neighbours)
