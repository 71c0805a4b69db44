"""`lattice` weakened in one place each: controls of A18, A19, A19-rounds and A09-lattice. In no registry."""

from collections.abc import Callable, Sequence
from typing import Any

from merveil.audits.broken.sessions import seat
from merveil.protocols.codec import Codes
from merveil.protocols.frame import Frame
from merveil.protocols.lattice import encryption, packed
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice.client import LatticeClient
from merveil.protocols.lattice.encryption import Key
from merveil.protocols.lattice.messages import Kind
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.registry import get
from merveil.protocols.rng import SeededRng
from merveil.protocols.session import Phase

CONSTANT = b"one set of polynomials for all.."  # 32 bytes where the context belongs


def client_of(kind: Any) -> Callable[..., Any]:
    """A factory for sessions of a subclass of the client, without policy checks."""

    def make(scheme: str, **settings: Any) -> Any:
        made = seat(scheme, **settings)
        return kind(made, made.params)

    return make


class ReusingClient(LatticeClient):
    """One key for ever: A19-rounds."""

    def _open(self, after: Phase) -> Sequence[Frame]:
        super()._open(after)
        own = SeededRng(self._seat.identity.agree_key.private_bytes_raw()).child("key")
        self._state.secret = Key.draw(self._params.degree, own).take()
        ephemeral, boxes = self._deal(self._state.secret)
        self._state.ephemeral, self._state.boxes = ephemeral, boxes
        return ()


class ConstantClient(ReusingClient):
    """One key for ever and one set of public polynomials: A18."""

    def _ciphertext(self, codes: Codes) -> bytes:
        assert self._state.secret is not None
        return encryption.mask(self._params, CONSTANT, Key(self._state.secret), codes, self._seat.rng)


class EagerClient(LatticeClient):
    """A member that answers whatever list it is shown, as often as it is shown one: A19."""

    def _on_request(self, frame: Frame) -> Sequence[Frame]:
        self._state.seen.clear()
        self._phase = Phase.CHECK
        return (self._frame(Kind.ANSWER, self._state.share),)

    def _on_survivors(self, frame: Frame) -> Sequence[Frame]:
        bitmap, dealt = msg.decode_survivors(self._params, self._seat.context.cohort, frame.body)
        total = sum(self._open_box(i, part) for i, part in dealt.items())
        digest = self._seat.context.digest
        self._state.root = msg.survivor_root(digest, bitmap, [d.ephemeral for d in dealt.values()])
        self._state.share = packed.encode(self._params, total % self._params.field)
        self._phase = Phase.UNMASK
        return (self._frame(Kind.SIGNED, self._state.root),)

    def _repeated(self, kind: Kind, frame: Frame, digest: bytes) -> bool:
        return False


def INSECURE_ONE_MEMBER(cohort: int, dim: int, *, bits: int) -> LatticeParams:
    """A quorum of one, one secret a polynomial: each share is the key. Every policy refuses it."""
    p = get("lattice").params(cohort, dim, bits=bits)
    assert isinstance(p, LatticeParams)
    fields = {name: getattr(p, name) for name in p.__dataclass_fields__}
    return LatticeParams(**{**fields, "quorum": 1, "pack": 1, "corrupt_members": 0})
