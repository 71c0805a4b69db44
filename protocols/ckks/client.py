"""Client of `ckks`: a joint key for this round alone, one encrypted vector, at most one answer.

KEYS: the commitment to the own b is out. SHARES: b and the sealed key shares are out. MASKED: the joint key
is here, the vector may be missing. CHECK: the ciphertext is out. UNMASK: one survivor list is signed. DONE:
the one answer is out and the key share is gone. A frame that contradicts what this client knows ends the
session; nothing is answered then.
"""

from collections.abc import Sequence

from merveil.protocols.ckks import checks, encoding, encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import CIPHERTEXT_BYTES, DATA, PRIMES, PUBLIC_BYTES
from merveil.protocols.ckks.dealing import checked_sum, open_public, open_share, seal_shares
from merveil.protocols.ckks.messages import SUITE, Kind
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.sampling import expand
from merveil.protocols.ckks.sealing import close_chains
from merveil.protocols.ckks.state import ClientState
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.client import Client
from merveil.protocols.codec import Codes
from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.frame import Frame
from merveil.protocols.ledger import RoundState
from merveil.protocols.machine import Event, step
from merveil.protocols.primitives.agreement import private_key, public_bytes
from merveil.protocols.primitives.sign import sign
from merveil.protocols.session import FIVE, SPENT, Phase, Seat, moves
from merveil.protocols.survivors import answered

TABLE = moves(FIVE, client=True)
_DUE = {
    Kind.KEYS: Phase.KEYS,
    Kind.RELAY: Phase.SHARES,
    Kind.SURVIVORS: Phase.CHECK,
    Kind.REQUEST: Phase.UNMASK,
}
_MISMATCH = AbortCode.ROSTER_MISMATCH


class CkksClient(Client[Kind, ClientState]):
    """One client, one attempt at one round."""

    TABLE, KIND, DUE, OPENING, LABEL = TABLE, Kind, _DUE, Kind.KEYS, b"ckks/1/snapshot"

    def __init__(self, seat: Seat, params: CkksParams, snapshot: bytes | None = None) -> None:
        super().__init__(SUITE, seat, params)
        self._params = params
        if snapshot is not None:
            self._phase, self._state = ClientState.load(self._snapshot(snapshot))

    def _blank(self) -> ClientState:
        return ClientState()

    def _binding(self, kind: Kind) -> bytes:
        return self._seat.context.digest if kind in (Kind.ADVERT, Kind.KEYS) else self._state.sid

    def _open(self, after: Phase) -> Sequence[Frame]:
        """Open the round in the ledger, draw a key, and commit to its public part."""
        seat, context = self._seat, self._seat.context
        secret, raw, salt = self._draw_key()
        seed = seat.rng.draw(32, "ckks/share-key")
        advert = msg.Advert(
            seat.rng.draw(32, "ckks/nonce"),
            public_bytes(private_key(seed)),
            msg.commitment(context.digest, seat.index, salt, raw) if raw else bytes(msg.DIGEST),
        )
        seat.ledger.open_round(context.federation, context.round, context.attempt)
        self._state = ClientState(
            codes=self._state.codes, advert=advert, secret=secret, public=raw, salt=salt, seed=seed
        )
        self._phase = after
        return (self._frame(Kind.ADVERT, msg.encode_advert(context, advert)),)

    def _draw_key(self) -> tuple[Residues | None, bytes, bytes]:
        """(secret, wire form of b, salt of its commitment); nothing where another client holds the key."""
        seat = self._seat
        if self._params.authority not in (0, seat.index):
            return None, b"", b""
        secret, public = encryption.key_pair(expand(seat.context.digest), seat.rng)
        return secret, encode_polynomials(public), seat.rng.draw(msg.SALT, "ckks/salt")

    def _has_vector(self) -> bool:
        return self._state.codes is not None or self._phase in (Phase.CHECK, Phase.UNMASK)

    def _take_vector(self, codes: Codes) -> Sequence[Frame]:
        self._state.codes = codes.copy()
        return self._upload() if self._phase is Phase.MASKED else ()

    def _body_limit(self) -> int:
        n = self._params.cohort
        parts = self._params.layout.ciphertexts * CIPHERTEXT_BYTES
        proof = msg.proof_size(n, self._params.threshold)
        return 64 + n * (256 + max(PUBLIC_BYTES + proof + msg.BOX, parts))

    def _handle(self, kind: Kind, frame: Frame) -> Sequence[Frame]:
        if kind is Kind.KEYS:
            return self._on_keys(frame)
        if kind is Kind.RELAY:
            return self._on_relay(frame)
        if kind is Kind.SURVIVORS:
            return self._on_survivors(frame)
        return self._on_request(frame)

    # KEYS

    def _on_keys(self, frame: Frame) -> Sequence[Frame]:
        seat, context, state = self._seat, self._seat.context, self._state
        adverts = checks.adverts(seat, self._params, state, frame)
        sid = msg.session_id(context.digest, adverts)
        frames: Sequence[Frame] = ()
        if state.secret is not None:
            proof, boxes = seal_shares(seat, state, self._params, sid, adverts)
            body = msg.encode_shares(state.salt, state.public, proof, boxes)
            frames = (self._frame(Kind.SHARES, body, sid),)
        state.sid, state.adverts = sid, adverts
        state.secret, state.seed = None, b""
        self._go(Event.ADVANCE)
        return frames

    # SHARES

    def _on_relay(self, frame: Frame) -> Sequence[Frame]:
        seat, state, holder = self._seat, self._state, self._params.authority
        proof = 0 if holder else msg.proof_size(len(state.adverts), self._params.threshold)
        entries = msg.decode_relay(frame.body, proof, 0 if holder else msg.BOX)
        expected = {holder} - {seat.index} if holder else set(state.incoming)
        if not set(entries) <= expected or (holder and set(entries) != expected):
            raise Aborted(_MISMATCH, "keys of other clients than have a part in it", (0,))
        if not holder:
            checks.enough(self._params, len(entries) + 1, "shared")
        joint = decode_polynomials(state.public, 1, len(PRIMES), seat.index) if state.public else None
        for dealer, dealt in entries.items():
            public = open_public(seat, state, dealer, dealt)
            joint = public if joint is None else ring.add(joint, public)
            if not holder:
                assert state.share is not None
                share = open_share(seat, state, dealer, dealt)
                if share is None:
                    raise self._complaint(dealer)
                state.share = ring.add(state.share, share)
        state.joint = joint
        state.dealers = (holder,) if holder else tuple(sorted((*entries, seat.index)))
        state.view = msg.view_digest(state.sid, state.dealers)
        state.incoming, state.public, state.salt = {}, b"", b""
        self._go(Event.ADVANCE)
        return self._upload() if state.codes is not None else ()

    def _complaint(self, dealer: int) -> Aborted:
        """The key of the dealer's box shows everyone what is in it; this session ends."""
        body = msg.encode_complaint(dealer, self._state.incoming[dealer])
        return Aborted(
            AbortCode.BAD_SHARE,
            f"the share of {dealer} contradicts what it committed to",
            (dealer,),
            frames=(self._frame(Kind.COMPLAINT, body),),
        )

    # MASKED

    def _upload(self) -> Sequence[Frame]:
        """Encrypt the one vector, note it in the ledger, and forget everything but the digest of c1."""
        seat, context, state, params = self._seat, self._seat.context, self._state, self._params
        assert state.codes is not None and state.joint is not None
        after = step(TABLE, SPENT, self._phase, Event.ADVANCE)
        limbs = encoding.to_limbs(params, state.codes)
        common = expand(context.digest)
        c0, c1 = encryption.encrypt(state.joint, common, params, limbs, seat.rng)
        raw = encode_polynomials(c1)
        digest = msg.c1_digest(raw)
        fields = msg.stamp_fields(state.sid, seat.index, state.view, digest)
        stamp = sign(seat.identity.sign_key, msg.STAMP, *fields)
        body = msg.encode_upload(msg.Upload(state.view, stamp, encode_polynomials(c0), raw))
        seat.ledger.advance(context.federation, context.round, context.attempt, RoundState.MASKED)
        state.c1, state.codes, state.joint = digest, None, None
        self._phase = after
        return (self._frame(Kind.UPLOAD, body),)

    # CHECK

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        seat, state = self._seat, self._state
        checks.survivors(seat, self._params, state, frame)
        root = msg.survivor_root(state.sid, state.view, frame.body)
        state.survivors, state.root = frame.body, root
        self._go(Event.ADVANCE)
        return (self._frame(Kind.SIGNED, root),)

    # UNMASK

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        """Answer once where chosen, else close the round; either way the key share is gone afterwards."""
        seat, state, params = self._seat, self._state, self._params
        listed = msg.decode_survivors(state.survivors)
        signatures, parts = checks.request(seat, params, state, frame)
        body = msg.subset_digest(state.root, signatures)
        if parts:
            body += self._answer(sorted(signatures), listed, parts)
        after = step(TABLE, SPENT, self._phase, Event.FINISH)
        answered(seat, listed)
        close_chains(seat, [i for i in state.adverts if i != seat.index])
        answer = self._frame(Kind.ANSWER, body)
        self._state = ClientState(sid=state.sid, seen=state.seen)
        self._phase = after
        return (answer,)

    def _answer(
        self, decryptors: list[int], listed: dict[int, bytes], parts: list[tuple[bytes, bytes]]
    ) -> bytes:
        """Recompute the sum of the survivors' signed c1 parts, and decrypt nothing else."""
        seat, state, params = self._seat, self._state, self._params
        total = checked_sum(seat, state, params, listed, parts)
        assert state.share is not None
        weights = (1,) * DATA if params.authority else encryption.lagrange(decryptors, seat.index)
        answer = encryption.partial(state.share, total, weights, params.layout.smudging, seat.rng)
        return encode_polynomials(answer)
