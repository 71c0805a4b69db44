"""What a client of `ckks` checks of the server's KEYS, SURVIVORS and REQUEST before it goes on.

Aborted: the server, or what it relays, contradicts what this client knows. RemoteError: the frame is refused
and changes nothing. Nothing here changes a state.
"""

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.messages import SUITE, Advert, Kind
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.session import Seat
from merveil.protocols.survivors import check_difference, signed_by

_MISMATCH = AbortCode.ROSTER_MISMATCH


def enough(params: CkksParams, clients: int, what: str) -> None:
    if clients < params.threshold:
        raise Aborted(
            AbortCode.BELOW_THRESHOLD, f"{clients} clients {what}, the threshold is {params.threshold}"
        )


def adverts(seat: Seat, params: CkksParams, state: ClientState, frame: Frame) -> dict[int, Advert]:
    """Those of KEYS: this round's, the own one unchanged, the cohort's alone, and enough of them."""
    context = seat.context
    fingerprint, found = msg.decode_keys(frame.body)
    difference = context.difference(fingerprint)
    if difference is AbortCode.STALE_KEY:
        raise RemoteError("the frame belongs to another round or attempt", (0,), difference)
    if difference is not None:
        raise Aborted(difference, "the server's round differs from this client's", (0,))
    if frame.session != context.digest[:16]:
        raise Aborted(AbortCode.PARAMS_MISMATCH, "the server is in another context", (0,))
    if found.get(seat.index) != state.advert:
        raise Aborted(_MISMATCH, "this client's advert is not on the list", (0,))
    if not set(found) <= set(context.cohort):
        raise Aborted(_MISMATCH, "the list names clients outside the cohort", (0,))
    enough(params, len(found), "advertised")
    if params.authority and params.authority not in found:
        raise Aborted(AbortCode.BELOW_THRESHOLD, f"{params.authority} holds the key and is missing")
    return found


def survivors(seat: Seat, params: CkksParams, state: ClientState, frame: Frame) -> None:
    """SURVIVORS holds the own ciphertext, parts of the key's owners alone, and enough of them."""
    listed = msg.decode_survivors(frame.body)
    if listed.get(seat.index) != state.c1:
        raise Aborted(_MISMATCH, "the survivor list does not hold this client's ciphertext", (0,))
    if not set(listed) <= set(state.adverts if params.authority else state.dealers):
        raise Aborted(_MISMATCH, "survivors that have no part in the key", (0,))
    enough(params, len(listed), "survived")
    check_difference(seat, listed)


def request(
    seat: Seat, params: CkksParams, state: ClientState, frame: Frame
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """(signatures, parts) of REQUEST: exactly t survivors signed the list that this client signed."""
    listed = msg.decode_survivors(state.survivors)
    count, holder = params.layout.ciphertexts, params.authority
    signatures, parts = msg.decode_request(frame.body, seat.index, len(listed), count, holder)
    held = all(
        signed_by(seat, SUITE, Kind.SIGNED, state.sid, state.root, i, signature)
        for i, signature in signatures.items()
        if i in listed
    )
    if not set(signatures) <= set(listed) or not held:
        raise Aborted(AbortCode.BAD_SIGNATURE, "a signature on the survivor list does not hold", (0,))
    if len(signatures) != params.threshold:
        raise Aborted(
            AbortCode.BELOW_THRESHOLD, f"{len(signatures)} signatures, not {params.threshold}", (0,)
        )
    check_difference(seat, listed)
    return signatures, parts
