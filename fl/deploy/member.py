"""A party's own folder: keys, roster, the coordinator's public file, policy and ledger.

    identity.key   made by `merveil federation identity`, mode 600
    ledger         made with it; one process at a time
    federation.json, roster.bin   from the coordinator
    policy.toml    optional: what this party accepts; without it the defaults of Policy

The policy is the party's own word. Nothing that a server sends can change it.
"""

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from merveil.fl.federation import PUBLIC, ROSTER, load_roster
from merveil.fl.keys import Invitation, load_identity
from merveil.fl.ledger import FileStore
from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.identity import Identity, Roster
from merveil.protocols.ledger import Ledger
from merveil.protocols.policy import Policy

IDENTITY, LEDGER, POLICY = "identity.key", "ledger", "policy.toml"
_PAIRS = ("bits",)


@dataclass(frozen=True)
class Public:
    """What everybody may know: the coordinator's public keys and the roster that it signed."""

    invitation: Invitation
    roster: Roster

    @classmethod
    def load(cls, home: Path) -> "Public":
        """LocalError: a file is missing or no such file. Aborted: BAD_SIGNATURE, BAD_KEY, ROSTER_MISMATCH."""
        invitation = Invitation.load(home / PUBLIC)
        if not (home / ROSTER).is_file():
            raise LocalError(f"{home / ROSTER} does not exist: get the signed roster from your coordinator")
        roster = load_roster(home / ROSTER, invitation.anchor)
        if roster.federation != invitation.federation:
            raise Aborted(AbortCode.ROSTER_MISMATCH, f"{home / ROSTER} is of another federation")
        return cls(invitation, roster)


@dataclass(frozen=True)
class Member:
    """A party with its private keys, which print as nothing."""

    home: Path
    identity: Identity = field(repr=False)
    roster: Roster = field(repr=False)
    policy: Policy = field(repr=False)
    index: int

    @classmethod
    def load(cls, home: Path, passphrase: str | None = None) -> "Member":
        """Read a party's folder. LocalError names the file that is missing, damaged or open to others, or
        says that the roster does not list these keys."""
        public = Public.load(home)
        identity = load_identity(home / IDENTITY, passphrase)
        policy = load_policy(home / POLICY, public.invitation.anchor)
        return cls(home, identity, public.roster, policy, public.roster.index_of(identity))

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger under its lock. LocalError: in use, gone, damaged, or open to others."""
        with FileStore(self.home / LEDGER) as store:
            yield Ledger(store)


def load_policy(path: Path, anchor: bytes) -> Policy:
    """The policy of a TOML file, or the defaults where there is none. LocalError names what is wrong."""
    if not path.exists():
        return Policy(anchor=anchor)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"{path} is not valid TOML: {error}") from error
    known = {f.name: getattr(Policy, f.name, None) for f in fields(Policy) if f.name != "anchor"}
    for name in values:
        if name not in known:
            raise LocalError(f"{path}: {name!r} is no part of a policy: use {', '.join(sorted(known))}")
    try:
        return Policy(anchor=anchor, **{name: _policy_value(name, value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise LocalError(f"{path}: {error}") from error


_KINDS: dict[str, tuple[type, ...]] = {
    "allow_small_cohort": (bool,),
    "gamma": (float, int),
    "delta": (float, int),
    "dp_epsilon": (float, int),
    "dp_delta": (float, int),
    "dp_norm_clip": (float, int),
}


def _policy_value(name: str, value: Any) -> Any:
    if name == "schemes":
        if not isinstance(value, list) or not all(isinstance(s, str) for s in value):
            raise ValueError("schemes is a list of names")
        return frozenset(value)
    if name in _PAIRS:
        if not isinstance(value, list) or [type(v) for v in value] != [int, int]:
            raise ValueError(f"{name} is a list of two whole numbers")
        return tuple(value)
    kinds = _KINDS.get(name, (int,))
    if type(value) not in kinds:
        raise ValueError(f"{name} is {' or '.join(k.__name__ for k in kinds)}, not {value!r}")
    return value
