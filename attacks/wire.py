"""The wire as a network attacker holds it: real sessions, and a chance to alter every client frame first.

Guarantees: the attacker gets the bytes of a frame and a function that offers other bytes in its place; it
learns whether they were taken. The honest frame follows, so the round goes on and its sum can be compared.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merveil.protocols.api import client_session, server_session
from merveil.protocols.errors import RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get
from merveil.protocols.session import Outcome
from merveil.protocols.simulation.driver import Driver

Offer = Callable[[bytes], bool]  # bytes in place of the frame -> whether the server took them
OnFrame = Callable[[int, bytes, Offer], None]  # sender, honest bytes, offer


class _Tapped:
    """A server session behind an attacker: every frame passes `on_frame` before the server gets it."""

    def __init__(self, server: Any, on_frame: OnFrame) -> None:
        self._server, self._on_frame = server, on_frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def receive(self, sender: int, data: bytes) -> Sequence[Frame]:
        answers: list[Frame] = []

        def offer(other: bytes) -> bool:
            try:
                answers.extend(self._server.receive(sender, other))
            except RemoteError:
                return False
            return True

        self._on_frame(sender, data, offer)
        try:
            return [*answers, *self._server.receive(sender, data)]
        except RemoteError:  # the server took an altered frame before, so it refuses the honest one
            return answers


@dataclass(frozen=True)
class Wire:
    """One round of a scheme whose client frames an attacker may alter. truth: the exact sum of the codes."""

    scheme: str
    cohort: int = 5
    dim: int = 64
    server: Callable[..., Any] = field(default=server_session, repr=False)

    def play(self, on_frame: OnFrame, rng: np.random.Generator) -> tuple[Outcome, NDArray[np.int64]]:
        """Run the round; (what the server announces, what the clients submitted in sum)."""
        scheme = get(self.scheme)
        params = scheme.params(self.cohort, self.dim, bits=16, clip=1.0, max_weight=1, threshold=None)
        people = [Identity.generate(f"client-{i}") for i in range(self.cohort)]
        roster = _roster(people)
        policy = Policy(anchor=roster.anchor, schemes=frozenset({self.scheme}), allow_small_cohort=True)
        common: dict[str, Any] = {
            "params": params,
            "roster": roster,
            "model_hash": bytes(32),
            "config_hash": bytes(32),
            "round": 1,
        }
        clients = {
            i: client_session(self.scheme, identity=who, policy=policy, ledger=Ledger(), **common)
            for i, who in enumerate(people, 1)
        }
        codes = {i: _codes(params, rng) for i in clients}
        server = _Tapped(self.server(self.scheme, **common), on_frame)
        outcome = Driver(server, clients, scheme.phases).run(codes)
        return outcome, np.sum([codes[i] for i in outcome.survivors], axis=0)


def _roster(people: Sequence[Identity]) -> Roster:
    now = int(time.time())
    return Coordinator.generate().sign(
        [who.member for who in people], serial=1, not_before=now - 60, expires=now + 3600, max_rounds=10
    )


def _codes(params: Params, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.integers(-params.levels, params.levels + 1, params.size)
