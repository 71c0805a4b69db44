"""A small federation with fixed keys, and sessions of any registered scheme on top of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from merveil.protocols.api import client_session, make_context, server_session
from merveil.protocols.codec import Codes
from merveil.protocols.context import Context
from merveil.protocols.identity import Coordinator, Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.params import Params
from merveil.protocols.policy import Policy
from merveil.protocols.registry import get, names
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import ClientSession, Outcome, Phase, ServerSession
from merveil.protocols.simulation.driver import Driver, Traffic
from merveil.protocols.simulation.invariants import marked_codes

settings.register_profile("protocols", deadline=None, print_blob=True)  # a loaded machine is no failure
settings.load_profile("protocols")

NOW = 1_700_000_000
DAY = 86_400


@dataclass(frozen=True)
class Federation:
    coordinator: Coordinator
    identities: tuple[Identity, ...]
    roster: Roster


@lru_cache(maxsize=32)
def build_federation(size: int, serial: int = 1, seed: int = 0) -> Federation:
    rng = SeededRng(seed).child("tests")
    coordinator = Coordinator.generate(rng.child("coordinator"))
    identities = tuple(Identity.generate(f"member-{i}", rng.child(str(i))) for i in range(1, size + 1))
    members = [i.member for i in identities]
    roster = coordinator.sign(
        members, serial=serial, not_before=NOW - DAY, expires=NOW + DAY, rng=rng.child(f"beacon/{serial}")
    )
    return Federation(coordinator, identities, roster)


@dataclass
class Kit:
    """One round of a scheme over a small federation: `client(i)` and `server()` with any setting changed."""

    scheme: str
    cohort: int = 5
    dim: int = 7
    bits: int = 16
    max_weight: int = 1
    threshold: int | None = None
    spare: int = 0
    seed: int = 0
    ledgers: dict[int, Ledger] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.federation = build_federation(self.cohort + self.spare, seed=self.seed)
        self.roster = self.federation.roster
        self.params: Params = get(self.scheme).params(
            self.cohort, self.dim, bits=self.bits, max_weight=self.max_weight, threshold=self.threshold
        )
        self.policy = Policy(self.roster.anchor, frozenset(names()), allow_small_cohort=True)
        self.phases = get(self.scheme).phases

    def settings(self, **changes: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "params": self.params,
            "roster": self.roster,
            "model_hash": bytes(32),
            "config_hash": bytes(32),
            "round": 1,
            "attempt": 1,
        }
        return {**base, **changes}

    def context(self, **changes: Any) -> Context:
        s = self.settings(**changes)
        return make_context(
            get(self.scheme),
            s["params"],
            s["roster"],
            s["model_hash"],
            s["config_hash"],
            s["round"],
            s["attempt"],
        )

    def ledger(self, index: int) -> Ledger:
        return self.ledgers.setdefault(index, Ledger())

    def client(self, index: int, **changes: Any) -> ClientSession:
        own = {
            "identity": self.federation.identities[index - 1],
            "policy": self.policy,
            "ledger": self.ledger(index),
            "now": NOW,
        }
        return client_session(self.scheme, **{**self.settings(), **own, **changes})

    def server(self, **changes: Any) -> ServerSession:
        return server_session(self.scheme, **self.settings(**changes))

    def codes(self, index: int) -> Codes:
        position = self.context().cohort.index(index)
        return marked_codes(self.params, position, SeededRng(self.seed).child(f"codes/{index}"))

    def total(self, survivors: tuple[int, ...]) -> Codes:
        return np.sum([self.codes(i) for i in survivors], axis=0)

    def run(
        self, drop: Mapping[int, Phase] | None = None, traffic: Traffic | None = None, **changes: Any
    ) -> Outcome:
        cohort = self.context(**changes).cohort
        clients = {i: self.client(i, **changes) for i in cohort}
        codes = {i: self.codes(i) for i in cohort}
        return Driver(self.server(**changes), clients, self.phases, drop, traffic).run(codes)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@pytest.fixture(scope="session")
def federation() -> Callable[..., Federation]:
    return build_federation
