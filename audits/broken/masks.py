"""Positive controls of A01, A02 and A03: pair masks from a folded seed, a linear generator, or no session."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from merveil.protocols.frame import Frame
from merveil.protocols.ledger import Ledger, RoundState
from merveil.protocols.primitives.aead import unseal
from merveil.protocols.primitives.kdf import hash_fields
from merveil.protocols.primitives.packing import pack, word_type
from merveil.protocols.primitives.prg import KEY, add_masks
from merveil.protocols.rng import SystemRng
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.client import SecAggClient
from merveil.protocols.secagg.keys import self_mask_key
from merveil.protocols.session import Phase

FOLD_BITS = 16


class FoldedSeed(SecAggClient):
    """Both ends fold a pair's mask key to 16 bits, so the masks still cancel."""

    def _seal_boxes(self, sid: bytes, listed: msg.KeyList) -> dict[int, bytes]:
        boxes = super()._seal_boxes(sid, listed)
        self._state.masks = {i: self._fold(key) for i, key in self._state.masks.items()}
        return boxes

    @staticmethod
    def _fold(key: bytes) -> bytes:
        return (int.from_bytes(key, "big") % (1 << FOLD_BITS)).to_bytes(KEY, "big")


class _OwnMask(SecAggClient, ABC):
    """The masking step with another way to blind."""

    def _mask(self) -> Sequence[Frame]:
        seat, context, state = self._seat, self._seat.context, self._state
        assert state.codes is not None
        total = state.codes.astype(np.uint64).astype(word_type(seat.params.modulus_bits))
        self._blind(total)
        body = self._masked_head() + pack(
            total & total.dtype.type(seat.params.modulus - 1), seat.params.modulus_bits
        )
        seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)
        frame = self._frame(msg.Kind.MASKED, body, state.sid)
        state.forget_mask(frame.digest())
        self._phase = Phase.CHECK
        return (frame,)

    @abstractmethod
    def _blind(self, total: np.ndarray) -> None:
        """Add the masks to the words, in place."""


def twister_range(
    bits: int, start: int, count: int, plus: Sequence[bytes], minus: Sequence[bytes]
) -> np.ndarray:
    """As `mask_range`, with MT19937 in place of AES; start is 0."""
    total = np.zeros(count, dtype=word_type(bits))
    for sign, keys in ((1, plus), (-1, minus)):
        for key in keys:
            seeds = np.random.SeedSequence(np.frombuffer(key, dtype="<u4").tolist())
            total += (sign * np.random.MT19937(seeds).random_raw(count).astype(np.int64)).astype(total.dtype)
    return total


class Twister(_OwnMask):
    """Pair masks are 32-bit outputs of MT19937, seeded with the whole key."""

    def _blind(self, total: np.ndarray) -> None:
        add_masks(total, [self_mask_key(self._state.sid, self._state.seed)], [])
        plus = [k for peer, k in self._state.masks.items() if self._seat.index < peer]
        minus = [k for peer, k in self._state.masks.items() if self._seat.index > peer]
        total += twister_range(self._seat.params.modulus_bits, 0, total.size, plus, minus)


class StaticMask(_OwnMask):
    """Masks are keyed by who masks, and by no round or session."""

    def _blind(self, total: np.ndarray) -> None:
        key = hash_fields("secagg/1/self-mask", self._seat.identity.member.encode())[:KEY]
        add_masks(total, [key], [])


class NoRules(Ledger):
    """A ledger that writes everything and refuses nothing."""

    def open_round(self, federation: bytes, round_: int, attempt: int) -> None:
        self._rounds[f"{federation.hex()}/{round_}"] = (attempt, RoundState.ADVERTISED)

    def _advance(self, federation: bytes, round_: int, attempt: int, state: RoundState) -> None:
        self._rounds[f"{federation.hex()}/{round_}"] = (attempt, int(state))

    def store_chains(self, roster_hash: bytes, round_: int, chains: Mapping[int, bytes]) -> None:
        """Nothing moves on, so old rounds stay open."""


class NoChains(Ledger):
    """A07: no static agreement stands behind a pair's share keys."""

    def chain(self, roster_hash: bytes, peer: int) -> tuple[int, bytes] | None:
        return 1, bytes(32)


class NoSerial(NoRules):
    """A10: any snapshot that this party ever sealed opens."""

    def take_snapshot(self, session: bytes, aad: bytes, blob: bytes) -> bytes:
        plain = unseal(self._key, blob[40:], blob[:40] + aad)
        assert plain is not None
        return plain


class LowEntropy:
    """A09: the sharing's coefficients have 10 bits each; all else comes from the operating system."""

    def draw(self, size: int, label: str) -> bytes:
        raw = SystemRng().draw(size, label)
        if label != "secagg/coefficients":
            return raw
        parts = (raw[i : i + 48] for i in range(0, size, 48))
        return b"".join((int.from_bytes(p, "big") % 1024).to_bytes(48, "big") for p in parts)
