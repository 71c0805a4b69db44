"""Scheme `plain`: the sum in clear, through the same codec, frames, identities and ledger as the others.

It protects nothing from the server; every exact scheme must equal it bit for bit.
"""

from merveil.protocols.params import Params
from merveil.protocols.plain.client import SUITE, PlainClient
from merveil.protocols.plain.server import PlainServer
from merveil.protocols.policy import Policy
from merveil.protocols.session import Desk, Phase, Seat


class Plain:
    """The registry's entry."""

    name = "plain"
    suite = SUITE
    version = 1
    phases = (Phase.SUBMIT,)

    def params(
        self,
        cohort: int,
        dim: int,
        *,
        bits: int = 16,
        clip: float = 1.0,
        max_weight: int = 1,
        threshold: int | None = None,
    ) -> Params:
        return Params(self.name, cohort, dim, bits, clip, max_weight, threshold or 1)

    def check_policy(self, params: Params, policy: Policy) -> None:
        """Nothing beyond the common checks: there is no protection that a parameter could weaken."""

    def client(self, seat: Seat, snapshot: bytes | None = None) -> PlainClient:
        return PlainClient(seat, snapshot)

    def server(self, desk: Desk, snapshot: bytes | None = None) -> PlainServer:
        return PlainServer(desk, snapshot)
