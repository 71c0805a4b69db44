"""`ckks` weakened in one place each: the controls of A14, A15, A16, A31-server and A34. In no registry.

INSECURE_SHARED: a threshold of one, so that every client holds the whole key, as where all clients share one
secret key. Every policy refuses it (2t > n + c); the sessions here look at no policy.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from merveil.audits.broken.sessions import seat
from merveil.protocols.ckks import encryption, ring
from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.client import CkksClient
from merveil.protocols.ckks.constants import BITS, CIPHERTEXT_BYTES, DATA, DEGREE
from merveil.protocols.ckks.messages import Kind
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues
from merveil.protocols.ckks.seal import low_level, tenseal, vector
from merveil.protocols.ckks.server import CkksServer
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.errors import AbortCode, RemoteError
from merveil.protocols.frame import Frame
from merveil.protocols.registry import get
from merveil.protocols.session import Desk


def INSECURE_SHARED(cohort: int, dim: int, *, bits: int) -> CkksParams:
    """Everyone's share is the whole key: Shamir of degree zero."""
    return CkksParams("ckks", cohort, dim, bits, threshold=1, corrupt=0)


def client_of(kind: Any) -> Any:
    """A factory for sessions of a subclass of the client, without policy checks."""

    def make(scheme: str, **settings: Any) -> Any:
        made = seat(scheme, **settings)
        return kind(made, made.params)

    return make


class BlindClient(CkksClient):
    """A decryptor that opens the sum of whatever parts it is sent: A31-server."""

    def _answer(
        self, decryptors: list[int], listed: dict[int, bytes], parts: list[tuple[bytes, bytes]]
    ) -> bytes:
        count = self._params.layout.ciphertexts
        total = np.zeros((count, DATA, DEGREE), dtype=np.int64)
        for _, c1 in parts:
            ring.add(total, decode_polynomials(c1, count, DATA, 0))
        share, weights = self._state.share, encryption.lagrange(decryptors, self._seat.index)
        assert share is not None
        sigma = self._params.layout.smudging
        return encode_polynomials(encryption.partial(share, total, weights, sigma, self._seat.rng))


class ForgetfulClient(CkksClient):
    """A decryptor without a ledger: it answers every subset, and keeps its share: A34."""

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        listed = msg.decode_survivors(self._state.survivors)
        count = self._params.layout.ciphertexts
        signatures, parts = msg.decode_request(frame.body, self._seat.index, len(listed), count)
        self._state.seen.pop(Kind.REQUEST, None)
        body = msg.subset_digest(self._state.root, signatures)
        if parts:
            body += self._answer(sorted(signatures), listed, parts)
        return (self._frame(Kind.ANSWER, body, self._state.sid),)

    def _repeated(self, kind: Kind, frame: Frame, digest: bytes) -> bool:
        return kind is not Kind.REQUEST and super()._repeated(kind, frame, digest)


class TrustingServer(CkksServer):
    """It takes what TenSEAL loads, and looks at no stamp: A16. TenSEAL 0.3.18 checks lengths and ranges."""

    def _take_upload(self, sender: int, frame: Frame) -> None:
        size = self._params.layout.ciphertexts * CIPHERTEXT_BYTES
        body = frame.body[msg.DIGEST + 64 :]
        if len(body) != 2 * size:
            raise RemoteError("not of one length", (sender,), AbortCode.BAD_CIPHERTEXT)
        c0, c1 = (decode_polynomials(x, 1, DATA, sender) for x in (body[:size], body[size:]))
        holder = tenseal().context(tenseal().SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(BITS))
        loaded = vector(holder, c0[0], c1[0], DEGREE // 2, 2.0**30)
        assert loaded.size() == DEGREE // 2
        self._book.add(c0)
        self._book.parts[sender] = (bytes(64), body[size:])


def trusting_server(scheme: str, **settings: Any) -> TrustingServer:
    from merveil.protocols.api import make_context

    s = settings
    context = make_context(
        get(scheme), s["params"], s["roster"], s["model_hash"], s["config_hash"], s["round"], s["attempt"]
    )
    return TrustingServer(Desk(s["params"], context, s["roster"]), s["params"])


class RawFloats:
    """TenSEAL as peers use it, one secret key for all, at [36, 36, 34]: decoded floats are published: A14.

    `mean` gives complex slots at full precision and a transcript whose uploads are in this scheme's layout.
    """

    scale = 2.0**30

    def __init__(self, scheme: str, *, record: bool = True) -> None:
        sealapi = low_level()
        settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(DEGREE)
        settings.set_coeff_modulus(sealapi.CoeffModulus.Create(DEGREE, list(BITS)))
        self._context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)
        self._keys, self._public, self._api = (
            sealapi.KeyGenerator(self._context),
            sealapi.PublicKey(),
            sealapi,
        )
        self._keys.create_public_key(self._public)

    def mean(self, updates: Sequence[Any]) -> Any:
        """Encrypt, add in SEAL, decrypt, decode: the sum of all as one upload of client 1, and its mean."""
        api, encoder = self._api, self._api.CKKSEncoder(self._context)
        encryptor, sent = api.Encryptor(self._context, self._public), []
        for update in updates:
            plain, ciphertext = api.Plaintext(), api.Ciphertext()
            encoder.encode([float(x) for x in update], self.scale, plain)
            encryptor.encrypt(plain, ciphertext)
            sent.append(ciphertext)
        opened, evaluator = api.Plaintext(), api.Evaluator(self._context)
        pairs = [_polynomials(c) for c in sent]
        for other in sent[1:]:
            evaluator.add_inplace(sent[0], other)
        api.Decryptor(self._context, self._keys.secret_key()).decrypt(sent[0], opened)
        value = np.array(encoder.decode_complex(opened)) / len(updates)
        frames = tuple(_frame(i, *pair) for i, pair in enumerate(pairs, 1))
        params = CkksParams("ckks", len(updates), DEGREE // 2, threshold=1)
        return SimpleNamespace(value=value, transcript=SimpleNamespace(frames=frames, params=params))


def _polynomials(ciphertext: Any) -> tuple[Residues, Residues]:
    held = ciphertext.dyn_array()
    flat = np.array([held.at(i) for i in range(2 * DATA * DEGREE)], dtype=np.int64)
    c0, c1 = flat.reshape(2, 1, DATA, DEGREE)
    return c0, c1


def _frame(index: int, c0: Residues, c1: Residues) -> Frame:
    body = msg.encode_upload(msg.Upload(bytes(32), bytes(64), encode_polynomials(c0), encode_polynomials(c1)))
    return Frame(msg.SUITE, Kind.UPLOAD, bytes(16), index, 0, body)
