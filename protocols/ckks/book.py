"""What the server of `ckks` knows of a round, and its canonical bytes for a restart.

O(d) for the sums, and the survivors' c1 parts, which decryptors must see: n times half an upload.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from merveil.protocols.ckks import messages as msg
from merveil.protocols.ckks.constants import DATA
from merveil.protocols.ckks.messages import Advert, Kind, read_advert
from merveil.protocols.ckks.params import CkksParams
from merveil.protocols.ckks.ring import Residues, add
from merveil.protocols.ckks.state import join, split
from merveil.protocols.ckks.wire import decode_polynomials, encode_polynomials
from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Reader
from merveil.protocols.primitives.sign import SIGNATURE
from merveil.protocols.session import Desk, Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields

Dealing = tuple[bytes, bytes, bytes, dict[int, bytes]]


@dataclass
class Book:
    """Plain data; `server` holds the rules.

    dealt: dealer -> (salt, b, proof, boxes by holder). total: sum of c0, later plus the answers. parts:
    survivor -> (stamp, c1). signatures: survivor -> signature on the root. chosen: whose signatures go into
    the request, when CHECK closes. authority: of the parameters. answered: who closed the round.
    slots: digest of the first frame of each (sender, kind).
    """

    adverts: dict[int, Advert] = field(default_factory=dict)
    sid: bytes = b""
    dealt: dict[int, Dealing] = field(default_factory=dict)
    view: bytes = b""
    total: Residues | None = None
    parts: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    survivors: bytes = b""
    root: bytes = b""
    signatures: dict[int, bytes] = field(default_factory=dict)
    chosen: tuple[int, ...] = ()
    answered: set[int] = field(default_factory=set)
    slots: dict[tuple[int, Kind], bytes] = field(default_factory=dict)
    authority: int = 0

    @property
    def decryptors(self) -> tuple[int, ...]:
        """Who opens the sum, once it is chosen."""
        return (self.authority,) if self.authority and self.chosen else self.chosen

    @property
    def keyed(self) -> Iterable[int]:
        """Who may encrypt: those with a part in the key, or all who advertised where one client holds it."""
        return self.adverts if self.authority else self.dealt

    def add(self, x: Residues) -> None:
        self.total = x if self.total is None else add(self.total, x)

    @property
    def alive(self) -> tuple[int, ...]:
        return tuple(sorted(self.parts))

    def due(self, phase: Phase, cohort: tuple[int, ...]) -> set[int]:
        """Who may speak in a phase."""
        by_phase: dict[Phase, Iterable[int]] = {
            Phase.KEYS: cohort,
            Phase.SHARES: (self.authority,) if self.authority else self.adverts,
            Phase.MASKED: self.keyed,
            Phase.CHECK: self.parts,
            Phase.UNMASK: self.signatures,
        }
        return set(by_phase[phase])

    def spoken(self, phase: Phase) -> set[int]:
        by_phase: dict[Phase, Iterable[int]] = {
            Phase.KEYS: self.adverts,
            Phase.SHARES: self.dealt,
            Phase.MASKED: self.parts,
            Phase.CHECK: self.signatures,
            Phase.UNMASK: self.answered,
        }
        return set(by_phase[phase])

    def withdraw(self, sender: int, kind: Kind) -> None:
        """Take back what a client said before its phase closed; sums cannot be taken back."""
        held: dict[Kind, dict[int, object]] = {
            Kind.ADVERT: self.adverts,  # type: ignore[dict-item]
            Kind.SHARES: self.dealt,  # type: ignore[dict-item]
            Kind.SIGNED: self.signatures,  # type: ignore[dict-item]
        }
        if kind in held:
            held[kind].pop(sender, None)

    def forget(self) -> None:
        """The round is over: keep what a late frame is compared with."""
        self.dealt, self.signatures = {}, {}
        self.parts = dict.fromkeys(self.parts, (b"", b""))

    def dump(self, desk: Desk, phase: Phase, excluded: Mapping[int, AbortCode]) -> bytes:
        return pack_fields(
            (
                desk.context.digest,
                phase.value.encode(),
                join({i: a.encode() for i, a in self.adverts.items()}),
                self.sid,
                pack_fields([_dump_dealer(d, p) for d, p in self.dealt.items()]),
                self.view,
                b"" if self.total is None else encode_polynomials(self.total),
                pack_fields([i.to_bytes(2, "big") + s + c for i, (s, c) in self.parts.items()]),
                self.survivors,
                self.root,
                join(self.signatures),
                msg.index_bytes(self.chosen),
                msg.index_bytes(sorted(self.answered)),
                b"".join(bytes((k,)) + i.to_bytes(2, "big") + d for (i, k), d in self.slots.items()),
                b"".join(i.to_bytes(2, "big") + c.name.encode().ljust(32) for i, c in excluded.items()),
            )
        )

    @classmethod
    def load(cls, desk: Desk, params: CkksParams, data: bytes) -> "tuple[Phase, Book, dict[int, AbortCode]]":
        f = unpack_fields(data, 15)
        if f[0] != desk.context.digest:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot belongs to another session")
        try:
            phase = Phase(f[1].decode())
            total = decode_polynomials(f[6], params.layout.ciphertexts, DATA, 0) if f[6] else None
            parts = {_index(p): (p[2 : 2 + SIGNATURE], p[2 + SIGNATURE :]) for p in unpack_fields(f[7])}
            slots = {
                (_index(f[13][i + 1 : i + 3]), Kind(f[13][i])): f[13][i + 3 : i + 35]
                for i in range(0, len(f[13]), 35)
            }
            gone = {i: AbortCode[c.decode().strip()] for i, c in split(f[14], 32).items()}
            dealt = dict(_load_dealer(d) for d in unpack_fields(f[4]))
        except (ValueError, KeyError, IndexError, RemoteError) as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        book = cls(
            adverts={i: read_advert(Reader(a, 0)) for i, a in split(f[2], msg.ADVERT).items()},
            sid=f[3],
            dealt=dealt,
            view=f[5],
            total=total,
            parts=parts,
            survivors=f[8],
            root=f[9],
            signatures=split(f[10], SIGNATURE),
            chosen=_indices(f[11]),
            answered=set(_indices(f[12])),
            slots=slots,
            authority=params.authority,
        )
        return phase, book, gone


def _index(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


def _indices(data: bytes) -> tuple[int, ...]:
    return tuple(_index(data[i : i + 2]) for i in range(0, len(data), 2))


def _dump_dealer(dealer: int, dealing: Dealing) -> bytes:
    salt, public, proof, boxes = dealing
    return pack_fields((msg.index_bytes((dealer,)), salt, public, proof, join(boxes)))


def _load_dealer(data: bytes) -> tuple[int, Dealing]:
    index, salt, public, proof, boxes = unpack_fields(data, 5)
    return _index(index), (salt, public, proof, split(boxes, msg.BOX))
