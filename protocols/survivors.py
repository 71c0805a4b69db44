"""Lists of survivors: their bitmap, the signatures on them, and how far two of them may lie apart."""

import enum
from collections.abc import Iterable

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Frame
from merveil.protocols.session import Seat


def to_bitmap(positions: Iterable[int], size: int) -> bytes:
    """Bit p mod 8 of byte p div 8 is set for each position p < size."""
    bits = bytearray((size + 7) // 8)
    for p in positions:
        bits[p >> 3] |= 1 << (p & 7)
    return bytes(bits)


def from_bitmap(bitmap: bytes) -> frozenset[int]:
    value = int.from_bytes(bitmap, "little")
    return frozenset(p for p in range(value.bit_length()) if value >> p & 1)


def answered(seat: Seat, alive: Iterable[int]) -> None:
    """Note in the ledger that this client answers for `alive`, roster indices. Aborted where it did."""
    context = seat.context
    bitmap = to_bitmap(alive, len(seat.roster) + 1)
    seat.ledger.answer(context.federation, context.round, context.attempt, bitmap)


def check_difference(seat: Seat, alive: Iterable[int]) -> None:
    """Aborted(COHORT_TOO_SMALL) where few clients make the difference to the last set that was answered for.

    Two sums whose survivors differ by few clients tell much about those few.
    """
    least = seat.policy.min_difference
    last = seat.ledger.last_answered(seat.context.federation)
    if least and last:
        difference = len(from_bitmap(last) ^ set(alive))
        if 0 < difference < least:
            raise Aborted(
                AbortCode.COHORT_TOO_SMALL,
                f"the survivors differ by {difference} from the last set, the policy asks {least}",
            )


def signed_by(
    seat: Seat, suite: int, kind: enum.IntEnum, binding: bytes, root: bytes, index: int, signature: bytes
) -> bool:
    """Whether `index` signed the list with this root.

    The signature of a SIGNED frame is the signature on the list: rebuild the frame that it belongs to.
    """
    frame = Frame(suite, kind, binding[:16], index, 0, root, signature)
    return frame.verify(seat.roster.member(index).sign_key, binding)
