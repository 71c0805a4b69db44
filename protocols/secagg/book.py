"""What the server of a round has in hand, and its canonical bytes for a restart."""

import itertools
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from merveil.protocols.errors import AbortCode, Aborted, RemoteError
from merveil.protocols.frame import Reader
from merveil.protocols.primitives import merkle
from merveil.protocols.primitives.kdf import DIGEST
from merveil.protocols.primitives.packing import packed_size, word_type
from merveil.protocols.secagg import messages as msg
from merveil.protocols.secagg.graph import ring
from merveil.protocols.secagg.keys import WORD
from merveil.protocols.secagg.messages import BOX, REVEALED, VIEW, Advert, KeyList, Kind, read_advert
from merveil.protocols.session import Desk, Phase
from merveil.protocols.snapshot import pack_fields, unpack_fields
from merveil.protocols.survivors import to_bitmap


class Book:
    """Adverts, committed nodes, boxes under way, the running sum, signatures and answers."""

    def __init__(self, desk: Desk) -> None:
        params, context = desk.params, desk.context
        self._desk = desk
        self.position = {i: p for p, i in enumerate(context.cohort)}
        self._graph = ring(
            desk.roster.beacon, desk.roster.hash, context.round, context.cohort, params.neighbours
        )
        self.slots: dict[tuple[int, Kind], bytes] = {}
        self.adverts: dict[int, Advert] = {}
        self.sid = b""
        self._tree = b""
        self.nodes: dict[int, bytes] = {}  # dealer -> flat Merkle tree over its holders' nodes
        self.boxes: dict[int, dict[int, bytes]] = {}
        self.total = np.zeros(params.size, dtype=word_type(params.modulus_bits))
        self.masked: dict[int, bytes] = {}
        self.words: dict[int, bytes] = {}  # client -> one word a neighbour, ascending; sparse graphs only
        self.bitmap = b""
        self._entries = b""
        self.root = b""
        self.signatures: dict[int, bytes] = {}
        self.asked: set[int] = set()
        self.answers: dict[int, dict[int, bytes]] = {}
        k = len(self.holders(context.cohort[0]))
        vector = VIEW + WORD * params.neighbours + packed_size(params.size, params.modulus_bits)
        self.body_limit = max(vector, 1024 + k * (BOX + REVEALED + DIGEST))

    # The graph

    def neighbours(self, index: int) -> tuple[int, ...]:
        return self._graph.neighbours(index)

    def holders(self, dealer: int) -> tuple[int, ...]:
        """Who holds a share of a dealer's seeds, ascending; the j-th has the point j + 1."""
        return self._graph.holders(dealer)

    def node(self, dealer: int, holder: int) -> bytes:
        """The dealer's commitment to both shares of a holder."""
        return merkle.leaf(self.nodes[dealer], self._graph.place(dealer, holder))

    def path(self, dealer: int, holder: int) -> bytes:
        """From the holder's node to the dealer's share root."""
        return merkle.path(self.nodes[dealer], self._graph.place(dealer, holder))

    def joined_neighbours(self, index: int) -> list[int]:
        return [i for i in self.neighbours(index) if i in self.adverts]

    def dealers_around(self, index: int) -> list[int]:
        """Neighbours whose shares a client was sent, and with whom it masks, ascending."""
        return [i for i in self.neighbours(index) if i in self.nodes]

    def dealers_of(self, holder: int) -> list[int]:
        """Dealers of this round whose shares a holder got, ascending."""
        return [i for i in self.holders(holder) if i in self.nodes]

    # Who is due and who has spoken

    def due(self, phase: Phase) -> set[int]:
        if phase is Phase.KEYS:
            return set(self.position)
        if phase is Phase.SHARES:
            return set(self.adverts)
        if phase is Phase.MASKED:
            return set(self.nodes)
        if phase is Phase.CHECK:
            return set(self.masked)
        return self.asked

    def spoken(self, phase: Phase) -> set[int]:
        by_phase: dict[Phase, Mapping[int, object]] = {
            Phase.KEYS: self.adverts,
            Phase.SHARES: self.nodes,
            Phase.MASKED: self.masked,
            Phase.CHECK: self.signatures,
            Phase.UNMASK: self.answers,
        }
        return set(by_phase[phase])

    def withdraw(self, sender: int, kind: Kind) -> None:
        """Take back what an excluded client said in the phase that is still open."""
        if kind is Kind.ADVERT:
            self.adverts.pop(sender, None)
        elif kind is Kind.SHARES:
            self.nodes.pop(sender, None)
            self.boxes.pop(sender, None)
        elif kind is Kind.SIGNED:
            self.signatures.pop(sender, None)
        elif kind is Kind.ANSWER:
            self.answers.pop(sender, None)

    # KEYS

    def keep(self, joined: set[int]) -> None:
        self.adverts = {i: advert for i, advert in self.adverts.items() if i in joined}

    def open_session(self) -> None:
        context = self._desk.context.digest
        leaves = [
            self.adverts[i].digest(context, i) if i in self.adverts else merkle.ZERO for i in self.position
        ]
        self._tree = merkle.flat_tree(leaves)
        self.sid = msg.session_id(context, merkle.root(self._tree), len(self.adverts))

    def key_list(self, index: int) -> KeyList:
        return KeyList(
            self._desk.context.fingerprint,
            merkle.root(self._tree),
            len(self.adverts),
            merkle.path(self._tree, self.position[index]),
            {i: self.adverts[i] for i in self.joined_neighbours(index)},
        )

    # SHARES

    def keep_dealers(self, dealers: set[int]) -> None:
        self.nodes = {i: tree for i, tree in self.nodes.items() if i in dealers}
        self.boxes = {i: boxes for i, boxes in self.boxes.items() if i in dealers}

    def relays(self) -> Callable[[int], bytes]:
        """holder -> the boxes for it, each with the path from its node to the dealer's root.

        Frames are built when they are sent, and by then the phase may be over: so it keeps what it needs.
        """
        nodes, boxes = self.nodes, self.boxes

        def relay(holder: int) -> bytes:
            entries = {}
            for dealer in self.neighbours(holder):
                if dealer in nodes:
                    path = merkle.path(nodes[dealer], self._graph.place(dealer, holder))
                    entries[dealer] = (path, boxes[dealer][holder])
            return msg.encode_relay(entries)

        return relay

    # CHECK

    def fix_survivors(self) -> None:
        context = self._desk.context.digest
        self.bitmap = to_bitmap([self.position[i] for i in self.masked], len(self.position))
        leaves = [
            msg.survivor_entry(i, self.adverts[i].digest(context, i), self.masked[i])
            if i in self.masked
            else merkle.ZERO
            for i in self.position
        ]
        self._entries = merkle.flat_tree(leaves)
        self.root = msg.survivor_root(self.sid, self.bitmap, merkle.root(self._entries))

    def survivor_list(self, index: int) -> bytes:
        path = merkle.path(self._entries, self.position[index])
        words = []
        for peer in self.neighbours(index) if self._desk.params.neighbours else ():
            if peer in self.masked:
                at = WORD * self._graph.place(peer, index)
                words.append(self.words[peer][at : at + WORD])
        return msg.SurvivorList(self.bitmap, merkle.root(self._entries), path, b"".join(words)).encode()

    def signers(self, index: int) -> list[int]:
        return [i for i in self.holders(index) if i in self.signatures]

    def request(self, index: int) -> bytes:
        needed = self.signers(index)[: self._desk.params.threshold]
        return msg.encode_request({i: self.signatures[i] for i in needed})

    def forget(self) -> None:
        """The round is over: shares, boxes and answers go."""
        self.boxes, self.answers, self.nodes, self.slots = {}, {}, {}, {}

    # Restart

    def dump(self, phase: Phase, excluded: Mapping[int, AbortCode]) -> bytes:
        def join(entries: Mapping[int, bytes]) -> bytes:
            return pack_fields([i.to_bytes(2, "big") + v for i, v in entries.items()])

        slots = b"".join(i.to_bytes(2, "big") + bytes((k,)) + d for (i, k), d in self.slots.items())
        return pack_fields(
            (
                self._desk.context.digest,
                phase.value.encode(),
                join({i: c.name.encode() for i, c in excluded.items()}),
                slots,
                join({i: a.encode() for i, a in self.adverts.items()}),
                self.sid,
                join(self.nodes),
                join({i: join(b) for i, b in self.boxes.items()}),
                self.total.astype(self.total.dtype.newbyteorder("<")).tobytes(),
                join(self.masked),
                join(self.signatures),
                join(self.words),
                join(dict.fromkeys(self.asked, b"")),
                join({i: join(a) for i, a in self.answers.items()}),
            )
        )

    def load(self, snapshot: bytes) -> tuple[Phase, dict[int, AbortCode]]:
        """Restore; aborts with STATE_ROLLBACK on a snapshot of another session or layout."""
        f = unpack_fields(snapshot, 14)
        if f[0] != self._desk.context.digest or len(f[8]) != self.total.nbytes:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot belongs to another session")
        try:
            phase = Phase(f[1].decode())
            if len(f[3]) % 35:
                raise ValueError("slots of another length")
            excluded = {i: AbortCode[c.decode()] for i, c in _split(f[2]).items()}
            self.slots = {
                (int.from_bytes(f[3][i : i + 2], "big"), Kind(f[3][i + 2])): f[3][i + 3 : i + 35]
                for i in range(0, len(f[3]), 35)
            }
            self.adverts = {i: read_advert(Reader(a, 0)) for i, a in _split(f[4]).items()}
            self.sid = f[5]
            self.nodes = _split(f[6])
            self.boxes = {i: _split(b) for i, b in _split(f[7]).items()}
            self.masked, self.signatures = _split(f[9]), _split(f[10])
            self.words = _split(f[11])
            self.asked = set(_split(f[12]))
            self.answers = {i: _split(a) for i, a in _split(f[13]).items()}
        except (ValueError, KeyError, RemoteError) as error:
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot is damaged") from error
        self._check_loaded(phase)
        self.total[:] = np.frombuffer(f[8], dtype=self.total.dtype.newbyteorder("<"))
        if self.sid:
            self.open_session()
            if self.sid != f[5]:
                raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot names another session")
        if phase in (Phase.CHECK, Phase.UNMASK):
            self.fix_survivors()
        return phase, excluded

    def _check_loaded(self, phase: Phase) -> None:
        """Each step's clients are among those of the step before, and all commitments are whole."""
        steps: tuple[Iterable[int], ...] = (
            self.position,
            self.adverts,
            self.nodes,
            self.masked,
            self.signatures,
            self.asked,
            self.answers,
        )
        nested = all(set(later) <= set(earlier) for earlier, later in itertools.pairwise(steps))
        size = WORD * self._desk.params.neighbours
        words = {i: len(w) for i, w in self.words.items()} == dict.fromkeys(self.masked, size)
        whole = words and all(len(t) == merkle.size(len(self.holders(i))) for i, t in self.nodes.items())
        boxed = phase in (Phase.CHECK, Phase.UNMASK) or set(self.boxes) == set(self.nodes)
        live = phase in (Phase.KEYS, Phase.SHARES, Phase.MASKED, Phase.CHECK, Phase.UNMASK)
        if not (nested and whole and boxed and live and bool(self.sid) == (phase is not Phase.KEYS)):
            raise Aborted(AbortCode.STATE_ROLLBACK, "the snapshot contradicts itself")


def _split(data: bytes) -> dict[int, bytes]:
    return {int.from_bytes(f[:2], "big"): f[2:] for f in unpack_fields(data)}
