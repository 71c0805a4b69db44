"""What the server of `lattice` knows of a round, and its canonical bytes for a restart.

One word a residue for the sum, however many clients there are, and the sealed shares under way.
"""

from collections.abc import Iterable, Mapping

from merveil.protocols.errors import AbortCode, Aborted
from merveil.protocols.lattice import messages as msg
from merveil.protocols.lattice.committee import committee
from merveil.protocols.lattice.encryption import Total
from merveil.protocols.lattice.messages import Kind
from merveil.protocols.lattice.params import LatticeParams
from merveil.protocols.session import Desk, Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields
from merveil.protocols.survivors import to_bitmap


class Book:
    """Plain data; `server` holds the rules.

    dealt: survivor -> ephemeral key and boxes, members ascending, until the lists are sent. signatures:
    member -> signature on the root. answers: member -> summed share. slots: digest of the first frame of each
    (sender, kind).
    """

    def __init__(self, desk: Desk, params: LatticeParams) -> None:
        self._desk, self._params = desk, params
        self.position = {i: p for p, i in enumerate(desk.context.cohort)}
        self.members = committee(params, desk.roster, desk.context.cohort)
        self.total = Total(params.layout)
        self.survivors: list[int] = []
        self.dealt: dict[int, tuple[bytes, bytes]] = {}
        self.root = b""
        self.signatures: dict[int, bytes] = {}
        self.asked: tuple[int, ...] = ()
        self.answers: dict[int, bytes] = {}
        self.slots: dict[tuple[int, Kind], bytes] = {}
        self.body_limit = msg.upload_size(params)

    def due(self, phase: Phase) -> set[int]:
        """Who may speak in a phase."""
        if phase is Phase.MASKED:
            return set(self.position)
        return set(self.present if phase is Phase.CHECK else self.asked)

    @property
    def present(self) -> list[int]:
        """Members that are heard of in this attempt: those whose upload is in the sum."""
        alive = set(self.survivors)
        return [i for i in self.members if i in alive]

    def spoken(self, phase: Phase) -> set[int]:
        by_phase: dict[Phase, Iterable[int]] = {
            Phase.MASKED: self.survivors,
            Phase.CHECK: self.signatures,
            Phase.UNMASK: self.answers,
        }
        return set(by_phase[phase])

    def withdraw(self, sender: int, kind: Kind) -> None:
        """Take back what an excluded member said in the phase that is still open."""
        if kind is Kind.SIGNED:
            self.signatures.pop(sender, None)
        elif kind is Kind.ANSWER:
            self.answers.pop(sender, None)

    def fix_survivors(self) -> bytes:
        """The bitmap of the list, whose root is kept."""
        self.survivors.sort()
        bitmap = to_bitmap([self.position[i] for i in self.survivors], len(self.position))
        ephemerals = [self.dealt[i][0] for i in self.survivors]
        self.root = msg.survivor_root(self._desk.context.digest, bitmap, ephemerals)
        return bitmap

    def survivor_list(self, member: int, bitmap: bytes, dealt: Mapping[int, tuple[bytes, bytes]]) -> bytes:
        size = msg.box_size(self._params)
        at = self.members.index(member) * size
        parts = [msg.Dealt(e, boxes[at : at + size]) for e, boxes in (dealt[i] for i in sorted(dealt))]
        return msg.encode_survivors(bitmap, parts)

    def forget(self) -> None:
        """The round is over: shares and answers go."""
        self.dealt, self.answers, self.slots = {}, {}, {}

    def dump(self, phase: Phase, excluded: Mapping[int, AbortCode]) -> bytes:
        return pack_fields(
            (
                self._desk.context.digest,
                phase.value.encode(),
                b"".join(i.to_bytes(2, "big") + c.name.encode().ljust(32) for i, c in excluded.items()),
                b"".join(bytes((k,)) + i.to_bytes(2, "big") + d for (i, k), d in self.slots.items()),
                self.total.dump(),
                b"".join(i.to_bytes(2, "big") for i in self.survivors),
                pack_fields([i.to_bytes(2, "big") + e + b for i, (e, b) in self.dealt.items()]),
                self.root,
                _join(self.signatures),
                b"".join(i.to_bytes(2, "big") for i in self.asked),
                _join(self.answers),
            )
        )

    def load(self, data: bytes) -> tuple[Phase, dict[int, AbortCode]]:
        """Restore; aborts with STATE_ROLLBACK on a snapshot of another session or layout."""
        f = unpack_fields(data, 11)
        if f[0] != self._desk.context.digest:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot belongs to another session")
        try:
            phase = Phase(f[1].decode())
            excluded = {i: AbortCode[c.decode().strip()] for i, c in _split(f[2], 32).items()}
            if len(f[3]) % 35:
                raise ValueError("slots of another length")
            self.slots = {
                (_index(f[3][i + 1 :]), Kind(f[3][i])): f[3][i + 3 : i + 35] for i in range(0, len(f[3]), 35)
            }
            self.total.load(f[4])
            self.survivors = list(_split(f[5], 0))
            self.dealt = {_index(d): (d[2 : 2 + msg.KEY], d[2 + msg.KEY :]) for d in unpack_fields(f[6])}
            self.root = f[7]
            self.signatures = _split(f[8], 64)
            self.asked = tuple(_split(f[9], 0))
            self.answers = _split(f[10], self._params.share_size)
        except (ValueError, KeyError) as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        self._check_loaded(phase)
        return phase, excluded

    def _check_loaded(self, phase: Phase) -> None:
        """Each step's parties are among those of the step before, and every share is whole."""
        size = self._params.members * msg.box_size(self._params)
        alive = set(self.survivors)
        whole = all(len(e) == msg.KEY and len(b) == size for e, b in self.dealt.values())
        dealt = set(self.dealt) == (alive if phase is Phase.MASKED else set())
        nested = alive <= set(self.position) and set(self.signatures) <= set(self.members)
        nested = nested and set(self.answers) <= set(self.asked) <= set(self.signatures)
        live = phase in (Phase.MASKED, Phase.CHECK, Phase.UNMASK)
        if not (whole and dealt and nested and live and bool(self.root) == (phase is not Phase.MASKED)):
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot contradicts itself")


def _index(data: bytes) -> int:
    return int.from_bytes(data[:2], "big")


def _join(entries: Mapping[int, bytes]) -> bytes:
    return b"".join(i.to_bytes(2, "big") + v for i, v in entries.items())


def _split(data: bytes, size: int) -> dict[int, bytes]:
    step = 2 + size
    if len(data) % step:
        raise ValueError("entries of another length")
    return {_index(data[i:]): data[i + 2 : i + step] for i in range(0, len(data), step)}
