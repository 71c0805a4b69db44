"""A party's durable memory, kept outside its snapshots.

A snapshot of a session lies in somebody else's store, so deleting or restoring it there must not let a party
answer twice. The ledger is written, and synced, before the frame it covers leaves. It holds, per federation:
the newest roster seen; per round the attempt and how far it went; the pair chains; the serial of the only
acceptable snapshot; and the key that seals snapshots. Losing it means enrolling again. Restoring a whole
machine to an earlier day is a declared non-claim.

It does not grow without end: of the rounds the last ones are kept one by one, and all before them are over.
"""

import enum
import json
from collections.abc import Mapping
from typing import Protocol

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.primitives.aead import NONCE, seal, unseal
from merveil.protocols.rng import Rng, SystemRng


class RoundState(enum.IntEnum):
    """How far this party went in a round."""

    ADVERTISED = 1
    MASKED = 2
    ANSWERED = 3


_STATES = frozenset(int(s) for s in RoundState)
KEPT = 1024  # rounds of a federation, and snapshots, that are remembered one by one; up to twice as many


class Store(Protocol):
    """Durable bytes: `save` returns only when they would survive a crash."""

    def load(self) -> bytes | None: ...

    def save(self, data: bytes) -> None: ...


class MemoryStore:
    """For in-process runs and tests: it survives nothing."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def load(self) -> bytes | None:
        return self._data

    def save(self, data: bytes) -> None:
        self._data = data


class Ledger:
    """The rules over a Store. One object per party; the store is read once and written through."""

    def __init__(self, store: Store | None = None, rng: Rng | None = None) -> None:
        self._store: Store | None = store
        self._rng = rng or SystemRng()
        data = store.load() if store is not None else None
        self._serials: dict[str, int] = {}
        self._rosters: dict[str, str] = {}  # federation -> hash of the roster with that serial
        self._floors: dict[str, int] = {}  # federation -> every round up to it is over
        self._rounds: dict[str, tuple[int, int]] = {}  # "federation/round" -> (attempt, state)
        self._snapshots: dict[str, int] = {}
        self._chains: dict[str, tuple[int, bytes]] = {}  # "roster/peer" -> (round, chain key)
        self._failed = False
        self._answered: dict[str, bytes] = {}  # federation -> bitmap of the last survivor set answered
        self._bound: dict[str, bytes] = {}  # "federation/round/label" -> what this party is bound to
        self._key = self._rng.draw(32, "ledger/snapshot-key") if data is None else b""
        if data is not None:
            self._read(data)
        elif store is not None:
            self._write()

    def __repr__(self) -> str:
        return f"Ledger({len(self._rounds)} rounds)"

    def _read(self, data: bytes) -> None:
        try:
            state = json.loads(data)
            if state["format"] != 1:
                raise ValueError(f"format {state['format']}")
            self._serials = {str(k): int(v) for k, v in state["serials"].items()}
            self._rounds = {str(k): (int(a), int(s)) for k, (a, s) in state["rounds"].items()}
            self._snapshots = {str(k): int(v) for k, v in state["snapshots"].items()}
            self._chains = {str(k): (int(r), bytes.fromhex(c)) for k, (r, c) in state["chains"].items()}
            self._answered = {str(k): bytes.fromhex(v) for k, v in state["answered"].items()}
            # absent in ledgers that were written before they were known
            self._bound = {str(k): bytes.fromhex(v) for k, v in state.get("bound", {}).items()}
            self._rosters = {str(k): bytes.fromhex(v).hex() for k, v in state.get("rosters", {}).items()}
            self._floors = {str(k): int(v) for k, v in state.get("floors", {}).items()}
            self._key = bytes.fromhex(state["key"])
            if len(self._key) != 32 or any(s not in _STATES for _, s in self._rounds.values()):
                raise ValueError("a key of another length, or a round in no state")
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise LocalError(
                f"the ledger is damaged ({error}): enrol again, do not restore a copy"
            ) from error

    def _write(self) -> None:
        if self._store is None:
            return
        if self._failed:
            raise LocalError("the ledger could not be written before: open it again from its store")
        state = {
            "format": 1,
            "serials": self._serials,
            "rosters": self._rosters,
            "floors": self._floors,
            "rounds": self._rounds,
            "snapshots": self._snapshots,
            "chains": {k: (r, c.hex()) for k, (r, c) in self._chains.items()},
            "answered": {k: v.hex() for k, v in self._answered.items()},
            "bound": {k: v.hex() for k, v in self._bound.items()},
            "key": self._key.hex(),
        }
        self._failed = True  # until the store says otherwise: memory and store may differ from here on
        self._store.save(json.dumps(state).encode())
        self._failed = False

    # Rosters

    def see_roster(self, federation: bytes, serial: int, roster_hash: bytes) -> None:
        """Note a roster; the chains of the one before it go.

        Aborts with STALE_ROSTER below the highest serial seen, and with ROSTER_MISMATCH where another roster
        had this serial: then parties hold different ones, and whoever signed both has to explain it.
        """
        name, own = federation.hex(), roster_hash.hex()
        highest = self._serials.get(name, 0)
        if serial < highest:
            raise Aborted(AbortCode.STALE_ROSTER, f"roster serial {serial}, but {highest} was seen already")
        before = self._rosters.get(name)
        if serial == highest and before not in (None, own):
            raise Aborted(AbortCode.ROSTER_MISMATCH, f"two different rosters have the serial {serial}")
        if before != own or serial > highest or self._failed:
            self._serials[name], self._rosters[name] = serial, own
            if before is not None and before != own:
                self._chains = {k: v for k, v in self._chains.items() if not k.startswith(before + "/")}
            self._write()

    # Rounds

    def open_round(self, federation: bytes, round_: int, attempt: int) -> None:
        """Begin an attempt; aborts with ROUND_REUSED once this party has answered, or for a used attempt."""
        self._check_floor(federation, round_)
        name = f"{federation.hex()}/{round_}"
        last, state = self._rounds.get(name, (0, 0))
        if state == RoundState.ANSWERED:
            raise Aborted(
                AbortCode.ROUND_REUSED, f"round {round_} was answered in attempt {last}", released=True
            )
        if attempt <= last:
            raise Aborted(AbortCode.ROUND_REUSED, f"attempt {attempt} of round {round_} was used already")
        self._rounds[name] = (attempt, RoundState.ADVERTISED)
        self._write()

    def advance(self, federation: bytes, round_: int, attempt: int, state: RoundState) -> None:
        """Record that the frame of `state` is about to leave; each state is reached once, in order."""
        self._advance(federation, round_, attempt, state)
        self._write()

    def _check_floor(self, federation: bytes, round_: int) -> None:
        if round_ <= self._floors.get(federation.hex(), 0):
            raise Aborted(AbortCode.ROUND_REUSED, f"round {round_} is long over", released=True)

    def _advance(self, federation: bytes, round_: int, attempt: int, state: RoundState) -> None:
        self._check_floor(federation, round_)
        name = f"{federation.hex()}/{round_}"
        last, reached = self._rounds.get(name, (0, 0))
        if last != attempt or state <= reached:
            released = reached == RoundState.ANSWERED
            raise Aborted(
                AbortCode.ROUND_REUSED, f"round {round_} already reached {state.name}", released=released
            )
        self._rounds[name] = (attempt, int(state))
        if state == RoundState.ANSWERED:
            self._prune(federation.hex())

    def _prune(self, federation: str) -> None:
        """Once there are twice KEPT rounds, the older half becomes a floor."""
        prefix = federation + "/"
        known = sorted(int(name[len(prefix) :]) for name in self._rounds if name.startswith(prefix))
        if len(known) < 2 * KEPT:
            return
        floor = self._floors[federation] = known[-KEPT - 1]

        def live(name: str) -> bool:
            return not name.startswith(prefix) or int(name.split("/")[1]) > floor

        self._rounds = {name: entry for name, entry in self._rounds.items() if live(name)}
        self._bound = {name: value for name, value in self._bound.items() if live(name)}

    def state(self, federation: bytes, round_: int) -> tuple[int, RoundState] | None:
        """(attempt, state) of a round; None for one that was not begun, or that is long over."""
        entry = self._rounds.get(f"{federation.hex()}/{round_}")
        return None if entry is None else (entry[0], RoundState(entry[1]))

    # What a round is bound to, over all its attempts

    def bind(self, federation: bytes, round_: int, label: str, value: bytes) -> None:
        """Commit this round to one value under a label; aborts with ROUND_REUSED where it has another."""
        self._check_floor(federation, round_)
        name = f"{federation.hex()}/{round_}/{label}"
        if self._bound.setdefault(name, value) != value:
            raise Aborted(
                AbortCode.ROUND_REUSED, f"round {round_} is bound to another {label}", released=True
            )
        self._write()

    def check_bound(self, federation: bytes, round_: int, label: str) -> None:
        """Aborts with ROUND_REUSED once the round is bound to anything under a label."""
        self._check_floor(federation, round_)
        if f"{federation.hex()}/{round_}/{label}" in self._bound:
            raise Aborted(AbortCode.ROUND_REUSED, f"round {round_} is bound to one {label}", released=True)

    # Survivor sets

    def last_answered(self, federation: bytes) -> bytes:
        """Bitmap over roster indices of the last survivor set this party answered for; empty at first."""
        return self._answered.get(federation.hex(), b"")

    def answer(self, federation: bytes, round_: int, attempt: int, survivors: bytes) -> None:
        """Record the one answer of a round together with its survivor bitmap."""
        self._advance(federation, round_, attempt, RoundState.ANSWERED)
        self._answered[federation.hex()] = survivors
        self._write()

    # Pair chains (docs/secagg.md)

    def chain(self, roster_hash: bytes, peer: int) -> tuple[int, bytes] | None:
        """(round, chain key) of a pair, or None before the first round."""
        return self._chains.get(f"{roster_hash.hex()}/{peer}")

    def store_chains(self, roster_hash: bytes, round_: int, chains: Mapping[int, bytes]) -> None:
        """Overwrite the pairs' chain keys with those for `round_`; the earlier values are gone."""
        prefix = roster_hash.hex()
        for peer, key in chains.items():
            self._chains[f"{prefix}/{peer}"] = (round_, key)
        self._write()

    # Snapshots

    def seal_snapshot(self, session: bytes, aad: bytes, plaintext: bytes) -> bytes:
        """Seal a session's state as the only one that can be resumed. session: 32 bytes (the context)."""
        name = session.hex()
        serial = self._snapshots.pop(name, 0) + 1
        self._snapshots[name] = serial  # the newest comes last
        for old in list(self._snapshots)[: -2 * KEPT]:  # of an ended round: it can open nothing that answers
            del self._snapshots[old]
        self._write()
        nonce = self._rng.draw(NONCE, "ledger/snapshot-nonce")
        head = serial.to_bytes(8, "big") + session
        return head + seal(self._key, nonce, plaintext, head + aad)

    def take_snapshot(self, session: bytes, aad: bytes, blob: bytes) -> bytes:
        """Open a snapshot, once. Aborts with STATE_ROLLBACK for any but the newest, or a foreign one."""
        head, name = blob[:40], session.hex()
        current = self._snapshots.get(name, 0)
        if head[8:] != session or int.from_bytes(head[:8], "big") != current:
            raise Aborted(AbortCode.STATE_ROLLBACK)
        plaintext = unseal(self._key, blob[40:], head + aad)
        if plaintext is None:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot was not sealed by this party's ledger")
        self._snapshots[name] = current + 1
        self._write()
        return plaintext
