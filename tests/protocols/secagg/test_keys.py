"""Pair keys, the ratchet and what a stolen key opens."""

from dataclasses import replace
from typing import Any

import pytest

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Frame
from merveil.protocols.ledger import Ledger
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.secagg.keys import (
    chain_at,
    mask_scalar,
    pair_keys,
    pair_mask_key,
    pair_root,
    ratchet,
    self_mask_key,
)
from merveil.protocols.secagg.messages import Kind

SID, CHAIN, SHARED = b"s" * 32, b"c" * 32, b"e" * 32


def test_both_ends_have_the_same_keys_crossed() -> None:
    one, two = pair_keys(SID, CHAIN, SHARED, 3, 9), pair_keys(SID, CHAIN, SHARED, 9, 3)
    assert one.mask == two.mask == pair_mask_key(SID, SHARED, 9, 3)
    assert (one.outgoing, one.incoming, one.word, one.peer_word) == (
        two.incoming, two.outgoing, two.peer_word, two.word
    )  # fmt: skip
    assert len({one.outgoing, one.incoming}) == 2 and one.word != one.peer_word
    assert [len(x) for x in one] == [16, 32, 32, 8, 8]


@pytest.mark.parametrize(
    "changes", [{"sid": b"t" * 32}, {"chain": b"d" * 32}, {"shared": b"f" * 32}, {"peer": 8}]
)
def test_every_input_enters_the_share_keys(changes: Any) -> None:
    base = {"sid": SID, "chain": CHAIN, "shared": SHARED, "own": 3, "peer": 9}
    one, two = pair_keys(**base), pair_keys(**{**base, **changes})
    assert one.outgoing != two.outgoing and one.incoming != two.incoming and one.word != two.word
    assert (one.mask == two.mask) is ("chain" in changes), "the server recomputes a mask without the chain"


def test_a_mask_scalar_and_a_self_mask_are_bound_to_their_context() -> None:
    assert public_bytes(mask_scalar(SID, SHARED)) != public_bytes(mask_scalar(CHAIN, SHARED))
    assert self_mask_key(SID, SHARED) != self_mask_key(CHAIN, SHARED)
    assert len(self_mask_key(SID, SHARED)) == 16


def test_roots_are_equal_at_both_ends_and_differ_by_pair_and_roster(kit: Any, federation: Any) -> None:
    one = federation(4)
    a, b, c = one.identities[:3]
    root = pair_root(a, one.roster, 1, 2)
    assert root == pair_root(b, one.roster, 2, 1) != pair_root(c, one.roster, 3, 1)
    later = one.coordinator.sign([i.member for i in one.identities], serial=2, not_before=0, expires=2**40)
    assert pair_root(a, later, 1, 2) != root


def test_a_chain_catches_up_over_missed_rounds_and_never_goes_back(federation: Any) -> None:
    one = federation(4)
    here, there = Ledger(), Ledger()
    a, b, roster = one.identities[0], one.identities[1], one.roster
    first = chain_at(here, a, roster, 1, 2, 1)
    assert first == pair_root(a, roster, 1, 2)
    here.store_chains(roster.hash, 2, {2: ratchet(first)})
    assert chain_at(here, a, roster, 1, 2, 5) == chain_at(there, b, roster, 2, 1, 5)
    expected = first
    for _ in range(4):
        expected = ratchet(expected)
    assert chain_at(here, a, roster, 1, 2, 5) == expected
    with pytest.raises(Aborted) as error:
        chain_at(here, a, roster, 1, 2, 1)
    assert error.value.code is AbortCode.STALE_KEY


def test_closing_a_round_erases_its_chain_keys(play: Any, small: Any) -> None:
    """C of round 1 is in the ledger while the round is open, and gone when it was answered."""
    kit = small()
    round_ = play(kit).start()
    round_.run(Kind.REQUEST)
    at, open_key = kit.ledger(2).chain(kit.roster.hash, 3)
    assert at == 1
    round_.finish()
    at, closed = kit.ledger(2).chain(kit.roster.hash, 3)
    assert at == 2 and closed == ratchet(open_key)
    assert play(kit, round=2).start().finish().survivors == (1, 2, 3, 4, 5)
    assert kit.ledger(2).chain(kit.roster.hash, 3)[0] == 3


def test_clients_that_missed_rounds_take_part_again(play: Any, small: Any) -> None:
    kit = small()
    absent = play(kit, lambda f: () if 4 in (f.sender, f.to) else (f,)).start()
    assert absent.finish().survivors == (1, 2, 3, 5)
    half = play(kit, lambda f: () if (f.kind, f.to) == (Kind.REQUEST, 5) else (f,), round=2).start()
    assert half.finish().survivors == (1, 2, 3, 4, 5)
    for round_ in (3, 9):
        assert play(kit, round=round_).start().finish().survivors == (1, 2, 3, 4, 5)


def test_an_earlier_round_cannot_be_opened_after_a_later_one(play: Any, small: Any) -> None:
    kit = small()
    play(kit, round=3).start().finish()
    round_ = play(kit, round=2).start()
    with pytest.raises(Aborted):
        round_.finish()
    assert {e.code for e in round_.aborts.values()} == {AbortCode.STALE_KEY}


def test_a_stolen_static_key_opens_no_past_box(play: Any, small: Any) -> None:
    """A33: with every frame and client 2's long-term keys, but not the erased seeds, no box opens.

    The chain key can be computed again from the static key. The ephemeral agreement cannot: with it, as the
    control, the same box opens.
    """
    from merveil.protocols.primitives.aead import open_once
    from merveil.protocols.primitives.agreement import agree
    from merveil.protocols.secagg import messages as msg
    from merveil.protocols.secagg.client import box_aad

    kit = small()
    round_ = play(kit).start()
    secret = round_.clients[2]._state.key_seed
    keep: dict[str, Any] = {}

    def tap(frame: Frame) -> tuple[Frame, ...]:
        if frame.kind == Kind.RELAY and frame.to == 2:
            keep["relay"] = frame
        return (frame,)

    round_.tap = tap
    round_.finish()
    book = round_.server._book
    context = round_.context.digest
    path, box = msg.decode_relay(keep["relay"].body, 3)[3]
    ends = book.adverts[3].digest(context, 3), book.adverts[2].digest(context, 2)
    aad = box_aad(round_.sid, 3, 2, *ends, path)
    chain = pair_root(kit.federation.identities[1], kit.roster, 2, 3)
    static = kit.federation.identities[1].agree_key
    guesses = [bytes(32), chain, agree(static, book.adverts[3].mask_key, 0), static.private_bytes_raw()]
    for shared in guesses:
        assert open_once(pair_keys(round_.sid, chain, shared, 2, 3).incoming, box, aad) is None
    shared = agree(mask_scalar(context, secret), book.adverts[3].mask_key, 0)
    assert open_once(pair_keys(round_.sid, chain, shared, 2, 3).incoming, box, aad) is not None


def test_a_stale_roster_is_refused(small: Any, federation: Any) -> None:
    kit = small()
    kit.client(1)
    newer = federation(5, serial=2).roster
    kit.client(1, roster=newer)
    with pytest.raises(Aborted) as error:
        kit.client(1)
    assert error.value.code is AbortCode.STALE_ROSTER
    with pytest.raises(Aborted) as error:
        kit.client(2, now=kit.roster.expires + 1)
    assert error.value.code is AbortCode.STALE_ROSTER


def test_the_private_key_of_a_seed_is_clamped_by_the_library() -> None:
    assert public_bytes(private_key(bytes(32))) == public_bytes(private_key(b"\x07" + bytes(31)))
    assert replace(Frame(1, 1, bytes(16), 1, 0, b""), body=b"x").body == b"x"
