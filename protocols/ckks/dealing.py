"""A client's part in the joint key: what it deals to the others, and how it opens what they dealt."""

from collections.abc import Mapping, Sequence

from merveil.protocols.ckks import encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks import proof as proofs
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sealing import box_keys, chain_keys
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.ckks.wire import check_opaque, decode_polynomials, encode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.primitives.aead import OVERHEAD, open_once, seal_once
from merveil.protocols.primitives.kdf import equal
from merveil.protocols.primitives.sign import verify
from merveil.protocols.session import Seat


def seal_shares(
    seat: Seat, state: ClientState, params: CkksParams, sid: bytes, adverts: Mapping[int, msg.Advert]
) -> tuple[bytes, dict[int, bytes]]:
    """(proof, sealed shares by holder) of the own secret; own share and keys of boxes to come go to state.

    With an authority it keeps its secret as its share and deals nothing.
    """
    assert state.secret is not None
    if params.authority:
        state.share = ring.forward(ring.residues(state.secret, DATA))
        return b"", {}
    peers = [i for i in adverts if i != seat.index]
    chains = chain_keys(seat, peers)
    plains, proof = _prove(seat, state, params, sid, adverts)
    boxes = {}
    for peer in peers:
        keys = box_keys(sid, chains[peer], state.seed, adverts[peer].share_key, seat.index, peer)
        aad = msg.box_aad(sid, seat.index, peer, proof)
        boxes[peer] = seal_once(keys.outgoing, plains[peer], aad)
        state.incoming[peer] = keys.incoming
    return proof, boxes


def _prove(
    seat: Seat, state: ClientState, params: CkksParams, sid: bytes, adverts: Mapping[int, msg.Advert]
) -> tuple[dict[int, bytes], bytes]:
    """Contents of the boxes by holder, and the proof that they lie on one polynomial."""
    assert state.secret is not None
    f = encryption.polynomial(state.secret, params.threshold, seat.rng)
    mask = proofs.masks(params.threshold, seat.rng)
    plains = {}
    for x in sorted(adverts):
        share, salt = encryption.share_at(f, x), seat.rng.draw(msg.SALT, "ckks/node-salt")
        if x == seat.index:
            state.share = share
        plains[x] = encode_polynomials(share) + proofs.encode_scalars([proofs.at(mask, x)]) + salt
    nodes = proofs.nodes_of(seat.index, plains)
    rho = proofs.challenge(sid, seat.index, adverts[seat.index].commitment, nodes)
    return plains, nodes + proofs.encode_scalars(proofs.respond(f, mask, rho))


def good_share(
    plain: bytes,
    sid: bytes,
    dealer: int,
    holder: int,
    holders: Sequence[int],
    commitment: bytes,
    proof: bytes,
) -> Residues | None:
    """The share in a box's content, or None where it contradicts what its dealer committed to and proved.

    holders: all who were dealt to, ascending. commitment: the dealer's advert's.
    """
    if len(plain) != msg.BOX - OVERHEAD:
        return None
    nodes, said = proof[: msg.DIGEST * len(holders)], proof[msg.DIGEST * len(holders) :]
    response = proofs.decode_scalars(said)
    if response is None or proofs.node(dealer, holder, plain) != proofs.node_at(nodes, holders.index(holder)):
        return None
    try:
        share = decode_polynomials(plain[:CIPHERTEXT_BYTES], 1, DATA, dealer)
    except RemoteError:
        return None  # the caller convicts the dealer
    rho = proofs.challenge(sid, dealer, commitment, nodes)
    return share if proofs.fits(plain, share, holder, response, rho) else None


def open_public(seat: Seat, state: ClientState, dealer: int, dealt: msg.Dealt) -> Residues:
    """A dealer's b, held against its commitment."""
    said = msg.commitment(seat.context.digest, dealer, dealt.salt, dealt.public)
    if not equal(said, state.adverts[dealer].commitment):
        raise Aborted(AbortCode.BAD_KEY, f"the key of {dealer} is not the one that it committed to")
    try:
        return decode_polynomials(dealt.public, 1, len(PRIMES), dealer)
    except RemoteError as error:
        raise Aborted(AbortCode.BAD_KEY, f"the key of {dealer} is out of range", (dealer,)) from error


def open_share(seat: Seat, state: ClientState, dealer: int, dealt: msg.Dealt) -> Residues | None:
    """A dealer's share for this client; None where the dealer is at fault and can be shown to be."""
    plain = open_once(
        state.incoming[dealer], dealt.box, msg.box_aad(state.sid, dealer, seat.index, dealt.proof)
    )
    if plain is None:
        raise Aborted(AbortCode.BAD_KEY, f"the shares of {dealer} do not confirm the keys in use")
    holders, said = sorted(state.adverts), state.adverts[dealer].commitment
    return good_share(plain, state.sid, dealer, seat.index, holders, said, dealt.proof)


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
