"""A client's part in the joint key: what it deals to the others, and how it opens what they dealt."""

from collections.abc import Mapping, Sequence

from merveil.protocols.ckks import encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import DATA, PRIMES
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sealing import box_keys, chain_keys
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.ckks.wire import check_opaque, decode_polynomials, encode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.primitives.aead import open_once, seal_once
from merveil.protocols.primitives.kdf import equal
from merveil.protocols.primitives.sign import verify
from merveil.protocols.session import Seat


def seal_shares(
    seat: Seat, state: ClientState, params: CkksParams, sid: bytes, adverts: Mapping[int, msg.Advert]
) -> dict[int, bytes]:
    """Sealed shares of the own secret by holder; the own share, and the keys of boxes to come, go to state.

    With an authority it keeps its secret as its share and deals nothing.
    """
    assert state.secret is not None
    if params.authority:
        state.share = ring.forward(ring.residues(state.secret, DATA))
        return {}
    peers = [i for i in adverts if i != seat.index]
    chains = chain_keys(seat, peers)
    shares = encryption.deal(state.secret, sorted(adverts), params.threshold, seat.rng)
    boxes = {}
    for peer in peers:
        keys = box_keys(sid, chains[peer], state.seed, adverts[peer].share_key, seat.index, peer)
        plain = encode_polynomials(shares[peer])
        boxes[peer] = seal_once(keys.outgoing, plain, msg.box_aad(sid, seat.index, peer))
        state.incoming[peer] = keys.incoming
    state.share = shares[seat.index]
    return boxes


def open_public(seat: Seat, state: ClientState, dealer: int, dealt: msg.Dealt) -> Residues:
    """A dealer's b, held against its commitment."""
    said = msg.commitment(seat.context.digest, dealer, dealt.salt, dealt.public)
    if not equal(said, state.adverts[dealer].commitment):
        raise Aborted(AbortCode.BAD_KEY, f"the key of {dealer} is not the one that it committed to")
    try:
        return decode_polynomials(dealt.public, 1, len(PRIMES), dealer)
    except RemoteError as error:
        raise Aborted(AbortCode.BAD_KEY, f"the key of {dealer} is out of range", (dealer,)) from error


def open_share(seat: Seat, state: ClientState, dealer: int, dealt: msg.Dealt) -> Residues:
    """A dealer's share for this client."""
    plain = open_once(state.incoming[dealer], dealt.box, msg.box_aad(state.sid, dealer, seat.index))
    if plain is None:
        raise Aborted(AbortCode.BAD_KEY, f"the shares of {dealer} do not confirm the keys in use")
    try:
        return decode_polynomials(plain, 1, DATA, dealer)
    except RemoteError as error:
        raise Aborted(AbortCode.BAD_SHARE, f"{dealer} dealt residues out of range", (dealer,)) from error


def checked_sum(
    seat: Seat,
    state: ClientState,
    params: CkksParams,
    listed: Mapping[int, bytes],
    parts: Sequence[tuple[bytes, bytes]],
) -> Residues:
    """The sum of the survivors' c1 parts, each held against the list and its sender's stamp."""
    total: Residues | None = None
    for (index, digest), (stamp, c1) in zip(sorted(listed.items()), parts, strict=True):
        fields = msg.stamp_fields(state.sid, index, state.view, digest)
        key = seat.roster.member(index).sign_key
        if msg.c1_digest(c1) != digest or not verify(key, stamp, msg.STAMP, *fields):
            raise Aborted(AbortCode.BAD_CIPHERTEXT, f"the part of {index} is not what it signed", (0,))
        try:
            part = decode_polynomials(c1, params.layout.ciphertexts, DATA, index)
            check_opaque(part, index)
        except RemoteError as error:
            raise Aborted(AbortCode.BAD_CIPHERTEXT, str(error), (index,)) from error
        total = part if total is None else ring.add(total, part)
    assert total is not None
    return total
