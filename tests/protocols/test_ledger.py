"""Every rule of the ledger, and that it is written before it is believed."""

import json
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted, LocalError
from merveil.protocols.ledger import Ledger, MemoryStore, RoundState
from merveil.protocols.rng import SeededRng

FED, OTHER = b"f" * 32, b"g" * 32
CONTEXT = b"c" * 32
ROSTER, NEWER = b"r" * 32, b"n" * 32


def reopen(store: MemoryStore) -> Ledger:
    return Ledger(store, SeededRng(9))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def ledger(store: MemoryStore) -> Ledger:
    return Ledger(store, SeededRng(1))


def refused(code: AbortCode, call: Any, *args: Any, released: bool | None = None) -> None:
    with pytest.raises(Aborted) as caught:
        call(*args)
    assert caught.value.code is code
    if released is not None:
        assert caught.value.released is released


# Rounds


def test_an_attempt_is_opened_once(ledger: Ledger) -> None:
    ledger.open_round(FED, 1, 1)
    refused(AbortCode.ROUND_REUSED, ledger.open_round, FED, 1, 1, released=False)
    ledger.open_round(FED, 1, 2)
    refused(AbortCode.ROUND_REUSED, ledger.open_round, FED, 1, 1, released=False)
    refused(AbortCode.ROUND_REUSED, ledger.open_round, FED, 1, 2, released=False)
    ledger.open_round(FED, 1, 5)
    assert ledger.state(FED, 1) == (5, RoundState.ADVERTISED)


@pytest.mark.parametrize("state", [RoundState.ADVERTISED, RoundState.MASKED])
def test_a_retry_is_allowed_while_nothing_was_answered(ledger: Ledger, state: RoundState) -> None:
    ledger.open_round(FED, 1, 1)
    if state is RoundState.MASKED:
        ledger.advance(FED, 1, 1, state)
    ledger.open_round(FED, 1, 2)
    assert ledger.state(FED, 1) == (2, RoundState.ADVERTISED)


def test_an_answered_round_is_over_for_every_attempt(ledger: Ledger, store: MemoryStore) -> None:
    ledger.open_round(FED, 1, 1)
    ledger.advance(FED, 1, 1, RoundState.MASKED)
    ledger.answer(FED, 1, 1, b"\x03")
    for again in (ledger, reopen(store)):
        for attempt in (1, 2, 2**15):
            refused(AbortCode.ROUND_REUSED, again.open_round, FED, 1, attempt, released=True)
        refused(AbortCode.ROUND_REUSED, again.answer, FED, 1, 1, b"\x05", released=True)
        refused(AbortCode.ROUND_REUSED, again.advance, FED, 1, 1, RoundState.MASKED, released=True)
        assert again.last_answered(FED) == b"\x03", "a refused answer leaves no trace"


def test_rounds_and_federations_are_separate(ledger: Ledger) -> None:
    ledger.open_round(FED, 1, 1)
    ledger.answer(FED, 1, 1, b"\x01")
    ledger.open_round(FED, 2, 1)
    ledger.open_round(OTHER, 1, 1)
    ledger.open_round(FED, 11, 1)
    assert ledger.last_answered(OTHER) == b""
    assert ledger.state(OTHER, 2) is None


def test_each_state_is_reached_once_and_in_order(ledger: Ledger) -> None:
    ledger.open_round(FED, 1, 1)
    refused(AbortCode.ROUND_REUSED, ledger.advance, FED, 1, 1, RoundState.ADVERTISED)
    ledger.advance(FED, 1, 1, RoundState.MASKED)
    refused(AbortCode.ROUND_REUSED, ledger.advance, FED, 1, 1, RoundState.MASKED, released=False)
    ledger.advance(FED, 1, 1, RoundState.ANSWERED)
    refused(AbortCode.ROUND_REUSED, ledger.advance, FED, 1, 1, RoundState.ANSWERED, released=True)


def test_only_the_open_attempt_advances(ledger: Ledger) -> None:
    refused(AbortCode.ROUND_REUSED, ledger.advance, FED, 1, 1, RoundState.MASKED)
    ledger.open_round(FED, 1, 1)
    ledger.open_round(FED, 1, 2)
    for attempt in (1, 3):
        refused(AbortCode.ROUND_REUSED, ledger.advance, FED, 1, attempt, RoundState.MASKED)
        refused(AbortCode.ROUND_REUSED, ledger.answer, FED, 1, attempt, b"\x01")
    assert ledger.state(FED, 1) == (2, RoundState.ADVERTISED)


# Rosters


def test_an_older_roster_is_refused_for_good(ledger: Ledger, store: MemoryStore) -> None:
    ledger.see_roster(FED, 5, ROSTER)
    ledger.see_roster(FED, 5, ROSTER)
    refused(AbortCode.STALE_ROSTER, ledger.see_roster, FED, 4, ROSTER)
    ledger.see_roster(FED, 9, NEWER)
    refused(AbortCode.STALE_ROSTER, reopen(store).see_roster, FED, 8, ROSTER)
    ledger.see_roster(OTHER, 1, ROSTER)


def test_two_rosters_of_one_serial_are_told_apart(ledger: Ledger, store: MemoryStore) -> None:
    ledger.see_roster(FED, 5, ROSTER)
    refused(AbortCode.ROSTER_MISMATCH, ledger.see_roster, FED, 5, NEWER)
    refused(AbortCode.ROSTER_MISMATCH, reopen(store).see_roster, FED, 5, NEWER)
    ledger.see_roster(FED, 5, ROSTER)


def test_the_chains_of_a_roster_go_with_it(ledger: Ledger, store: MemoryStore) -> None:
    ledger.see_roster(FED, 5, ROSTER)
    ledger.see_roster(OTHER, 1, b"o" * 32)
    ledger.store_chains(ROSTER, 4, {2: b"k" * 32})
    ledger.store_chains(b"o" * 32, 4, {2: b"l" * 32})
    ledger.see_roster(FED, 6, NEWER)
    assert ledger.chain(ROSTER, 2) is None and ledger.chain(b"o" * 32, 2) == (4, b"l" * 32)
    assert (b"k" * 32).hex() not in (store.load() or b"").decode()


# Long service


def served(ledger: Ledger, rounds: range, federation: bytes = FED) -> None:
    for round_ in rounds:
        ledger.open_round(federation, round_, 1)
        ledger.bind(federation, round_, "x", b"v")
        ledger.answer(federation, round_, 1, b"\x01")


def test_old_rounds_are_forgotten_and_stay_over(
    ledger: Ledger, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merveil.protocols.ledger.KEPT", 8)
    served(ledger, range(1, 4), OTHER)
    served(ledger, range(1, 101))
    assert len(store.load() or b"") < 5000  # a hundred rounds one by one take 20,000 bytes
    for again in (ledger, reopen(store)):
        assert again.state(FED, 100) == (1, RoundState.ANSWERED)
        for round_ in range(1, 101):
            refused(AbortCode.ROUND_REUSED, again.open_round, FED, round_, 2, released=True)
            refused(AbortCode.ROUND_REUSED, again.answer, FED, round_, 2, b"\x01", released=True)
        refused(AbortCode.ROUND_REUSED, again.bind, FED, 3, "x", b"w")
        refused(AbortCode.ROUND_REUSED, again.check_bound, FED, 3, "y")
        refused(AbortCode.ROUND_REUSED, again.advance, FED, 3, 1, RoundState.MASKED)
        assert again.state(OTHER, 2) == (1, RoundState.ANSWERED)
        again.check_bound(OTHER, 2, "y")
    ledger.open_round(FED, 101, 1)


def test_a_round_that_was_skipped_long_ago_is_over_too(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merveil.protocols.ledger.KEPT", 4)
    served(ledger, range(2, 40, 2))
    refused(AbortCode.ROUND_REUSED, ledger.open_round, FED, 3, 1)
    ledger.open_round(FED, 37, 1)


def test_old_snapshots_are_forgotten_and_open_nothing(
    ledger: Ledger, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merveil.protocols.ledger.KEPT", 4)
    blobs = {bytes([i]) * 32: ledger.seal_snapshot(bytes([i]) * 32, b"", b"state") for i in range(20)}
    assert len(json.loads(store.load() or b"")["snapshots"]) == 8
    for i, (context, blob) in enumerate(blobs.items()):
        if i < 12:
            refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, context, b"", blob)
        else:
            assert ledger.take_snapshot(context, b"", blob) == b"state"


# Snapshots


def test_a_snapshot_opens_once(ledger: Ledger, store: MemoryStore) -> None:
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    assert b"state" not in blob
    assert ledger.take_snapshot(CONTEXT, b"aad", blob) == b"state"
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", blob)
    refused(AbortCode.STATE_ROLLBACK, reopen(store).take_snapshot, CONTEXT, b"aad", blob)


def test_only_the_newest_snapshot_opens(ledger: Ledger, store: MemoryStore) -> None:
    first = ledger.seal_snapshot(CONTEXT, b"aad", b"one")
    second = ledger.seal_snapshot(CONTEXT, b"aad", b"two")
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", first)
    assert reopen(store).take_snapshot(CONTEXT, b"aad", second) == b"two"


def test_an_old_snapshot_stays_old_after_the_newest_was_taken(ledger: Ledger) -> None:
    first = ledger.seal_snapshot(CONTEXT, b"aad", b"one")
    ledger.take_snapshot(CONTEXT, b"aad", first)
    third = ledger.seal_snapshot(CONTEXT, b"aad", b"three")
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", first)
    assert ledger.take_snapshot(CONTEXT, b"aad", third) == b"three"


def test_a_snapshot_is_bound_to_context_identity_and_ledger(ledger: Ledger) -> None:
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, b"d" * 32, b"aad", blob)
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"another", blob)
    stranger = Ledger(MemoryStore(), SeededRng(2))
    stranger.seal_snapshot(CONTEXT, b"aad", b"mine")
    refused(AbortCode.STATE_ROLLBACK, stranger.take_snapshot, CONTEXT, b"aad", blob)
    assert ledger.take_snapshot(CONTEXT, b"aad", blob) == b"state", "refusals spend nothing"


def test_a_snapshot_for_another_context_cannot_be_relabelled(ledger: Ledger) -> None:
    other = b"d" * 32
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    ledger.seal_snapshot(other, b"aad", b"x")
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, other, b"aad", blob[:8] + other + blob[40:])


def test_a_snapshot_of_another_session_with_the_same_serial_does_not_open(ledger: Ledger) -> None:
    """Its own context is sealed with it, so only the comparison with the one asked for refuses it."""
    other = b"d" * 32
    one, two = (ledger.seal_snapshot(session, b"aad", b"state") for session in (CONTEXT, other))
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, other, b"aad", one)
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", two)
    assert ledger.take_snapshot(CONTEXT, b"aad", one) == b"state"


def test_damaged_snapshots_are_refused(ledger: Ledger) -> None:
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    for at in range(len(blob)):
        spoilt = bytearray(blob)
        spoilt[at] ^= 1
        refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", bytes(spoilt))
        refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", blob[:at])
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", blob + b"\x00")


def test_no_snapshot_at_all_is_no_snapshot(ledger: Ledger) -> None:
    """Serial zero, which an empty ledger would accept, opens nothing."""
    forged = bytes(8) + CONTEXT + bytes(60)
    refused(AbortCode.STATE_ROLLBACK, ledger.take_snapshot, CONTEXT, b"aad", forged)


# Chains


def test_chains_are_overwritten(ledger: Ledger, store: MemoryStore) -> None:
    roster = b"r" * 32
    assert ledger.chain(roster, 2) is None
    ledger.store_chains(roster, 4, {2: b"k" * 32, 3: b"l" * 32})
    ledger.store_chains(roster, 5, {2: b"m" * 32})
    assert reopen(store).chain(roster, 2) == (5, b"m" * 32)
    assert reopen(store).chain(roster, 3) == (4, b"l" * 32)
    assert ledger.chain(b"s" * 32, 2) is None
    assert (b"k" * 32).hex() not in (store.load() or b"").decode(), "the earlier key is gone"


# Durability


class Full(MemoryStore):
    """A store whose disk fills up on demand."""

    full = False

    def save(self, data: bytes) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().save(data)


MOVES = {
    "open_round": lambda x, snap: x.open_round(FED, 2, 1),
    "advance": lambda x, snap: x.advance(FED, 1, 1, RoundState.MASKED),
    "answer": lambda x, snap: x.answer(FED, 1, 1, b"\x01"),
    "see_roster": lambda x, snap: x.see_roster(FED, 7, ROSTER),
    "store_chains": lambda x, snap: x.store_chains(b"r" * 32, 1, {1: b"k" * 32}),
    "seal_snapshot": lambda x, snap: x.seal_snapshot(CONTEXT, b"", b"x"),
    "take_snapshot": lambda x, snap: x.take_snapshot(CONTEXT, b"aad", snap),
}


@pytest.mark.parametrize("move", MOVES)
def test_every_move_is_durable_when_it_returns_and_raises_when_it_cannot_be(move: str) -> None:
    store = Full()
    ledger = Ledger(store, SeededRng(1))
    ledger.open_round(FED, 1, 1)
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    before = store.load()
    store.full = True
    with pytest.raises(OSError):
        MOVES[move](ledger, blob)
    assert store.load() == before
    store.full = False
    MOVES[move](Ledger(store, SeededRng(3)), blob)
    assert store.load() != before, "the move is in the store when it returns"


@pytest.mark.parametrize("move", MOVES)
def test_after_a_failed_write_the_ledger_has_to_be_opened_again(move: str) -> None:
    """What is in memory may differ from what is in the store, so nothing is decided on it any more."""
    store = Full()
    ledger = Ledger(store, SeededRng(1))
    ledger.open_round(FED, 1, 1)
    blob = ledger.seal_snapshot(CONTEXT, b"aad", b"state")
    store.full = True
    with pytest.raises(OSError):
        MOVES[move](ledger, blob)
    store.full = False
    with pytest.raises((LocalError, Aborted)):
        MOVES[move](ledger, blob)
    with pytest.raises(LocalError, match="open it again"):
        ledger.open_round(FED, 9, 1)
    MOVES[move](reopen(store), blob)


def test_all_of_it_survives_a_restart(ledger: Ledger, store: MemoryStore) -> None:
    ledger.see_roster(FED, 3, ROSTER)
    ledger.open_round(FED, 1, 2)
    ledger.advance(FED, 1, 2, RoundState.MASKED)
    blob = ledger.seal_snapshot(CONTEXT, b"", b"state")
    again = reopen(store)
    assert again.state(FED, 1) == (2, RoundState.MASKED)
    assert again.take_snapshot(CONTEXT, b"", blob) == b"state"
    refused(AbortCode.STATE_ROLLBACK, reopen(store).take_snapshot, CONTEXT, b"", blob)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"key": "00"},
        {"key": "zz" * 32},
        {"rounds": {"x": [1, 9]}},
        {"rounds": {"x": [1, 0]}},
        {"rounds": {"x": [1]}},
        {"rounds": []},
        {"serials": {"x": "many"}},
        {"serials": {"x": float("inf")}},
        {"chains": {"x": [1, "gg"]}},
        {"snapshots": None},
        {"answered": {"x": 5}},
        {"bound": {"x": 5}},
        {"bound": []},
        {"rosters": {"x": "gg"}},
        {"floors": {"x": "many"}},
    ],
    ids=str,
)
def test_a_damaged_ledger_is_not_used(ledger: Ledger, store: MemoryStore, change: dict[str, Any]) -> None:
    state = json.loads(store.load() or b"")
    store.save(json.dumps({**state, **change}).encode())
    with pytest.raises(LocalError, match="damaged"):
        reopen(store)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": 1}'])
def test_bytes_that_are_no_ledger_are_not_used(store: MemoryStore, data: bytes) -> None:
    store.save(data)
    with pytest.raises(LocalError, match="damaged"):
        reopen(store)


def test_a_round_is_bound_to_one_value_under_a_label(ledger: Ledger, store: MemoryStore) -> None:
    """Over attempts, restarts and rosters; other rounds, labels and federations are free."""
    ledger.check_bound(FED, 3, "list")
    ledger.bind(FED, 3, "list", b"one")
    for who in (ledger, reopen(store)):
        who.bind(FED, 3, "list", b"one")
        refused(AbortCode.ROUND_REUSED, who.bind, FED, 3, "list", b"two", released=True)
        refused(AbortCode.ROUND_REUSED, who.check_bound, FED, 3, "list", released=True)
        who.check_bound(FED, 4, "list")
        who.check_bound(FED, 3, "committee")
        who.check_bound(OTHER, 3, "list")
    state = json.loads(store.load() or b"")
    del state["bound"]
    store.save(json.dumps(state).encode())
    reopen(store).check_bound(FED, 3, "list")  # a ledger from before any scheme bound a round is read


def test_nothing_secret_prints(ledger: Ledger, store: MemoryStore) -> None:
    ledger.store_chains(b"r" * 32, 1, {2: b"k" * 32})
    key = json.loads(store.load() or b"")["key"]
    assert key not in repr(ledger) and (b"k" * 32).hex() not in repr(ledger)
